# SPDX-License-Identifier: Apache-2.0
"""Several cameras through one model: each has topics, a service and counters of its own."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from diagnostic_msgs.msg import DiagnosticArray
from harness import image_message
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from seqamodal_msgs.msg import LayeredMasks
from seqamodal_msgs.srv import SegmentImage
from seqamodal_ros.messages import message_to_scene
from seqamodal_ros.perceiver import Perceiver

NAMES = ["left", "right"]


@pytest.fixture
def pair(bench):
    """A bench with two cameras, and what comes back from each."""
    b = bench(cameras=NAMES)
    b.sent = {name: b.peer.create_publisher(Image, f"{name}/image", QoSProfile(depth=1)) for name in NAMES}
    b.masks = {name: [] for name in NAMES}
    for name in NAMES:
        b.peer.create_subscription(LayeredMasks, f"seqamodal/{name}/layered_masks", b.masks[name].append, 10)
    assert b.wait(lambda: all(publisher.get_subscription_count() for publisher in b.sent.values()))
    assert b.wait(lambda: all(b.peer.count_publishers(f"seqamodal/{name}/layered_masks") for name in NAMES))
    return b


def test_each_camera_gets_the_answers_to_its_own_images(pair, eager_model):
    alone = Perceiver.load(str(eager_model), "cpu")
    for stamp, name in enumerate(NAMES, start=1):
        pair.sent[name].publish(image_message(stamp))
    assert pair.wait(lambda: all(pair.masks.values()))
    for stamp, name in enumerate(NAMES, start=1):
        (masks,) = pair.masks[name]
        assert masks.header.stamp.sec == stamp
        pixels = np.frombuffer(image_message(stamp).data, np.uint8).reshape(48, 64, 3)
        np.testing.assert_array_equal(message_to_scene(masks).amodal, alone(pixels).amodal)


def test_a_bad_image_of_one_is_none_of_the_others_business(pair):
    bad = image_message(1)
    bad.encoding = "nonsense"
    pair.sent["left"].publish(bad)
    assert pair.wait(lambda: pair.node.cameras["left"].counters.rejected == 1)
    pair.sent["right"].publish(image_message(2))
    assert pair.wait(lambda: pair.masks["right"])
    assert pair.node.cameras["right"].counters.rejected == 0
    heard = {}
    pair.peer.create_subscription(
        DiagnosticArray, "/diagnostics", lambda message: heard.update({each.name: each for each in message.status}), 10
    )
    assert pair.wait(lambda: len(heard) == 3)
    values = {name: {item.key: item.value for item in each.values} for name, each in heard.items()}
    assert values["/seqamodal: left"]["rejected"] == "1"
    assert values["/seqamodal: right"]["answered"] == "1"
    assert values["/seqamodal"]["state"] == "active" and "received" not in values["/seqamodal"]  # what it said before is over


def test_each_has_a_service(pair):
    client = pair.peer.create_client(SegmentImage, "seqamodal/right/segment")
    assert pair.wait(client.service_is_ready)
    future = client.call_async(SegmentImage.Request(image=image_message(7), num_samples=1))
    assert pair.wait(future.done)
    assert future.result().success
    assert future.result().masks.header.stamp.sec == 7


def test_a_region_that_leaves_the_second_camera_s_image_is_refused(pair):
    pair.sent["right"].publish(image_message(1))
    assert pair.wait(lambda: pair.masks["right"])
    result = pair.node.set_parameters([Parameter("region", value=[0, 0, 640, 480, 0, 0, 65, 48])])[0]
    assert not result.successful
    assert "parameter 'region'" in result.reason and "64x48" in result.reason and result.reason.endswith(" of right")
    assert pair.node.set_parameters([Parameter("region", value=[0, 0, 640, 480, 0, 0, 64, 48])])[0].successful


def test_each_looks_at_a_region_of_its_own(bench):
    b = bench(cameras=NAMES, region=[0, 0, 0, 0, 8, 4, 20, 10])
    sides = {}
    for name in NAMES:
        publisher = b.peer.create_publisher(Image, f"{name}/image", QoSProfile(depth=1))
        heard = []
        b.peer.create_subscription(LayeredMasks, f"seqamodal/{name}/layered_masks", heard.append, 10)
        assert b.wait(lambda topic=name: b.peer.count_publishers(f"seqamodal/{topic}/layered_masks") > 0)
        assert b.wait(publisher.get_subscription_count)
        publisher.publish(image_message(1))
        assert b.wait(lambda heard=heard: heard)
        sides[name] = heard[0].scale_x * heard[0].mask_width
    assert sides == {"left": 64, "right": 20}


@pytest.mark.parametrize("names", [["a", "a"], ["a", ""], ["a/b"], ["2nd"]], ids=" ".join)
def test_names_that_make_no_topics_are_refused(bench, capfd, names):
    b = bench(cameras=names)
    assert "parameter 'cameras' must be different names" in capfd.readouterr().err
    assert b.node._state_machine.current_state[1] == "unconfigured"


def test_where_the_second_camera_cannot_be_made_nothing_of_the_first_is_left(bench, monkeypatch, capfd):
    from seqamodal_ros.ros import perception_node

    real = perception_node.Camera

    def failing(node, name, *others):
        if name == "right":
            raise RuntimeError("no more topics")
        return real(node, name, *others)

    with monkeypatch.context() as patched:
        patched.setattr(perception_node, "Camera", failing)
        b = bench(cameras=NAMES)
        assert "cannot configure: no more topics" in capfd.readouterr().err
        assert not b.node.cameras
        assert b.wait(lambda: b.node.count_subscribers("/left/image") == 0)
    assert b.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert list(b.node.cameras) == NAMES


def test_reset_is_of_all_cameras(pair):
    bad = image_message(1)
    bad.encoding = "nonsense"
    for name in NAMES:
        pair.sent[name].publish(bad)
    assert pair.wait(lambda: all(camera.counters.rejected for camera in pair.node.cameras.values()))
    client = pair.peer.create_client(Trigger, "seqamodal/reset")
    assert pair.wait(client.service_is_ready)
    assert pair.wait(client.call_async(Trigger.Request()).done)
    assert [camera.counters.received for camera in pair.node.cameras.values()] == [0, 0]

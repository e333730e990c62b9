# SPDX-License-Identifier: Apache-2.0
"""Which qualities of service exchange messages with the node's topics, and that the others are told."""

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from diagnostic_msgs.msg import DiagnosticArray
from harness import WITHIN, Bench, image_message
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image

from seqamodal_msgs.msg import LayeredMasks
from seqamodal_ros.messages import image_rgb, image_size
from seqamodal_ros.ros.worker import Worker

RELIABLE, BEST_EFFORT = QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT
VOLATILE, LASTING = QoSDurabilityPolicy.VOLATILE, QoSDurabilityPolicy.TRANSIENT_LOCAL
PAIRS = list(itertools.product((RELIABLE, BEST_EFFORT), (VOLATILE, LASTING)))
QUICK = {"num_samples": 1, "max_layers": 1, "sampling_steps": 1}
QUIET = 0.5  # seconds without an answer, of a node that answers others within a tenth of it


def quality(pair: tuple[Any, Any]) -> QoSProfile:
    return QoSProfile(depth=5, reliability=pair[0], durability=pair[1])


def name(pair: Any) -> str | None:
    return "-".join(policy.name.lower() for policy in pair) if isinstance(pair, tuple) else None


def seen(b: Bench, stamp: int) -> bool:
    return any(masks.header.stamp.sec == stamp for masks in list(b.peer.masks))


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_the_image_subscription_takes_what_any_camera_offers(bench, pair):
    b = bench(**QUICK)
    publisher = b.peer.create_publisher(Image, "image", quality(pair))
    assert b.wait(lambda: publisher.get_subscription_count() > 0)
    b.connected()
    publisher.publish(image_message(7))
    assert b.wait(lambda: seen(b, 7))


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_a_reliable_image_subscription_takes_reliable_cameras_alone_and_tells_of_others(bench, pair):
    b = bench(**QUICK, **{"qos_overrides./image.subscription.reliability": "reliable"})
    b.connected()
    publisher = b.peer.create_publisher(Image, "image", quality(pair))
    if pair[0] == RELIABLE:
        assert b.wait(lambda: publisher.get_subscription_count() > 0)
        publisher.publish(image_message(7))
        assert b.wait(lambda: seen(b, 7))
    else:
        assert b.says("[seqamodal]: New publisher discovered", "RELIABILITY")
        publisher.publish(image_message(7))
        b.peer.send(8)
        assert b.wait(lambda: seen(b, 8))
        assert not b.wait(lambda: seen(b, 7), QUIET)
        assert publisher.get_subscription_count() == 0


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_the_masks_go_to_volatile_listeners_and_others_are_told(bench, pair):
    b = bench(**QUICK)
    heard: list[LayeredMasks] = []
    b.connected()
    b.peer.create_subscription(LayeredMasks, "seqamodal/layered_masks", heard.append, quality(pair))
    compatible = pair[1] == VOLATILE
    listeners = 2 if compatible else 1  # the peer listens too
    if not compatible:
        assert b.says("[seqamodal]: New subscription discovered", "DURABILITY")
    assert b.wait(lambda: b.camera.outputs._masks.get_subscription_count() == listeners)
    b.peer.send(7)
    assert b.wait(lambda: seen(b, 7))
    assert b.wait(lambda: bool(heard), WITHIN if compatible else QUIET) == compatible


def offered(b: Bench, name: str) -> dict[str, Any]:
    """The reliability of each of the topics of the camera of this name, as others see it."""
    ours = b.node.get_name()
    found = {}
    for topic in ("image", "depth", "camera_info"):
        ends = b.peer.get_subscriptions_info_by_topic(f"/{name}/{topic}")
        found[topic] = [end.qos_profile.reliability for end in ends if end.node_name == ours]
    for topic in ("layered_masks", "label", "overlay", "points"):
        ends = b.peer.get_publishers_info_by_topic(f"/seqamodal/{name}/{topic}")
        found[topic] = [end.qos_profile.reliability for end in ends if end.node_name == ours]
    return {topic: policies[0] if len(policies) == 1 else policies for topic, policies in found.items()}


AS_THE_CODE_HAS_IT = {
    **dict.fromkeys(("image", "depth", "camera_info"), BEST_EFFORT),
    **dict.fromkeys(("layered_masks", "label", "overlay", "points"), RELIABLE),
}


@pytest.mark.parametrize("changed", [("image", "label"), ("depth", "points"), ("camera_info", "layered_masks"), ("overlay",)])
def test_parameters_override_the_qos_of_each_topic_alone_and_each_time_the_node_is_configured(bench, changed):
    name, overrides, expected = f"of_{changed[0]}", {}, dict(AS_THE_CODE_HAS_IT)
    for topic in changed:
        if AS_THE_CODE_HAS_IT[topic] == BEST_EFFORT:
            expected[topic], overrides[f"qos_overrides./{name}/{topic}.subscription.reliability"] = RELIABLE, "reliable"
        else:
            expected[topic] = BEST_EFFORT
            overrides[f"qos_overrides./seqamodal/{name}/{topic}.publisher.reliability"] = "best_effort"
    b = bench(**QUICK, cameras=[name], **overrides)
    assert b.wait(lambda: offered(b, name) == expected), offered(b, name)
    assert b.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert b.node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert b.wait(lambda: not any(offered(b, name).values()))
    assert b.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert b.wait(lambda: offered(b, name) == expected), offered(b, name)


def test_a_qos_that_there_is_not_keeps_the_node_unconfigured_and_is_told(bench):
    b = bench(**QUICK, **{"qos_overrides./depth.subscription.reliability": "relieable"})
    assert b.says("cannot configure", "reliability", "relieable")
    assert not b.node.cameras


def test_a_qos_of_a_topic_that_there_is_not_is_told(bench):
    right, wrong = "qos_overrides./image.subscription.depth", "qos_overrides./imagee.subscription.depth"
    b = bench(**QUICK, **{right: 2, wrong: 2})
    assert b.says(f"there is no parameter '{wrong}': its value is ignored; did you mean '{right}'?")
    assert b.said().count("there is no parameter") == 1


def test_diagnostics_name_the_camera_whose_qos_is_incompatible(bench, monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.camera.QUIET", 0.0)
    b = bench(
        cli_args=["--ros-args", "-r", "image:=/of_bin", "-r", "/of_bin:=/elsewhere"],
        **QUICK,
        **{"qos_overrides./of_bin.subscription.reliability": "reliable"},
    )
    heard: list[str] = []
    b.peer.create_subscription(
        DiagnosticArray, "/diagnostics", lambda message: heard.extend(each.message for each in message.status), 10
    )
    refused = "the QoS of peer on /of_bin is incompatible with this node's: Best effort publisher and reliable subscription"
    fitting = b.peer.create_publisher(Image, "/of_bin", quality((RELIABLE, VOLATILE)))
    assert b.wait(lambda: bool(heard) and "no image on /of_bin" in heard[-1])
    assert refused not in heard[-1]
    b.peer.create_publisher(Image, "/of_bin", quality((BEST_EFFORT, VOLATILE)))
    assert b.wait(lambda: "no image on /of_bin" in heard[-1] and refused in heard[-1]), "beside one that fits"
    b.peer.destroy_publisher(fitting)
    assert b.wait(lambda: heard[-1] == refused)


def at_work(bench: Any, monkeypatch: pytest.MonkeyPatch, step: Callable[[Image], Any]) -> tuple[Bench, list[tuple[int, str]]]:
    """A bench whose camera takes half a second for this step of an image, and is at it; stamps and threads of all that follow."""
    begun = []

    def slow(message: Image) -> Any:
        begun.append((message.header.stamp.sec, threading.current_thread().name))
        time.sleep(0.5)
        return step(message)

    monkeypatch.setattr(f"seqamodal_ros.ros.images.{step.__name__}", slow)
    b = bench(**QUICK)
    b.connected()
    b.peer.send(1)
    assert b.wait(lambda: bool(begun))
    return b, begun


def test_frames_that_come_while_one_is_read_replace_each_other(bench, monkeypatch):
    b, read = at_work(bench, monkeypatch, image_size)
    for stamp in range(2, 7):
        b.peer.send(stamp)
    assert b.wait(lambda: seen(b, 6))
    assert len(read) <= 3, "old ones were read first"


def test_the_worker_converts_images_and_those_in_vain_give_way(bench, monkeypatch):
    gave_way = []
    monkeypatch.setattr(Worker, "give_way", lambda self, camera: gave_way.append(camera))
    b, converted = at_work(bench, monkeypatch, image_rgb)
    for stamp in range(2, 7):
        b.peer.send(stamp)
        assert b.wait(lambda stamp=stamp: b.node.cameras[""].counters.received >= stamp)
    assert b.wait(lambda: seen(b, 6))
    assert {name for _, name in converted} == {"perceiver"}
    assert len(converted) <= 3 and gave_way, "those that were superseded were converted"

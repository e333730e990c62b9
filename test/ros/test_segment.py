# SPDX-License-Identifier: Apache-2.0
"""`~/segment` and `~/reset`: one image in, its masks out, while the stream goes on; each refusal says why."""

import threading
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from builtin_interfaces.msg import Duration
from harness import image_message
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import Trigger

from seqamodal_msgs.msg import LayeredMasks
from seqamodal_msgs.srv import SegmentImage
from seqamodal_ros.messages import image_rgb, message_to_scene, scene_to_message
from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.ros.mailbox import MOST_REQUESTED
from seqamodal_ros.ros.segment import BURST

NOW = 2_000_000_000  # a stamp, in seconds, that is later than any request of these tests


@pytest.fixture
def ask(bench):
    """A node and a way to call its service: returns the bench and a function from requests to futures."""
    b = bench(num_samples=2)
    client = b.peer.create_client(SegmentImage, "seqamodal/segment")
    assert client.wait_for_service(60)
    return b, lambda **fields: client.call_async(SegmentImage.Request(**fields))


def answer(b, future):
    assert b.wait(future.done)
    return future.result()


def test_an_image_is_answered_with_its_own_masks(ask, eager_model):
    b, call = ask
    image = image_message(5)
    response = answer(b, call(image=image, num_samples=4, seed=9))
    assert response.success, response.message
    assert response.message == ""
    assert response.masks.header == image.header
    assert (response.masks.num_samples, response.masks.seed) == (4, 9)
    pixels = np.frombuffer(image.data, np.uint8).reshape(48, 64, 3)
    expected = Perceiver.load(str(eager_model), "cpu")(pixels, num_samples=4, seed=9)
    np.testing.assert_array_equal(message_to_scene(response.masks).amodal, expected.amodal)
    assert not b.peer.masks, "the answer goes to the caller, not to the topic"


def test_requests_leave_nothing_behind(ask):
    """The node's callback group remembers each timer that was ever in it."""
    b, call = ask

    def remembered() -> int:
        return sum(len(each) for each in vars(b.node.default_callback_group).values() if isinstance(each, set))

    before = remembered()
    assert before
    for _ in range(5):
        assert answer(b, call(image=image_message(5))).success
    assert remembered() == before


def test_without_an_image_the_first_one_stamped_after_the_request_is_taken(ask):
    b, call = ask
    b.connected()
    future = call(seed=3)
    assert b.wait(lambda: b.camera.segment._for_camera)
    b.peer.send(stamp=1)  # older than the request
    assert b.wait(lambda: b.peer.masks)
    assert not future.done()
    b.peer.send(stamp=NOW)
    response = answer(b, future)
    assert response.success, response.message
    assert response.masks.header.stamp.sec == NOW
    assert (response.masks.num_samples, response.masks.seed) == (2, 3)  # K is the node's where the request has none


def test_the_cameras_image_is_answered_as_its_frames_are(bench):
    """In its region, and without hypotheses where none are published."""
    b = bench(region=[8, 4, 40, 30], publish_hypotheses=False)
    client = b.peer.create_client(SegmentImage, "seqamodal/segment")
    assert client.wait_for_service(60)
    b.connected()
    future = client.call_async(SegmentImage.Request())
    assert b.wait(lambda: b.camera.segment._for_camera)
    b.peer.send(stamp=NOW)
    masks = answer(b, future).masks
    assert (masks.offset_x, masks.scale_x * masks.mask_width) == (8, 40)
    assert masks.layers and not any(layer.hypotheses for layer in masks.layers)


def test_a_camera_image_that_cannot_be_decoded_is_told_to_who_waits_for_it(bench):
    b = bench(image_transport="compressed")
    client = b.peer.create_client(SegmentImage, "seqamodal/segment")
    assert client.wait_for_service(60)
    publisher = b.peer.create_publisher(CompressedImage, "image/compressed", 1)
    assert b.wait(lambda: publisher.get_subscription_count() > 0)
    future = client.call_async(SegmentImage.Request())
    assert b.wait(lambda: b.camera.segment._for_camera)
    message = CompressedImage(header=image_message(stamp=NOW).header, format="png")
    message.data = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()[:600]
    publisher.publish(message)
    response = answer(b, future)
    assert not response.success
    assert response.message.startswith("the image cannot be used: a compressed image (format 'png')")
    assert b.wait(lambda: b.camera.counters.rejected)
    assert (b.camera.counters.received, b.camera.counters.rejected, b.camera.counters.failed) == (1, 1, 0)


def test_requests_are_answered_while_streaming(ask):
    b, call = ask
    b.connected()
    futures = []
    for stamp in range(1, 31):
        b.peer.send(stamp)
        if stamp % 10 == 0:
            futures.append((stamp, call(image=image_message(1000 + stamp))))
        b.wait(lambda: False, seconds=0.01)
    for stamp, future in futures:
        assert answer(b, future).masks.header.stamp.sec == 1000 + stamp
    assert b.wait(lambda: b.peer.masks and b.peer.masks[-1].header.stamp.sec == 30)
    assert all(masks.header.stamp.sec <= 30 for masks in b.peer.masks)


def test_the_worker_makes_the_image_and_waits_until_its_answer_is_made(ask, monkeypatch):
    b, call = ask
    monkeypatch.setattr("seqamodal_ros.ros.worker.HAND_OVER", 20)
    went, see, make, go_on = [], Perceiver.batch, scene_to_message, threading.Event()

    def convert(message):
        went.append(f"image made by {threading.current_thread().name}")
        return image_rgb(message)

    def batch(perceiver, images, num_samples, seed, **kwargs):
        went.append(f"{seed} seen")
        return go_on.wait(20) and see(perceiver, images, num_samples, seed, **kwargs)

    def message(scene, *others):
        time.sleep(0.2)  # time enough for the worker, if it did not wait
        went.append(f"{scene.seed} made")
        return make(scene, *others)

    monkeypatch.setattr("seqamodal_ros.ros.images.image_rgb", convert)
    monkeypatch.setattr("seqamodal_ros.ros.outputs.scene_to_message", message)
    monkeypatch.setattr(Perceiver, "batch", batch)
    first = call(image=image_message(), seed=1)
    assert b.wait(lambda: "1 seen" in went)
    second = call(image=image_message(), seed=2)
    assert b.wait(lambda: b.node._worker._mailbox._requested)
    go_on.set()
    assert answer(b, first).success and answer(b, second).success
    image = "image made by perceiver"
    assert went == [image, "1 seen", "1 made", image, "2 seen", "2 made"]


@pytest.mark.parametrize(
    "fields,words",
    [
        ({"image": {"encoding": "nonsense" * 1000}}, ["cannot be used", "'nonsensenonsense"]),
        ({"image": {"frame_id": "c" * 256}}, ["cannot be used", "header.frame_id has 256 characters; 255 at most are a name"]),
        ({"num_samples": 65}, ["num_samples", "64"]),
        ({"timeout": Duration(nanosec=200_000_000)}, ["no image", "in time"]),
        ({"timeout": Duration(sec=-5)}, ["timeout must be in 0..600 s (0: 10 s), not -5 s"]),
        ({"timeout": Duration(sec=601)}, ["timeout must be in 0..600 s (0: 10 s), not 601 s"]),
    ],
    ids=["image", "frame", "samples", "timeout", "negative", "long"],
)
def test_a_request_that_cannot_be_answered_says_why(ask, fields, words):
    b, call = ask
    if "image" in fields:
        image = image_message()
        image.encoding = fields["image"].get("encoding", image.encoding)
        image.header.frame_id = fields["image"].get("frame_id", image.header.frame_id)
        fields = {"image": image}
    response = answer(b, call(**fields))
    assert not response.success
    assert all(word in response.message for word in words), response.message
    assert len(response.message) < 1100
    assert response.masks == LayeredMasks()
    assert answer(b, call(image=image_message())).success  # and the node lives on


def test_an_inactive_node_refuses_and_those_who_wait_are_told(ask):
    b, call = ask
    future = call()
    assert b.wait(lambda: b.camera.segment._for_camera)
    b.node.trigger_deactivate()
    assert "deactivated" in answer(b, future).message
    assert "activate it" in answer(b, call(image=image_message())).message
    b.node.trigger_activate()
    assert answer(b, call(image=image_message())).success


def test_inference_that_fails_is_told_to_the_caller(ask, monkeypatch):
    b, call = ask
    monkeypatch.setattr(Perceiver, "batch", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")))
    response = answer(b, call(image=image_message()))
    assert not response.success
    assert "out of memory" in response.message
    assert b.camera.counters.failed == 1


def test_too_many_requests_are_refused_and_none_is_lost(ask, monkeypatch):
    b, call = ask
    go_on = threading.Event()
    see = Perceiver.batch
    monkeypatch.setattr(Perceiver, "batch", lambda *args, **kwargs: go_on.wait(20) and see(*args, **kwargs))
    futures = []
    for k in range(MOST_REQUESTED + 2):  # one at work, the others wait, and two too many
        futures.append(call(image=image_message(k)))
        assert b.wait(lambda: len(b.camera.segment._open) + sum(f.done() for f in futures) == len(futures))
        if k == 0:
            assert b.wait(lambda: not b.node._worker._mailbox._requested)
    go_on.set()
    assert b.wait(lambda: all(future.done() for future in futures))
    responses = [future.result() for future in futures]
    assert [response.success for response in responses] == [True] * MOST_REQUESTED + [False] * 2
    assert all("call again" in response.message for response in responses[-2:])


def test_each_of_a_burst_is_answered(ask):
    b, _ = ask
    go_on, busy = threading.Event(), threading.Event()

    def hold() -> None:
        timer.cancel()
        busy.set()
        go_on.wait(20)

    timer = b.node.create_timer(0.01, hold)
    assert b.wait(busy.is_set)  # so that none is read before all are there
    client = b.peer.create_client(SegmentImage, "seqamodal/segment", qos_profile=QoSProfile(depth=BURST))
    assert client.wait_for_service(60)
    futures = [client.call_async(SegmentImage.Request(image=image_message(k))) for k in range(BURST - 10)]
    time.sleep(0.5)  # they are on their way
    go_on.set()
    assert b.wait(lambda: all(future.done() for future in futures))
    assert sum(future.result().success for future in futures) == MOST_REQUESTED


def test_of_those_who_wait_for_the_cameras_next_image_too_many_are_refused_at_once(ask):
    b, call = ask
    futures = [call(timeout=Duration(sec=600)) for _ in range(MOST_REQUESTED)]
    assert b.wait(lambda: len(b.camera.segment._for_camera) == MOST_REQUESTED)
    refused = answer(b, call(timeout=Duration(sec=600)))
    assert not refused.success and "too many requests wait already" in refused.message
    b.connected()
    b.peer.send(stamp=NOW)
    assert all(answer(b, future).success for future in futures)


def waits_for_nonsense(ask):
    """Somebody waits a second for the camera's next image, and that cannot be used."""
    b, call = ask
    b.connected()
    future = call(timeout=Duration(sec=1))
    assert b.wait(lambda: b.camera.segment._for_camera)
    b.peer.send(stamp=NOW, encoding="nonsense")
    return b, call, future


def test_where_the_cameras_images_cannot_be_used_the_caller_is_told_why(ask):
    b, call, future = waits_for_nonsense(ask)
    response = answer(b, future)
    assert not response.success
    assert "no image came in time that can be used" in response.message and "nonsense" in response.message
    future = call(timeout=Duration(sec=1))  # what was wrong before it was asked does not count
    assert "no image stamped after the request came in time" in answer(b, future).message


def test_the_cameras_last_image_alone_tells_why_there_is_no_answer(ask):
    b, _, future = waits_for_nonsense(ask)
    assert b.wait(lambda: b.camera.counters.rejected == 1)
    b.peer.send(stamp=1)  # of before the request
    assert "no image stamped after the request came in time" in answer(b, future).message


def test_nobody_is_inferred_for_who_has_stopped_waiting(ask, monkeypatch):
    b, call = ask
    go_on, seen = threading.Event(), []
    see = Perceiver.batch

    def batch(perceiver, images, num_samples, seed, **kwargs):
        seen.append(seed)
        return go_on.wait(20) and see(perceiver, images, num_samples, seed, **kwargs)

    monkeypatch.setattr(Perceiver, "batch", batch)
    first = call(image=image_message(), seed=1)
    assert b.wait(lambda: seen == [1])
    late = call(image=image_message(), seed=2, timeout=Duration(nanosec=100_000_000))
    assert "longer timeout" in answer(b, late).message
    last = call(image=image_message(), seed=3)
    go_on.set()
    assert answer(b, first).success and answer(b, last).success
    assert seen == [1, 3]


def test_who_waits_at_a_shutdown_is_told(ask):
    b, call = ask
    future = call()
    assert b.wait(lambda: b.camera.segment._for_camera)
    client = b.peer.create_client(ChangeState, "seqamodal/change_state")
    assert client.wait_for_service(60)
    answer(b, client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVE_SHUTDOWN))))
    assert "cleaned up" in answer(b, future).message


def test_reset_cancels_and_clears(ask):
    b, call = ask
    b.connected()
    b.peer.send(encoding="nonsense")
    assert b.wait(lambda: b.camera.counters.rejected == 1)
    waiting = call()
    assert b.wait(lambda: b.camera.segment._for_camera)
    client = b.peer.create_client(Trigger, "seqamodal/reset")
    assert client.wait_for_service(60)
    assert answer(b, client.call_async(Trigger.Request())).success
    assert "reset" in answer(b, waiting).message
    assert (b.camera.counters.received, b.camera.counters.rejected) == (0, 0)
    b.peer.send(2)
    assert b.wait(lambda: b.peer.masks)


def test_a_second_configure_brings_the_services_back(ask):
    b, call = ask
    b.node.trigger_deactivate()
    b.node.trigger_cleanup()
    b.node.trigger_configure()
    b.node.trigger_activate()
    client = b.peer.create_client(SegmentImage, "seqamodal/segment")
    assert client.wait_for_service(60)
    assert answer(b, client.call_async(SegmentImage.Request(image=image_message()))).success


def test_an_image_without_a_stamp_answers_nobody_who_waits_for_the_cameras_next(bench):
    """Also while a simulation's clock stands at zero."""
    b = bench(num_samples=2, use_sim_time=True)
    client = b.peer.create_client(SegmentImage, "seqamodal/segment")
    assert client.wait_for_service(60)
    b.connected()
    future = client.call_async(SegmentImage.Request(seed=3))
    assert b.wait(lambda: b.camera.segment._for_camera)
    message = image_message()
    message.header.stamp.sec = message.header.stamp.nanosec = 0
    b.peer.images.publish(message)
    assert b.wait(lambda: b.peer.masks)
    assert not future.done()
    b.peer.send(stamp=1)
    assert answer(b, future).masks.header.stamp.sec == 1

# SPDX-License-Identifier: Apache-2.0
"""`~/label` and `~/overlay` agree with the masks, and are made only while someone listens; compressed images come in too."""

import threading
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from harness import Bench, Peer, image_message
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image

from seqamodal_msgs.msg import LayeredMasks
from seqamodal_ros.messages import image_array, message_to_scene
from seqamodal_ros.ros.diagnostics import Pace
from seqamodal_ros.scene import pictures
from seqamodal_ros.scene.scene import LayeredScene


@pytest.fixture(autouse=True)
def every_warning(monkeypatch):
    """Log lines are throttled by their place in the code, across all nodes of a process."""
    monkeypatch.setattr("seqamodal_ros.ros.camera.WARN_EVERY", 0.0)


def listen(b: Bench, name: str) -> list[Image]:
    heard: list[Image] = []
    b.peer.create_subscription(Image, f"seqamodal/{name}", heard.append, 5)
    publisher = getattr(b.camera.outputs, f"_{name}")
    assert b.wait(lambda: publisher.get_subscription_count() > 0)
    return heard


def answered(b: Bench, name: str) -> tuple[Image, Image, LayeredScene]:
    """An image that was sent, the one picture of it on a topic, and the scene that was seen in it."""
    heard = listen(b, name)
    b.connected()
    sent = b.peer.send()
    assert b.wait(lambda: heard and b.peer.masks)
    (picture,) = heard
    assert picture.header == sent.header
    return sent, picture, message_to_scene(b.peer.masks[0])


def test_the_label_shows_the_visible_object_at_each_source_pixel(bench):
    _, label, scene = answered(bench(), "label")
    assert (label.encoding, label.height, label.width) == ("mono16", 48, 64)
    np.testing.assert_array_equal(image_array(label), scene.label())
    assert set(np.unique(image_array(label))) <= {0, *(obj.id for obj in scene.objects)}
    assert image_array(label).any()


def test_the_overlay_is_drawn_on_the_image_that_it_answers(bench):
    sent, picture, scene = answered(bench(), "overlay")
    assert picture.encoding == "rgb8"
    np.testing.assert_array_equal(image_array(picture), pictures.overlay(image_array(sent), scene))


def test_pictures_that_nobody_listens_to_are_not_made(bench, monkeypatch):
    made: list[str] = []
    b = bench()
    label = LayeredScene.label
    monkeypatch.setattr("seqamodal_ros.ros.worker.overlay", lambda image, _: made.append("overlay") or image)
    monkeypatch.setattr(LayeredScene, "label", lambda scene: made.append("label") or label(scene))
    b.connected()
    b.peer.send(1)
    assert b.wait(lambda: len(b.peer.masks) == 1)
    assert made == []
    listen(b, "overlay")
    b.peer.send(2)
    assert b.wait(lambda: len(b.peer.masks) == 2 and made == ["overlay"])
    listen(b, "label")
    b.peer.send(3)
    assert b.wait(lambda: len(b.peer.masks) == 3 and made == ["overlay", "label", "overlay"])


def test_masks_do_not_wait_for_an_overlay(bench, monkeypatch):
    """Of a 4K image drawing one takes half a second."""
    masks_came = threading.Event()
    monkeypatch.setattr("seqamodal_ros.ros.worker.HAND_OVER", 0.0)
    monkeypatch.setattr("seqamodal_ros.ros.worker.overlay", lambda image, _: masks_came.wait(20) and image)
    b = bench()
    heard = listen(b, "overlay")
    b.connected()
    b.peer.send()
    assert b.wait(lambda: b.peer.masks) and not heard
    masks_came.set()
    assert b.wait(lambda: heard)
    assert b.camera.counters.answered == 1


def test_an_overlay_that_cannot_be_drawn_is_told_and_its_masks_are_sent(bench, monkeypatch):
    def draw(image, scene):
        raise MemoryError("of a huge image")

    monkeypatch.setattr("seqamodal_ros.ros.worker.overlay", draw)
    b = bench()
    listen(b, "overlay")
    b.connected()
    b.peer.send()
    assert b.says("no overlay: of a huge image")
    assert b.wait(lambda: b.peer.masks)
    assert (b.camera.counters.answered, b.camera.counters.failed) == (1, 0) and b.node._worker.alive


def compressed(data: bytes, kind: str = "rgb8; jpeg compressed bgr8") -> CompressedImage:
    message = CompressedImage(header=image_message().header, format=kind)
    message.data = data
    return message


def encode(suffix: str, side: int = 64) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_images_are_answered(bench, suffix):
    b = bench(image_transport="compressed")
    publisher = b.peer.create_publisher(CompressedImage, "image/compressed", 1)
    assert b.wait(lambda: publisher.get_subscription_count() > 0)
    sent = compressed(encode(suffix), suffix[1:])
    publisher.publish(sent)
    assert b.wait(lambda: b.peer.masks)
    masks = b.peer.masks[0]
    assert (masks.header, masks.source_width, masks.source_height) == (sent.header, 64, 64)


@pytest.mark.parametrize(
    "message,words",
    [
        (compressed(b""), "empty"),
        (compressed(encode(".jpg")[:600]), "truncated"),
        (compressed(encode(".png")[:600]), "truncated"),
        (compressed(b"no image at all"), "neither JPEG nor PNG"),
        (compressed(encode(".png"), "16UC1; compressedDepth png"), "no colour"),
    ],
    ids=["empty", "truncated", "png", "nonsense", "depth"],
)
def test_a_bad_compressed_image_is_counted_and_the_node_lives_on(bench, message, words):
    b = bench(image_transport="compressed")
    publisher = b.peer.create_publisher(CompressedImage, "image/compressed", 1)
    assert b.wait(lambda: publisher.get_subscription_count() > 0)
    publisher.publish(message)
    assert b.wait(lambda: b.camera.counters.rejected == 1)
    assert b.says(words)
    publisher.publish(compressed(encode(".jpg")))
    assert b.wait(lambda: b.peer.masks)
    assert b.camera.counters.failed == 0


def test_a_region_that_leaves_a_compressed_image_is_told(bench):
    b = bench(image_transport="compressed", region=[0, 0, 65, 64])
    publisher = b.peer.create_publisher(CompressedImage, "image/compressed", 1)
    assert b.wait(lambda: publisher.get_subscription_count() > 0)
    publisher.publish(compressed(encode(".jpg")))
    assert b.wait(lambda: b.camera.counters.rejected == 1)
    assert b.says("set the parameter 'region'")


def test_a_remapped_image_topic_takes_its_compressed_one_along(eager_model):
    b = Bench(cli_args=["--ros-args", "-r", "image:=/camera/image_raw"], model=str(eager_model), image_transport="compressed")
    try:
        assert b.camera.images.topic_name == "/camera/image_raw/compressed"
    finally:
        b.close()


def test_outputs_come_back_after_a_cleanup(bench):
    b = bench()
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        assert getattr(b.node, f"trigger_{transition}")() == TransitionCallbackReturn.SUCCESS
    labels = listen(b, "label")
    b.connected()
    b.peer.send()
    assert b.wait(lambda: labels)


def test_a_second_node_of_the_same_name_is_told(bench, monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.perception_node.DOUBLE_AFTER", 3)
    b = bench()
    double = Peer(b.context, name="seqamodal")
    try:
        assert b.says("another node is named /seqamodal")
    finally:
        double.destroy_node()


def test_a_listener_with_an_incompatible_quality_of_service_is_told(bench):
    b = bench()
    lasting = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    b.peer.create_subscription(LayeredMasks, "seqamodal/layered_masks", b.peer.masks.append, lasting)
    assert b.says("incompatible", "DURABILITY")


def test_half_of_the_answers_take_longer_than_p50_and_a_twentieth_longer_than_p95():
    pace, now = Pace(), time.monotonic()
    pace._answers.extend((now, milliseconds / 1000, milliseconds / 10_000) for milliseconds in range(101))
    found = pace.described()
    assert (found["latency_p50_ms"], found["latency_p95_ms"], found["beside_inference_p95_ms"]) == ("50", "95", "9.5")


def test_a_rate_falls_where_answers_stop():
    pace, now = Pace(), time.monotonic()
    pace._answers.extend((now - age, 0.1, 0.01) for age in (5.05, 5.0))
    assert pace.described()["rate_hz"] == "0.2"

# SPDX-License-Identifier: Apache-2.0
"""A still scene stays still, and one that moves does not."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from seqamodal_ros.messages import fill_image, message_to_scene
from seqamodal_ros.ros.stillness import Stillness
from seqamodal_ros.ros.worker import Frame
from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.scene import LayeredScene

SIGMA = 4.0  # grey levels of noise, a webcam's in a dim room


def picture(shift: int = 0) -> np.ndarray:
    """A bright box on a dark table, 640x480."""
    image = np.full((480, 640, 3), 60, np.uint8)
    image[200:280, 300 + shift : 380 + shift] = 180
    return image


def noisy(image: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, SIGMA, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def frame(image: np.ndarray, **changes) -> Frame:
    return replace(Frame(None, image, 3, 0, stillness=2.0), **changes)


def scene(seconds: float = 0.5) -> LayeredScene:
    masks = np.zeros((1, 64, 64), bool)
    geometry = Geometry.letterbox(640, 480)
    return LayeredScene.assemble(masks, masks.astype(np.float32), masks[:, None], geometry, seconds=seconds)


@pytest.mark.parametrize("step", [1, 2, 4, 8], ids=lambda step: f"{640 // step}x{480 // step}")
def test_noise_is_no_change(step):
    stillness = Stillness()
    still = np.ascontiguousarray(picture()[::step, ::step])
    assert stillness.recall(frame(still)) is None
    stillness.keep(frame(noisy(still, 0)), scene())
    for seed in range(1, 20):
        recalled = stillness.recall(frame(noisy(still, seed)))
        assert recalled is not None
        assert recalled.seconds == 0


@pytest.mark.parametrize(("quality", "stillness"), [(95, 2.0), (80, 3.0)])
def test_noise_is_no_change_through_jpeg_either(quality, stillness):
    """2.0 is the default; docs/node.md says what to set for the second."""

    def sent(seed: int) -> Frame:
        data = cv2.imencode(".jpg", noisy(cluttered, seed), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return frame(cv2.imdecode(data, cv2.IMREAD_COLOR), stillness=stillness)

    cluttered = cv2.resize(np.random.default_rng(7).integers(0, 256, (24, 32, 3), np.uint8), (640, 480))
    memory = Stillness()
    memory.keep(sent(0), scene())
    assert all(memory.recall(sent(seed)) is not None for seed in range(1, 20))


@pytest.mark.parametrize("sides", [(40, 40), (64, 64), (200, 200), (20, 300), (300, 31)], ids=str)
def test_noise_is_no_change_in_a_small_or_thin_region_either(sides):
    stillness = Stillness()
    stillness.keep(frame(noisy(picture(), 0), region=(280, 180, *sides)), scene())
    for seed in range(1, 20):
        assert stillness.recall(frame(noisy(picture(), seed), region=(280, 180, *sides))) is not None


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("shift", [1, -1, 3, 25])
def test_a_thing_that_moves_by_a_pixel_is_one(shift, step):
    stillness = Stillness()
    stillness.keep(frame(noisy(picture()[::step, ::step], 0)), scene())
    assert stillness.recall(frame(noisy(picture(step * shift)[::step, ::step], 1))) is None


def test_in_a_small_region_a_small_thing_counts():
    def small(at: int) -> Frame:
        image = np.full((2160, 3840, 3), 60, np.uint8)
        image[1000 + at : 1006 + at, 1010:1016] = 90
        return frame(image, region=(1000, 980, 64, 64))

    stillness = Stillness()
    stillness.keep(small(0), scene())
    assert stillness.recall(small(0)) is not None
    assert stillness.recall(small(3)) is None


def test_slow_changes_add_up():
    stillness = Stillness()
    stillness.keep(frame(picture()), scene())
    still = [stillness.recall(frame(picture() + np.uint8(step))) is not None for step in range(5)]
    assert still == [True, True, True, False, False]


@pytest.mark.parametrize(
    "changes", [{"num_samples": 4}, {"seed": 1}, {"region": (0, 0, 9, 9)}, {"camera": "other"}, {"stillness": 0.0}], ids=str
)
def test_what_was_seen_otherwise_is_seen_anew(changes):
    stillness = Stillness()
    stillness.keep(frame(picture()), scene())
    assert stillness.recall(frame(picture())) is not None
    assert stillness.recall(frame(picture(), **changes)) is None


def test_the_node_answers_each_image_of_a_still_scene_alike_and_says_that_it_took_no_time(bench):
    b = bench()
    b.connected()
    for stamp in range(1, 5):
        message = fill_image(Image(), noisy(picture(), stamp), "rgb8", Image().header)
        message.header.stamp.sec, message.header.frame_id = stamp, "camera"
        b.peer.images.publish(message)
        assert b.wait(lambda stamp=stamp: len(b.peer.masks) == stamp)
    first, *others = map(message_to_scene, b.peer.masks)
    assert first.seconds > 0
    for each in others:
        assert each.seconds == 0
        np.testing.assert_array_equal(each.amodal, first.amodal)
        np.testing.assert_array_equal(each.probability, first.probability)
    assert [masks.header.stamp.sec for masks in b.peer.masks] == [1, 2, 3, 4]


def test_reset_forgets_what_was_seen(bench):
    b = bench()
    b.connected()
    still = fill_image(Image(), picture(), "rgb8", Image().header)
    still.header.frame_id = "camera"
    for stamp in (1, 2):
        still.header.stamp.sec = stamp
        b.peer.images.publish(still)
        assert b.wait(lambda stamp=stamp: len(b.peer.masks) == stamp)
    client = b.peer.create_client(Trigger, "seqamodal/reset")
    assert b.wait(client.service_is_ready)
    assert b.wait(client.call_async(Trigger.Request()).done)
    still.header.stamp.sec = 3
    b.peer.images.publish(still)
    assert b.wait(lambda: len(b.peer.masks) == 3)
    assert [message_to_scene(masks).seconds > 0 for masks in b.peer.masks] == [True, False, True]

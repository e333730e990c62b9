# SPDX-License-Identifier: Apache-2.0
"""Image messages to arrays and back, and scenes to LayeredMasks and back; with plain objects, so no ROS is needed."""

import array
import math
import struct
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqamodal_ros.messages import (
    ENCODINGS,
    InvalidMessage,
    MessageTypes,
    check_header,
    compressed_rgb,
    fill_image,
    image_array,
    image_rgb,
    message_to_scene,
    scene_to_message,
)
from seqamodal_ros.scene.captions import scene_facts
from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.image_files import decode_image
from seqamodal_ros.scene.scene import LayeredScene

HEADER = SimpleNamespace(frame_id="camera", stamp=SimpleNamespace(sec=3, nanosec=5))
TYPES = MessageTypes(*[SimpleNamespace] * 6)


def image(pixels: np.ndarray, kind: str, **changes) -> SimpleNamespace:
    message = fill_image(SimpleNamespace(), pixels, kind, HEADER)
    message.__dict__.update(changes)
    return message


@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 5),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_layout_of_rows_and_bytes_is_read_alike(encoding, width, height, padding, swap, seed):
    dtype, channels = ENCODINGS[encoding]
    if "bayer" in encoding or channels == 2:  # whose colours come from several pixels
        width, height = 2 * width + 2, height + 2
    shape = (height, width) if channels == 1 else (height, width, channels)
    pixels = np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)
    stored = pixels.byteswap() if swap else pixels
    rows = stored.reshape(height, -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)))
    message = image(pixels, encoding, data=padded.tobytes(), step=padded.shape[1])
    message.is_bigendian = int((sys.byteorder == "big") != (swap and np.dtype(dtype).itemsize > 1))
    read = image_array(message)
    assert read.dtype == dtype
    if swap and np.dtype(dtype).itemsize == 1:
        pixels = stored  # a byte has no order
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize(
    "encoding,order", [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2, 3]), ("bgra8", [2, 1, 0, 3])]
)
def test_colours_come_out_as_rgb(encoding, order):
    colour = np.array([10, 20, 30, 40])
    pixels = np.tile(colour[order], (2, 3, 1)).astype(np.uint8)
    np.testing.assert_array_equal(image_rgb(image(pixels, encoding)), np.tile(colour[:3], (2, 3, 1)))


@pytest.mark.parametrize(
    "padding,rest,shared", [(0, 0, True), (3, 0, False), (0, 4096, False)], ids=["whole", "padded", "longer"]
)
def test_an_rgb_image_is_the_messages_own_data_but_never_more_than_its_pixels(padding, rest, shared):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    rows = np.pad(pixels.reshape(2, 9), ((0, 0), (0, padding)))
    message = image(pixels, "rgb8", data=array.array("B", rows.tobytes() + bytes(rest)), step=9 + padding)
    rgb = image_rgb(message)
    np.testing.assert_array_equal(rgb, pixels)
    assert np.shares_memory(rgb, np.frombuffer(message.data, np.uint8)) is shared
    assert not rgb.flags.writeable


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_pattern_tells_colours(pattern):
    colour, pixels = (200, 120, 30), np.zeros((6, 8), np.uint8)
    for place, name in enumerate(pattern):
        pixels[place // 2 :: 2, place % 2 :: 2] = colour["rgb".index(name)]
    rgb = image_rgb(image(pixels, f"bayer_{pattern}8"))
    assert rgb.shape == (6, 8, 3) and (rgb == colour).all()


@pytest.mark.parametrize("encoding,first", [("yuv422", "u"), ("uyvy", "u"), ("yuv422_yuy2", "y"), ("yuyv", "y")])
def test_two_pixels_share_a_colour(encoding, first):
    y, u, v = 81, 90, 240  # red, by BT.601
    pair = [[u, y], [v, y]] if first == "u" else [[y, u], [y, v]]
    rgb = image_rgb(image(np.tile(np.array(pair, np.uint8), (4, 3, 1)), encoding))
    assert rgb.shape == (4, 6, 3) and np.abs(rgb.astype(int) - (255, 0, 0)).max() <= 2


def test_grey_becomes_three_equal_channels():
    rgb = image_rgb(image(np.full((2, 3), 7, np.uint8), "mono8"))
    assert rgb.shape == (2, 3, 3) and (rgb == 7).all()


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"width": 0}, "0x2"),
        ({"height": 0}, "3x0"),
        ({"width": 10**9}, "1..16384"),
        ({"step": 2}, "step"),
        ({"data": b"\0" * 5}, "5 bytes"),
        ({"encoding": "rgb16"}, "rgb16"),
        ({"encoding": "yuv422"}, "the width must be even, not 3"),
        ({"encoding": "bayer_rggb8"}, "3x2 pixels tells no colours"),
        ({"encoding": ""}, "encoding"),
        ({"encoding": "32FC1"}, "32FC1"),
    ],
)
def test_a_bad_image_says_what_is_wrong(changes, words):
    with pytest.raises(InvalidMessage, match=words):
        image_rgb(image(np.zeros((2, 3, 3), np.uint8), "rgb8", **changes))


class Bridge:
    """Stands in for cv_bridge, which has no wheel: it trusts `step`, as the real one does."""

    def imgmsg_to_cv2(self, message, encoding):
        assert encoding == "rgb8"
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step // 2, 2)
        return np.repeat(pixels[..., :1], 3, axis=2)


@pytest.mark.parametrize("step,ok", [(6, True), (4, False)])
def test_other_encodings_go_through_cv_bridge_and_are_checked_after_it(monkeypatch, step, ok):
    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=Bridge))
    message = image(np.zeros((2, 3), np.uint8), "mono8", encoding="8UC2", step=step, data=b"\7" * (2 * step))
    if ok:
        assert image_rgb(message).shape == (2, 3, 3)
    else:
        with pytest.raises(InvalidMessage, match="step 4"):
            image_rgb(message)


def test_what_cv_bridge_raises_is_an_invalid_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=Bridge))
    with pytest.raises(InvalidMessage, match="cannot convert"):
        image_rgb(image(np.zeros((2, 3), np.uint8), "mono8", encoding="8UC2", data=b"\7"))


@pytest.mark.parametrize(("layers", "status", "words"), [(0, 2, "cannot tell: 97% of the image is white"), (1, 0, "")])
def test_where_nothing_is_seen_of_an_image_in_doubt_that_is_no_empty_place(make_scene, rectangles, layers, status, words):
    """What is seen on a bright table is seen, though."""
    scene = make_scene(rectangles((4, 4, 12, 12))[:layers], doubt="97% of the image is white")
    message = scene_to_message(scene, HEADER, "m", TYPES)
    assert (message.status, message.status_message) == (status, words)
    assert message_to_scene(message).doubt == ("" if layers else scene.doubt)


def test_a_message_that_nobody_can_tell_and_not_why_is_none_of_an_empty_place(make_scene):
    message = scene_to_message(make_scene(np.zeros((0, 32, 32)), doubt="too dark"), HEADER, "m", TYPES)
    message.status_message = ""
    assert message_to_scene(message).doubt == "no reason given"


@pytest.mark.parametrize("score,status", [(0.9, 0), (0.4, 2)])
def test_a_doubtful_front_layer_is_of_low_confidence(score, status):
    amodal = np.ones((1, 16, 16), bool)
    seen = LayeredScene.assemble(amodal, amodal * np.float32(score), amodal[:, None], Geometry.letterbox(64, 64))
    message = scene_to_message(seen, HEADER, "m", TYPES)
    assert message.status == status
    assert bool(message.status_message) == bool(status)


@pytest.mark.parametrize(
    "damage",
    [
        *("probability size", "probability encoding", "mask size", "hypotheses", "scale_y", "unfilled"),
        *("no number", "endless", "elsewhere", "too large"),
    ],
)
def test_a_message_that_is_not_what_it_says_is_refused(damage):
    message = scene_to_message(scene(), HEADER, "m", TYPES)
    if damage == "probability size":
        message.layers[0].probability = image(np.zeros((8, 8), np.float32), "32FC1")
    elif damage == "probability encoding":
        message.layers[0].probability = image(np.zeros((16, 16), np.uint8), "mono8")
    elif damage == "mask size":
        message.objects[1].visible = image(np.zeros((8, 16), np.uint8), "mono8")
    elif damage == "scale_y":  # masks are square, and so is what they cover
        message.scale_y *= 2
    elif damage == "no number":
        message.offset_x = math.nan
    elif damage == "endless":
        message.offset_y = -math.inf
    elif damage == "elsewhere":
        message.offset_x = 1e6
    elif damage == "too large":
        message.source_width = 2**32 - 1
    elif damage == "unfilled":  # as of a service's answer that says no
        message.mask_height = message.mask_width = 0
        message.layers = message.objects = []
    else:
        message.layers[1].hypotheses = message.layers[1].hypotheses[:1]
    words = {"no number": "nowhere", "endless": "nowhere", "elsewhere": "nowhere", "too large": "sides must be in"}
    with pytest.raises(InvalidMessage, match=words.get(damage)):
        message_to_scene(message)


@pytest.mark.parametrize("frame_id,sec,nanosec", [("", 1, 1), ("c" * 256, 1, 1), ("camera", -1, 0), ("camera", 1, 10**9)])
def test_a_bad_header_is_refused(frame_id, sec, nanosec):
    check_header(HEADER)
    with pytest.raises(InvalidMessage):
        check_header(SimpleNamespace(frame_id=frame_id, stamp=SimpleNamespace(sec=sec, nanosec=nanosec)))


def scene() -> LayeredScene:
    amodal = np.zeros((2, 16, 16), bool)
    amodal[0, 3:9, 3:9] = amodal[1, 6:13, 6:16] = True
    hypotheses = np.stack([amodal, np.roll(amodal, 1, axis=2), np.zeros_like(amodal)], axis=1)
    probability = np.where(amodal, 0.9, 0.1).astype(np.float32)
    return LayeredScene.assemble(amodal, probability, hypotheses, Geometry.letterbox(640, 480), seed=2**60, seconds=1.25)


def test_a_scene_survives_the_message():
    sent = scene()
    message = scene_to_message(sent, HEADER, "name@sha256:00", TYPES)
    read = message_to_scene(message)
    for name in ("amodal", "probability", "hypotheses", "visible", "agreement"):
        np.testing.assert_array_equal(getattr(read, name), getattr(sent, name))
    assert read.geometry == sent.geometry
    assert read.pick_order == sent.pick_order
    assert (read.seed, read.seconds, read.truncated, read.num_samples) == (2**60, 1.25, False, 3)
    assert [(o.id, o.layer, o.occluded_by, o.touches_border) for o in read.objects] == [(1, 1, (), False), (2, 2, (1,), True)]


def test_the_affine_in_the_message_is_the_documented_one():
    message = scene_to_message(scene(), HEADER, "m", TYPES)
    assert (message.scale_x, message.scale_y, message.offset_x, message.offset_y) == (40, 40, 0, -80)


def test_the_region_of_an_object_is_in_source_pixels_and_clipped():
    message = scene_to_message(scene(), HEADER, "m", TYPES)
    first, second = message.objects
    assert (first.roi.x_offset, first.roi.y_offset, first.roi.width, first.roi.height) == (120, 40, 240, 240)
    assert not first.touches_border
    assert second.roi.x_offset + second.roi.width == 640
    assert second.touches_border


def test_an_object_cut_by_a_crop_touches_the_border():
    amodal = np.zeros((1, 16, 16), bool)
    amodal[0, 4:8, :5] = True
    probability = amodal.astype(np.float32)
    for geometry in (Geometry.centre_crop(640, 480), Geometry.region(640, 480, 200, 200, 90, 90)):
        cut = LayeredScene.assemble(amodal, probability, amodal[:, None], geometry)
        assert scene_to_message(cut, HEADER, "m", TYPES).objects[0].touches_border
        whole = LayeredScene.assemble(np.roll(amodal, 4, axis=2), probability, amodal[:, None], geometry)
        assert not scene_to_message(whole, HEADER, "m", TYPES).objects[0].touches_border


@pytest.mark.parametrize("region", [(100, 100, 400, 200), (100, 100, 200, 300)], ids=["wide", "tall"])
def test_an_object_cut_by_the_edge_of_a_region_that_is_no_square_touches_the_border(region):
    x, y, width, height = region
    geometry = Geometry.region(640, 480, *region)
    inside = geometry.inside(64)
    rows, columns = np.nonzero(inside.any(axis=1))[0], np.nonzero(inside.any(axis=0))[0]
    across = np.zeros((1, 64, 64), bool)
    across[0, rows[0] : rows[-1] + 1, columns[8] : columns[12]] = True
    within = np.zeros((1, 64, 64), bool)
    within[0, rows[4] : rows[-4], columns[8] : columns[12]] = True
    for amodal, touches in ((across, True), (within, False)):
        scene = LayeredScene.assemble(amodal, amodal.astype(np.float32), amodal[:, None], geometry)
        assert scene_to_message(scene, HEADER, "m", TYPES).objects[0].touches_border is touches


def test_hypotheses_can_be_left_out_and_an_empty_scene_is_valid():
    message = scene_to_message(scene(), HEADER, "m", TYPES, hypotheses=False)
    read = message_to_scene(message)
    assert read.hypotheses.shape == (2, 0, 16, 16)
    assert read.num_samples == scene().num_samples > 0  # that were drawn
    np.testing.assert_array_equal(read.agreement, scene().agreement)
    assert f"K = {read.num_samples}" in scene_facts(read)
    empty = LayeredScene.assemble(
        np.zeros((0, 16, 16), bool), np.zeros((0, 16, 16), np.float32), np.zeros((0, 3, 16, 16), bool), Geometry.letterbox(4, 3)
    )
    message = scene_to_message(empty, HEADER, "m", TYPES)
    assert (message.status, message.layers, message.objects) == (1, [], [])
    assert message_to_scene(message).hypotheses.shape == (0, 3, 16, 16)


def test_without_our_messages_the_error_says_how_to_build_them(monkeypatch):
    for name in ("seqamodal_msgs", "seqamodal_msgs.msg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="colcon build"):
        MessageTypes.ros()


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG image with an EXIF segment that says how it is to be turned."""
    exif = b"Exif\0\0" + struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_compressed_image_is_not_turned_as_camera_info_and_depth_are_not(orientation):
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:10, :20] = 255
    jpeg = with_orientation(cv2.imencode(".jpg", pixels)[1].tobytes(), orientation)
    assert (compressed_rgb(SimpleNamespace(data=jpeg, format="jpeg")) > 127).sum() == (pixels > 0).sum()
    np.testing.assert_array_equal(compressed_rgb(SimpleNamespace(data=jpeg, format="jpeg")) > 127, pixels > 127)
    turned = decode_image(jpeg)  # for people
    assert turned.shape == ((48, 64, 3) if orientation == 3 else (64, 48, 3)) and not (turned[:10, :20] > 127).all()

# SPDX-License-Identifier: Apache-2.0
"""Whatever comes in, the node lives on, counts what it cannot use, and answers the good frame that follows."""

import itertools
import math
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from harness import Bench, image_message
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from seqamodal_ros.clouds import POINT, depth_metres, pinhole, scene_cloud
from seqamodal_ros.messages import LARGEST_SIDE, InvalidMessage, byte_array, check_header, compressed_rgb, image_array, image_rgb

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "yuyv": 2, "bayer_grbg8": 1}
DEPTH_BYTES = {"32FC1": 4, "16UC1": 2}
OTHERS = ["", "RGB8", "Mono8", "rgb8 ", "rgb16", "mono16", "nv21", "bayer_rggb16", "8UC3", "16uc1", "64FC1", "\0", "é"]
SIDES = [0, 1, 2, 7, 64, LARGEST_SIDE, LARGEST_SIDE + 1, 2**31 - 1, 2**31, 2**32 - 1]
MOST_DATA = 1 << 20  # bytes; a message that states more gets fewer
OVER_DDS = 30  # examples, each of some messages and an answer
QUICK = {"num_samples": 1, "max_layers": 1, "sampling_steps": 1}
FRAME = "camera_optical_frame"
TINY = 5e-324  # the smallest number above zero


def mostly(usual: Any, odd: st.SearchStrategy) -> st.SearchStrategy:
    """The usual value three times of four: where all fields are odd at once, the first check hides the others."""
    return st.integers(0, 3).flatmap(lambda chance: odd if chance == 0 else st.just(usual))


HEADERS = st.fixed_dictionaries(
    {
        "frame_id": mostly(FRAME, st.sampled_from(["", " ", "\0", "é", "x" * 5000])),
        "sec": mostly(7, st.sampled_from([0, -1, -(2**31), 2**31 - 1])),
        "nanosec": mostly(5, st.sampled_from([0, 999_999_999, 1_000_000_000, 2**32 - 1])),
    }
)


@st.composite
def layouts(draw: st.DrawFn, sizes: dict[str, int], encodings: list[str], others: list[str], side: tuple[int, int]) -> dict:
    """Fields of an image message: sizes, rows and bytes that fit one another, or not."""
    encoding = draw(mostly(encodings[0], st.sampled_from(encodings + others)))
    width, height = (draw(mostly(usual, st.sampled_from(SIDES))) for usual in side)
    row = width * sizes.get(encoding, 3)
    step = draw(mostly(row, st.sampled_from([0, 1, row - 1, row + 1, row + 13, 2**32 - 1]))) % 2**32
    whole = step * max(0, height - 1) + row
    length = draw(mostly(whole, st.sampled_from([0, 1, whole - 1, whole + 1, whole + 1000])))
    return {
        "encoding": encoding,
        "width": width,
        "height": height,
        "step": step,
        "is_bigendian": draw(mostly(0, st.integers(0, 255))),
        "data": bytes(draw(st.integers(0, 255)) for _ in range(3)) * (min(max(0, length), MOST_DATA) // 3 + 1),
        "length": min(max(0, length), MOST_DATA),
    }


COLOUR = layouts(CHANNELS, list(CHANNELS), [*DEPTH_BYTES, *OTHERS], (64, 48))
DEPTH = layouts(DEPTH_BYTES, list(DEPTH_BYTES), [*CHANNELS, *OTHERS], (64, 48))


def filled(message: Any, fields: dict) -> Any:
    """The fields of a layout, in a message of ROS or one like it."""
    for name, value in fields.items():
        if name not in ("data", "length"):
            setattr(message, name, value)
    message.data = byte_array(np.frombuffer(fields["data"], np.uint8)[: fields["length"]])
    return message


def stamped(message: Any, header: dict) -> Any:
    message.header.frame_id = header["frame_id"].rstrip("\0")  # a string ends there in C
    message.header.stamp.sec, message.header.stamp.nanosec = header["sec"], header["nanosec"]
    return message


def whole(message: Any, sizes: dict[str, int]) -> bool:
    """Whether an image message holds the pixels that it states."""
    if message.encoding not in sizes or not all(1 <= side <= LARGEST_SIDE for side in (message.width, message.height)):
        return False
    if message.encoding == "yuyv" and message.width % 2 or "bayer" in message.encoding and min(message.width, message.height) < 3:
        return False
    row = message.width * sizes[message.encoding]
    return message.step >= row and len(message.data) >= message.step * (message.height - 1) + row


def timed(header: Any) -> bool:
    return 0 < len(header.frame_id) <= 255 and header.stamp.sec >= 0 and header.stamp.nanosec < 1_000_000_000


def total(b: Bench) -> int:
    c = b.camera.counters
    return c.answered + c.unwanted + c.superseded + c.too_old + c.rejected + c.failed


class Sender:
    """Sends one message after another, each once the one before has come; stamps of good frames are its own."""

    def __init__(self, b: Bench, publisher: Any, good: Any):
        self.b, self.publisher, self._good = b, publisher, good
        self._stamps = itertools.count(1_000_000, 1000)
        assert b.wait(lambda: publisher.get_subscription_count() > 0)
        assert b.wait(lambda: b.peer.count_publishers("seqamodal/layered_masks") > 0)

    def send(self, message: Any) -> None:
        before = self.b.camera.counters.received
        self.publisher.publish(message)
        assert self.b.wait(lambda: self.b.camera.counters.received > before), "the node does not take it"

    def settle(self) -> None:
        """Waits until each message has its outcome."""
        assert self.b.wait(lambda: self.b.camera.counters.received == total(self.b))

    def answered(self) -> int:
        """Sends a good frame and waits for its masks; returns its stamp."""
        stamp = next(self._stamps)
        self._good.header.stamp.sec = stamp
        self.send(self._good)
        masks = self.b.peer.masks
        assert self.b.wait(lambda: bool(masks) and masks[-1].header.stamp.sec == stamp), "a good frame is not answered"
        assert self.b.camera.counters.received == total(self.b)
        assert self.b.camera.counters.failed == 0
        return stamp


def reliable(topic: str) -> dict:
    """So that each message comes, and can be told from one that was lost."""
    return {f"qos_overrides.{topic}.subscription.reliability": "reliable"}


@pytest.fixture(autouse=True)
def every_warning(monkeypatch):
    """Log lines are throttled by their place in the code, across all nodes of a process; here the words are not looked at."""
    monkeypatch.setattr("seqamodal_ros.ros.camera.WARN_EVERY", 60.0)


@pytest.fixture
def images(bench) -> Sender:
    b = bench(**QUICK, **reliable("/image"))
    return Sender(b, b.peer.images, image_message())


@given(st.lists(st.tuples(COLOUR, HEADERS), min_size=1, max_size=6))
@settings(max_examples=OVER_DDS)
def test_images(images, batch):
    before = images.b.camera.counters.rejected
    messages = [stamped(filled(Image(), fields), header) for fields, header in batch]
    for message in messages:
        images.send(message)
    images.answered()
    least = sum(not timed(m.header) or (m.encoding in CHANNELS and not whole(m, CHANNELS)) for m in messages)
    unknown = sum(timed(m.header) and m.encoding not in CHANNELS for m in messages)
    rejected = images.b.camera.counters.rejected - before
    if find_spec("cv_bridge") is None:
        assert rejected == least + unknown
    else:  # it knows more encodings
        assert least <= rejected <= least + unknown


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 9300))
@settings(max_examples=OVER_DDS)
def test_bytes_that_are_no_message(images, changes, cut):
    """What another implementation, or someone of ill will, may put on the wire."""
    data = bytearray(serialize_message(image_message()))
    for at, value in changes:
        data[at] = value
    images.publisher.publish(bytes(data))
    images.publisher.publish(bytes(data[: 4 + cut]))
    images.answered()


def encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))[1].tobytes()


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, bool | None]:
    """The bytes of an image file, and whether they are good; None where nobody can tell."""
    data = bytearray(encoded(draw(st.sampled_from([".jpg", ".png"]))))
    kind = draw(st.sampled_from(["good", "empty", "nonsense", "cut", "changed", "tail"]))
    if kind in ("empty", "nonsense"):
        return b"" if kind == "empty" else b"no image" + draw(st.binary(max_size=200)), False
    if kind == "cut":
        return bytes(data[: draw(st.integers(1, len(data) - 13))]), False  # 12 bytes end a PNG, and say nothing
    if kind == "tail":
        return bytes(data) + b"\0" * 10, True
    if kind == "changed":
        for _ in range(draw(st.integers(1, 5))):
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data), True if kind == "good" else None


FORMATS = mostly(
    "rgb8; jpeg compressed bgr8", st.sampled_from(["", "png", "JPEG", "nonsense", "16UC1; compressedDepth", "32FC1"])
)


@given(st.lists(st.tuples(files(), FORMATS, HEADERS), min_size=1, max_size=6))
@settings(max_examples=OVER_DDS)
def test_compressed_images(compressed, batch):
    before = compressed.b.camera.counters.rejected
    least = most = 0
    for (data, good), kind, header in batch:
        message = stamped(CompressedImage(format=kind), header)
        message.data = byte_array(np.frombuffer(data, np.uint8))
        compressed.send(message)
        compressed.settle()  # what is wrong inside an image is seen once it is begun
        bad = not timed(message.header) or "compressedDepth" in kind
        least += bad or good is False
        most += bad or not good
    compressed.answered()
    assert least <= compressed.b.camera.counters.rejected - before <= most


@pytest.fixture
def compressed(bench) -> Sender:
    b = bench(**QUICK, **reliable("/image/compressed"), image_transport="compressed")
    good = CompressedImage(header=image_message().header, format="jpeg")
    good.data = byte_array(np.frombuffer(encoded(".jpg"), np.uint8))
    return Sender(b, b.peer.create_publisher(CompressedImage, "image/compressed", 1), good)


NUMBERS = st.sampled_from([0.0, -50.0, 1.0, math.nan, math.inf, -math.inf, TINY, 1e308, -1e308])
PINHOLES = st.fixed_dictionaries(
    {
        "size": mostly((64, 48), st.tuples(st.sampled_from(SIDES), st.sampled_from(SIDES))),
        "k": st.tuples(*(mostly(usual, NUMBERS) for usual in (50.0, 50.0, 31.5, 23.5))),
        "p": mostly((0.0,) * 4, st.tuples(*(mostly(usual, NUMBERS) for usual in (50.0, 50.0, 31.5, 23.5)))),
    }
)


def camera_info(message: Any, fields: dict) -> Any:
    (message.width, message.height), k, p = fields["size"], fields["k"], fields["p"]
    message.k = [k[0], 0.0, k[2], 0.0, k[1], k[3], 0.0, 0.0, 1.0]
    message.p = [p[0], 0.0, p[2], 0.0, 0.0, p[1], p[3], 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def calibrated(fields: dict) -> bool:
    fx, fy, cx, cy = fields["p"] if fields["p"][0] > 0 else fields["k"]
    return fields["size"] == (64, 48) and 0 < fx < math.inf and 0 < fy < math.inf and math.isfinite(cx) and math.isfinite(cy)


def points(cloud: Any) -> np.ndarray:
    return np.frombuffer(bytes(cloud.data), POINT)


@pytest.fixture
def depths(bench) -> tuple[Sender, Any, Any, list[PointCloud2]]:
    b = bench(**QUICK, **reliable("/image"))
    clouds: list[PointCloud2] = []
    publishers = b.peer.create_publisher(Image, "depth", 1), b.peer.create_publisher(CameraInfo, "camera_info", 1)
    b.peer.create_subscription(PointCloud2, "seqamodal/points", clouds.append, 5)
    assert b.wait(lambda: b.camera.points.wanted and all(each.get_subscription_count() for each in publishers))
    return Sender(b, b.peer.images, image_message()), *publishers, clouds


SKEWS = mostly(0.0, st.sampled_from([0.04, -0.04, 0.06, 3.0, -1e6]))
VALUES = st.sampled_from([0.0, 1.2, -1.0, math.nan, math.inf, -math.inf, TINY, 3e38])
GOOD_INFO = {"size": (64, 48), "k": (50.0, 50.0, 31.5, 23.5), "p": (0.0,) * 4}


@given(DEPTH, mostly(FRAME, st.sampled_from(["", "elsewhere"])), SKEWS, PINHOLES, st.lists(VALUES, min_size=1, max_size=4))
@settings(max_examples=OVER_DDS)
def test_depth_and_camera_info(depths, fields, frame, skew, info_fields, values):
    images, depth_publisher, info_publisher, clouds = depths
    camera = images.b.camera
    stamp = next(images._stamps)
    info = camera_info(CameraInfo(), info_fields)
    info.header.stamp.sec = stamp
    info_publisher.publish(info)
    assert images.b.wait(lambda: camera.points._info is not None and camera.points._info.header.stamp.sec == stamp)
    depth = filled(Image(), fields)
    if depth.encoding == "32FC1" and depth.data:
        depth.data = byte_array(np.resize(np.array(values, "<f4").view(np.uint8), len(depth.data)))
    late = round(0.5e9 + (skew % 1) * 1e9)
    sec = stamp + math.floor(skew) + late // 10**9
    stamped(depth, {"frame_id": frame, "sec": sec, "nanosec": late % 10**9})
    newest = camera.points._depths[-1] if camera.points._depths else None
    depth_publisher.publish(depth)
    assert images.b.wait(lambda: bool(camera.points._depths) and camera.points._depths[-1] is not newest)
    without, came = camera.counters.without_points, len(clouds)
    images._good.header.stamp.nanosec = 500_000_000
    images._stamps = itertools.chain([stamp], images._stamps)
    images.answered()
    assert images.b.wait(lambda: camera.counters.without_points - without + len(clouds) - came == 1)
    fits = whole(depth, DEPTH_BYTES) and (depth.width, depth.height) == (64, 48) and frame == FRAME and abs(skew) <= 0.05
    assert (len(clouds) > came) == (fits and calibrated(info_fields))
    if len(clouds) > came:
        xyz = points(clouds[-1])["xyz"]
        assert clouds[-1].is_dense and np.isfinite(xyz).all() and (xyz[:, 2] > 0).all()


ANY_LAYOUT = st.one_of(
    COLOUR,
    DEPTH,
    st.fixed_dictionaries(
        {
            "encoding": st.one_of(st.sampled_from([*CHANNELS, *DEPTH_BYTES, *OTHERS]), st.text(max_size=8)),
            "width": st.one_of(st.integers(0, 12), st.integers(0, 2**32 - 1)),
            "height": st.one_of(st.integers(0, 12), st.integers(0, 2**32 - 1)),
            "step": st.one_of(st.integers(0, 64), st.integers(0, 2**32 - 1)),
            "is_bigendian": st.integers(0, 255),
            "data": st.binary(max_size=600),
            "length": st.integers(0, 600),
        }
    ),
)


def or_invalid(call: Any, *arguments: Any) -> Any:
    """What a call returns; None where it raises InvalidMessage, as it may. Anything else that it raises is a fault."""
    try:
        return call(*arguments)
    except InvalidMessage as error:
        assert str(error)
        return None


@given(ANY_LAYOUT)
@settings(max_examples=400)
def test_any_layout_is_an_image_or_invalid(fields):
    message = filled(SimpleNamespace(), fields)
    if message.encoding in CHANNELS or find_spec("cv_bridge") is None:
        rgb = or_invalid(image_rgb, message)
        assert (rgb is not None) == whole(message, CHANNELS)
        assert rgb is None or (rgb.dtype == np.uint8 and rgb.shape == (message.height, message.width, 3))
    array = or_invalid(image_array, message)
    assert array is None or array.shape[:2] == (message.height, message.width)
    metres = or_invalid(depth_metres, message)
    assert (metres is not None) == whole(message, DEPTH_BYTES)
    if metres is not None:
        assert metres.dtype == np.float32 and metres.shape == (message.height, message.width)
        measured = metres[~np.isnan(metres)]
        assert np.isfinite(measured).all() and (measured > 0).all()


@given(st.one_of(files().map(lambda found: found[0]), st.binary(max_size=400)), st.one_of(FORMATS, st.text(max_size=12)))
@settings(max_examples=400)
@example(b"\x89PNG\r\n\x1a\n", "png")
@example(b"\xff\xd8\xff", "jpeg")
@example(b"BM" + b"\xff" * 60, "bmp")
@example(b"P6 99999999 99999999 255\n", "ppm")
def test_any_bytes_are_an_image_or_invalid(data, kind):
    rgb = or_invalid(compressed_rgb, SimpleNamespace(data=data, format=kind))
    assert rgb is None or (rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and max(rgb.shape) <= LARGEST_SIDE)


@given(
    st.one_of(st.sampled_from(["", "x" * 255, "x" * 256]), st.text(max_size=5)),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=200)
def test_any_header_is_good_or_invalid(frame_id, sec, nanosec):
    header = SimpleNamespace(frame_id=frame_id, stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
    try:
        check_header(header)
    except InvalidMessage:
        assert not timed(header)
    else:
        assert timed(header)


@given(PINHOLES, st.lists(VALUES, min_size=1, max_size=8))
@settings(max_examples=200)
@example({**GOOD_INFO, "k": (TINY, 50.0, 31.5, 23.5)}, [1.2])
@example(GOOD_INFO, [3e38])
def test_any_calibration_and_depth_give_a_cloud_of_finite_points_or_invalid(fields, values):
    camera = or_invalid(pinhole, camera_info(CameraInfo(), fields), 64, 48)
    assert (camera is not None) == calibrated(fields)
    if camera is None:
        return
    depth = np.resize(np.array(values, np.float32), (48, 64))
    big = int(sys.byteorder == "big")
    data = depth.tobytes()
    message = SimpleNamespace(encoding="32FC1", width=64, height=48, step=256, is_bigendian=big, data=data)
    scene = SimpleNamespace(objects=[SimpleNamespace(layer=1)])
    label, image = np.ones((48, 64), np.uint16), np.zeros((48, 64, 3), np.uint8)
    cloud = scene_cloud(scene, label, image, depth_metres(message), camera, SimpleNamespace(), SimpleNamespace)
    assert np.isfinite(points(cloud)["xyz"]).all()
    assert cloud.width == len(points(cloud)) <= 48 * 64

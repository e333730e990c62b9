# SPDX-License-Identifier: Apache-2.0
"""Image message -> array, and LayeredScene <-> LayeredMasks. No rclpy; messages are used by their fields alone."""

import array
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from seqamodal_ros.scene.captions import CANNOT_TELL
from seqamodal_ros.scene.geometry import LARGEST_SIDE, Geometry
from seqamodal_ros.scene.image_files import checked_size, decode_image
from seqamodal_ros.scene.scene import LayeredScene, SceneObject, Stated
from seqamodal_ros.scene.status import Status, status_of

LONGEST_NAME = 255  # characters, of frames
LONGEST_TEXT = 1000  # characters

# encoding -> dtype, channels
ENCODINGS: dict[str, tuple[type, int]] = {
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "rgba8": (np.uint8, 4),
    "bgra8": (np.uint8, 4),
    "mono8": (np.uint8, 1),
    "bayer_rggb8": (np.uint8, 1),
    "bayer_bggr8": (np.uint8, 1),
    "bayer_gbrg8": (np.uint8, 1),
    "bayer_grbg8": (np.uint8, 1),
    "yuv422": (np.uint8, 2),
    "uyvy": (np.uint8, 2),
    "yuv422_yuy2": (np.uint8, 2),
    "yuyv": (np.uint8, 2),
    "mono16": (np.uint16, 1),
    "16UC1": (np.uint16, 1),
    "32FC1": (np.float32, 1),
}
# encoding -> what makes it RGB; None where it is
COLOURS: dict[str, int | None] = {
    "rgb8": None,
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,  # OpenCV names a pattern by its second row, from the second column on
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
}
LEAST_BAYER = 3  # pixels a side, from which on OpenCV tells colours

BUILD_MESSAGES = (
    "the message package seqamodal_msgs is not built or not sourced: run `colcon build` in the repository, or in an outer "
    "workspace `colcon build --base-paths src src/seqamodal_ros/seqamodal_msgs`, then `source install/setup.bash`"
)


class InvalidMessage(ValueError):
    """A message that cannot be used; the text says what is wrong with it. It is cut, as it may quote what was sent."""

    def __init__(self, text: str):
        super().__init__(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}...")


@dataclass(frozen=True)
class MessageTypes:
    """The message classes that a scene is written with; ROS's own, or any with the same fields."""

    layered_masks: Callable[..., Any]
    layer: Callable[..., Any]
    object: Callable[..., Any]
    image: Callable[..., Any]
    region_of_interest: Callable[..., Any]
    duration: Callable[..., Any]

    @classmethod
    def ros(cls) -> "MessageTypes":
        """ROS's own.

        Raises:
            ImportError: seqamodal_msgs is not built; the message says how to build it.
        """
        try:
            from seqamodal_msgs.msg import AmodalLayer, AmodalObject, LayeredMasks
        except ImportError as error:
            raise ImportError(BUILD_MESSAGES, name="seqamodal_msgs") from error
        from builtin_interfaces.msg import Duration
        from sensor_msgs.msg import Image, RegionOfInterest

        return cls(LayeredMasks, AmodalLayer, AmodalObject, Image, RegionOfInterest, Duration)


def image_array(message: Any) -> np.ndarray:
    """The pixels of a sensor_msgs/Image, [H, W] or [H, W, C], a copy in native byte order.

    Raises:
        InvalidMessage: zero or absurd sizes, an unknown encoding, a row shorter than its pixels, a short buffer.
    """
    return _pixels(message).copy()


def _pixels(message: Any) -> np.ndarray:
    """`image_array`, but the message's own data where they are as they should be: of a large image a copy takes a while."""
    dtype, channels, row = _layout(message)
    data = np.frombuffer(message.data, np.uint8)
    rows = np.lib.stride_tricks.as_strided(data, (message.height, row), (message.step, 1))
    pixels = np.ascontiguousarray(rows).view(dtype)
    if dtype.itemsize > 1 and bool(message.is_bigendian) != (sys.byteorder == "big"):
        pixels = pixels.byteswap()
    size = message.height, message.width
    return pixels.reshape(size if channels == 1 else (*size, channels))


def image_size(message: Any) -> tuple[int, int]:
    """Width and height of a sensor_msgs/Image, once all that is seen without converting it is well.

    Raises:
        InvalidMessage: see `image_array`.
    """
    _layout(message)
    return message.width, message.height


def image_rgb(message: Any) -> np.ndarray:
    """uint8 [H, W, 3] RGB of a colour or grey sensor_msgs/Image.

    Of encoding rgb8 it is read-only, and the message's own data where no row is padded. An encoding that is not in `COLOURS` goes
    through cv_bridge, where that imports.

    Raises:
        InvalidMessage: see `image_array`; or an encoding that has no colour.
    """
    if message.encoding in COLOURS:
        pixels, code = _pixels(message), COLOURS[message.encoding]
        if code is not None:
            return cv2.cvtColor(pixels, code)
        if pixels.nbytes < len(message.data):  # whoever keeps the image would keep all of that
            pixels = pixels.copy()
        pixels.flags.writeable = False
        return pixels
    _check_sides(message)
    try:
        import cv_bridge
    except ImportError:
        known = ", ".join(COLOURS)
        raise InvalidMessage(
            f"encoding {message.encoding!r} is not supported: it has no colour, or needs cv_bridge, which is not installed; "
            f"those that need nothing: {known}"
        ) from None
    try:
        pixels = np.ascontiguousarray(cv_bridge.CvBridge().imgmsg_to_cv2(message, "rgb8"))
    except Exception as error:  # cv_bridge raises TypeError, AttributeError, cv2.error and its own, by the kind of fault
        raise InvalidMessage(f"cv_bridge cannot convert encoding {message.encoding!r} to rgb8: {error}") from error
    if pixels.shape != (message.height, message.width, 3):  # it trusts a wrong step
        raise InvalidMessage(f"step {message.step} does not fit {message.width} {message.encoding} pixels")
    return pixels


def _check_sides(message: Any) -> None:
    if not (1 <= message.width <= LARGEST_SIDE and 1 <= message.height <= LARGEST_SIDE):
        raise InvalidMessage(f"an image of {message.width}x{message.height} pixels; sides must be in 1..{LARGEST_SIDE}")


def _layout(message: Any) -> tuple[np.dtype, int, int]:
    """Of a sensor_msgs/Image whose data are as many as its fields say: dtype, channels, and bytes of a row's pixels."""
    _check_sides(message)
    width, height, encoding = message.width, message.height, message.encoding
    if encoding not in ENCODINGS:
        raise InvalidMessage(f"encoding {encoding!r} is not supported; publish one of {', '.join(ENCODINGS)}")
    if encoding.startswith("bayer_") and min(width, height) < LEAST_BAYER:
        raise InvalidMessage(f"a Bayer pattern of {width}x{height} pixels tells no colours: {LEAST_BAYER} a side are the least")
    kind, channels = ENCODINGS[encoding]
    if channels == 2 and width % 2:
        raise InvalidMessage(f"pixels of {encoding} come in pairs: the width must be even, not {width}")
    dtype: np.dtype = np.dtype(kind)
    row = width * channels * dtype.itemsize
    if message.step < row:
        raise InvalidMessage(f"step is {message.step} bytes, but a row of {width} {encoding} pixels takes {row}")
    needed = message.step * (height - 1) + row  # the last row may come without its padding
    if len(message.data) < needed:
        raise InvalidMessage(f"{len(message.data)} bytes of data, but {width}x{height} {encoding} takes {needed}")
    return dtype, channels, row


def compressed_size(message: Any) -> tuple[int, int]:
    """Width and height of a sensor_msgs/CompressedImage, once all that is seen without decoding it is well.

    Raises:
        InvalidMessage: a depth image, data that are neither JPEG nor PNG, a truncated JPEG, or an image too large.
    """
    if "compressedDepth" in message.format or message.format.startswith(("16UC1", "32FC1")):
        raise InvalidMessage(f"format {message.format!r} has no colour; remap the image topic to a colour image's")
    try:
        size = checked_size(bytes(message.data))
    except ValueError as error:
        raise _undecodable(message, error) from error
    if size is None:  # whose size is told only once it takes memory
        raise _undecodable(message, "it is neither JPEG nor PNG")
    return size


def compressed_rgb(message: Any) -> np.ndarray:
    """uint8 [H, W, 3] RGB of a colour or grey sensor_msgs/CompressedImage, JPEG or PNG, as image_transport makes them.

    An EXIF orientation is left alone, as camera_info and depth know nothing of it.

    Raises:
        InvalidMessage: see `compressed_size`; or data that are no complete image, or one of another size.
    """
    width, height = compressed_size(message)
    try:
        image = decode_image(bytes(message.data), upright=False)
    except ValueError as error:
        raise _undecodable(message, error) from error
    if image.shape[:2] != (height, width):  # data made to deceive
        raise _undecodable(message, f"it says {width}x{height} pixels, and has {image.shape[1]}x{image.shape[0]}")
    return image


def _undecodable(message: Any, why: object) -> InvalidMessage:
    return InvalidMessage(f"a compressed image (format {message.format!r}) that cannot be decoded: {why}")


def check_header(header: Any) -> None:
    """Raise InvalidMessage unless a std_msgs/Header names a frame and a valid time."""
    if not header.frame_id:
        raise InvalidMessage("header.frame_id is empty; set it to the camera's optical frame")
    check_frame_id(header)
    if header.stamp.sec < 0 or not 0 <= header.stamp.nanosec < 1_000_000_000:
        raise InvalidMessage(f"header.stamp is no time: sec {header.stamp.sec}, nanosec {header.stamp.nanosec}")


def check_frame_id(header: Any) -> None:
    """Raise InvalidMessage where the frame of a std_msgs/Header is no name: an answer holds dozens of copies of it."""
    if len(header.frame_id) > LONGEST_NAME:
        raise InvalidMessage(f"header.frame_id has {len(header.frame_id):,} characters; {LONGEST_NAME} at most are a name")


def stamp_of(header: Any) -> tuple[int, int]:
    """Seconds and nanoseconds of a std_msgs/Header's stamp, valid or not: what images and their answers are matched by."""
    return header.stamp.sec, header.stamp.nanosec


def unstamped(header: Any) -> bool:
    """Whether a std_msgs/Header has the stamp that a message is made with: nothing can be said of its time then."""
    return stamp_of(header) == (0, 0)


def check_region(region: tuple[int, int, int, int] | None, width: int, height: int, remedy: str = "") -> None:
    """Raise InvalidMessage, with what to do, where a region x, y, width, height leaves an image of this size; None never does."""
    if region is not None:
        try:
            Geometry.region(width, height, *region)
        except ValueError as error:
            raise InvalidMessage(f"{error}{remedy}") from error


def fill_image(message: Any, pixels: np.ndarray, encoding: str, header: Any) -> Any:
    """Fill a sensor_msgs/Image from an array [H, W] or [H, W, C] of the encoding's dtype; returns the message."""
    pixels = np.ascontiguousarray(pixels, ENCODINGS[encoding][0])
    message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = pixels.nbytes // max(1, pixels.shape[0])
    message.data = byte_array(pixels)
    return message


def byte_array(values: np.ndarray) -> array.array:
    """The bytes of an array as a message's uint8[] takes them at once; bytes assigned to it rclpy checks one by one."""
    data = array.array("B")
    data.frombytes(values.ravel().view(np.uint8).data)
    return data


def scene_to_message(scene: LayeredScene, header: Any, model_id: str, types: MessageTypes, hypotheses: bool = True) -> Any:
    """LayeredMasks of a scene.

    Args:
        scene: what the perceiver saw.
        header: the input's; passed on as it is.
        model_id: name@sha256:... of the weights.
        types: message classes to write with.
        hypotheses: include the K hypotheses of each layer.
    """

    def mask_image(mask: np.ndarray) -> Any:
        return fill_image(types.image(), mask.astype(np.uint8) * 255, "mono8", header)

    def layer_message(index: int) -> Any:
        message = types.layer()
        message.index = index + 1
        message.amodal = mask_image(scene.amodal[index])
        message.visible = mask_image(scene.visible[index])
        message.probability = fill_image(types.image(), scene.probability[index], "32FC1", header)
        message.hypotheses = [mask_image(mask) for mask in scene.hypotheses[index]] if hypotheses else []
        message.agreement = float(scene.agreement[index])
        return message

    def object_message(obj: SceneObject) -> Any:
        message = types.object()
        message.id, message.layer = obj.id, obj.layer
        x, y, width, height = scene.geometry.box(obj.amodal)
        message.roi = types.region_of_interest(x_offset=x, y_offset=y, width=width, height=height, do_rectify=False)
        message.amodal, message.visible = mask_image(obj.amodal), mask_image(obj.visible)
        message.score, message.visible_ratio, message.uncertainty = obj.score, obj.visible_ratio, obj.uncertainty
        message.touches_border = obj.touches_border
        message.occluded_by = list(obj.occluded_by)
        return message

    message = types.layered_masks()
    message.header = header
    message.status, message.status_message = status_of(scene)
    message.source_height, message.source_width = scene.geometry.height, scene.geometry.width
    message.mask_height, message.mask_width = scene.amodal.shape[1:]
    affine = scene.geometry.affine(scene.amodal.shape[2])
    message.scale_x, message.scale_y, message.offset_x, message.offset_y = affine
    message.layers = [layer_message(index) for index in range(len(scene.amodal))]
    message.objects = [object_message(obj) for obj in scene.objects]
    message.pick_order = list(scene.pick_order)
    message.truncated = scene.truncated
    message.num_samples = scene.num_samples
    message.seed = scene.seed
    seconds = 0.0 if math.isnan(scene.seconds) else scene.seconds
    message.inference_time = types.duration(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))
    message.model_id = model_id
    return message


def message_to_scene(message: Any) -> LayeredScene:
    """The scene that a LayeredMasks describes, for consumers: masks, objects, `to_source`.

    Raises:
        InvalidMessage: masks are not square, do not lie on the image, or are not of the size that the message states; or layers
            differ in how many hypotheses they have.
    """
    shape = (message.mask_height, message.mask_width)
    if not 0 < shape[0] == shape[1] or not 0 < message.scale_x == message.scale_y:
        raise InvalidMessage(
            f"masks of {shape[1]}x{shape[0]} pixels at scales {message.scale_x:g} and {message.scale_y:g} must be square: "
            "is this the answer to a request that failed?"
        )
    side = message.scale_x * message.mask_width
    geometry = Geometry(message.source_width, message.source_height, message.offset_x, message.offset_y, side)
    left, top, right, bottom = geometry.seen
    placed = math.isfinite(side + message.offset_x + message.offset_y) and left < right and top < bottom
    if not placed:
        raise InvalidMessage(
            f"masks on the square of {side:g} pixels from {message.offset_x:g}, {message.offset_y:g} on lie nowhere in the image "
            f"of {message.source_width}x{message.source_height}: set scale and offset as LayeredMasks.msg says"
        )
    if max(message.source_width, message.source_height) > LARGEST_SIDE:
        raise InvalidMessage(
            f"masks of an image of {message.source_width}x{message.source_height}; sides must be in 1..{LARGEST_SIDE}"
        )
    layers = message.layers
    samples = len(layers[0].hypotheses) if layers else message.num_samples
    nobody_can_tell = not layers and message.status == Status.LOW_CONFIDENCE
    if any(len(layer.hypotheses) != samples for layer in layers):
        raise InvalidMessage("layers have different numbers of hypotheses")
    return LayeredScene(
        amodal=_stack([_mask(layer.amodal, shape) for layer in layers], (0, *shape), bool),
        probability=_stack([_probability(layer.probability, shape) for layer in layers], (0, *shape), np.float32),
        hypotheses=_stack(
            [[_mask(image, shape) for image in layer.hypotheses] for layer in layers], (len(layers), samples, *shape), bool
        ),
        geometry=geometry,
        objects=tuple(
            SceneObject(
                id=obj.id,
                layer=obj.layer,
                amodal=_mask(obj.amodal, shape),
                visible=_mask(obj.visible, shape),
                visible_ratio=obj.visible_ratio,
                score=obj.score,
                uncertainty=obj.uncertainty,
                touches_border=obj.touches_border,
                occluded_by=tuple(obj.occluded_by),
            )
            for obj in message.objects
        ),
        truncated=message.truncated,
        seed=message.seed,
        seconds=message.inference_time.sec + message.inference_time.nanosec / 1e9,
        doubt=(message.status_message.removeprefix(f"{CANNOT_TELL}: ") or "no reason given") if nobody_can_tell else "",
        stated=None if samples else Stated(message.num_samples, np.array([layer.agreement for layer in layers], np.float32)),
    )


def _stack(masks: list, empty_shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.array(masks, dtype) if masks and len(masks[0]) else np.zeros(empty_shape, dtype)


def _mask(message: Any, shape: tuple[int, int]) -> np.ndarray:
    mask = image_array(message) > 127
    if mask.shape != shape:
        raise InvalidMessage(f"a mask of {mask.shape[1]}x{mask.shape[0]} pixels where the message says {shape[1]}x{shape[0]}")
    return mask


def _probability(message: Any, shape: tuple[int, int]) -> np.ndarray:
    probability = image_array(message)
    if message.encoding != "32FC1" or probability.shape != shape:
        raise InvalidMessage(f"a probability must be 32FC1 of {shape[1]}x{shape[0]} pixels")
    return probability

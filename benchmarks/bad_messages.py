# SPDX-License-Identifier: Apache-2.0
"""Messages with one or several faults, at random and the same for each seed, for `make soak`."""

from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from seqamodal_ros.messages import byte_array, fill_image

SIZE = (64, 48)
FRAME = "camera"
HUGE = [0, 16385, 2**31, 2**32 - 1]
# what is wrong with a message -> how to make it so, given a generator of random numbers
HEADER_FAULTS: dict[str, Any] = {
    "no frame": lambda m, r: setattr(m.header, "frame_id", ""),
    "no name": lambda m, r: setattr(m.header, "frame_id", "x" * int(r.integers(256, 100_000))),
    "time before zero": lambda m, r: setattr(m.header.stamp, "sec", -int(r.integers(1, 2**31))),
    "nanoseconds of a second": lambda m, r: setattr(m.header.stamp, "nanosec", int(r.integers(10**9, 2**32))),
}
LAYOUT_FAULTS: dict[str, Any] = {
    "encoding": lambda m, r: setattr(m, "encoding", str(r.choice(["", "RGB8", "rgb24", "64FC1", "nonsense" * 200]))),
    "width": lambda m, r: setattr(m, "width", int(r.choice([*HUGE, SIZE[0] + 1]))),
    "height": lambda m, r: setattr(m, "height", int(r.choice([*HUGE, SIZE[1] + 1]))),
    "short step": lambda m, r: setattr(m, "step", int(r.integers(0, m.step))),
    "long step": lambda m, r: setattr(m, "step", int(r.integers(m.step + 1, 2**32))),
    "short data": lambda m, r: setattr(m, "data", m.data[: int(r.integers(0, len(m.data)))]),
    "no data": lambda m, r: setattr(m, "data", m.data[:0]),
}


def good_image(stamp: Any) -> Image:
    """A valid rgb8 image."""
    message = fill_image(Image(), np.full((*SIZE[::-1], 3), 90, np.uint8), "rgb8", Image().header)
    message.header.frame_id, message.header.stamp = FRAME, stamp
    return message


def bad_image(stamp: Any, random: np.random.Generator) -> Image:
    """An image with one to three faults; each of them is enough."""
    return _spoilt(good_image(stamp), {**HEADER_FAULTS, **LAYOUT_FAULTS}, random)


def bad_depth(stamp: Any, random: np.random.Generator) -> Image:
    """A depth image that is spoilt, or is whole and holds what no sensor measures."""
    values = random.choice(np.array([np.nan, np.inf, -np.inf, -1.0, 0.0, 3e38, 1.2], np.float32), SIZE[::-1])
    message = fill_image(Image(), values, "32FC1", Image().header)
    message.header.frame_id, message.header.stamp = FRAME, stamp
    return _spoilt(message, LAYOUT_FAULTS, random) if random.random() < 0.5 else message


def odd_camera_info(random: np.random.Generator) -> CameraInfo:
    """A calibration of zeros, NaN and infinities."""
    numbers = [0.0, np.nan, np.inf, -np.inf, -50.0, 1e308, 5e-324, 50.0]
    width = SIZE[0] if random.random() < 0.5 else int(random.choice(HUGE))
    return CameraInfo(width=width, height=SIZE[1], k=random.choice(numbers, 9), p=random.choice(numbers, 12))


def good_compressed(stamp: Any) -> CompressedImage:
    """A valid JPEG image."""
    message = CompressedImage(format="jpeg")
    message.header.frame_id, message.header.stamp = FRAME, stamp
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)
    message.data = byte_array(cv2.imencode(".jpg", pixels)[1])
    return message


def bad_compressed(stamp: Any, random: np.random.Generator) -> CompressedImage:
    """A JPEG image that is cut, or bytes of something else."""
    message = good_compressed(stamp)
    faults = {
        **HEADER_FAULTS,
        "cut": lambda m, r: setattr(m, "data", m.data[: int(r.integers(0, len(m.data) - 2))]),
        "noise": lambda m, r: setattr(m, "data", byte_array(np.append(np.uint8(0), r.integers(0, 255, 99).astype(np.uint8)))),
        "depth": lambda m, r: setattr(m, "format", "16UC1; compressedDepth png"),
    }
    return _spoilt(message, faults, random)


def _spoilt(message: Any, faults: dict[str, Any], random: np.random.Generator) -> Any:
    chosen = random.choice(list(faults), int(random.integers(1, 4)), replace=False)
    for name, spoil in faults.items():  # in this order one does not mend another
        if name in chosen:
            spoil(message, random)
    return message

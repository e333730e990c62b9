# SPDX-License-Identifier: Apache-2.0
"""Where images come from: a folder or a file of images, a video, a camera."""

import os
import time
from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np

from seqamodal_ros.scene.image_files import OPENCV_LOG, SUFFIXES, find_images, read_image

CAMERA_SILENT = 2.0  # seconds without an image after which a camera is given up
FASTEST, USUAL = 500.0, 30.0  # images a second: more than the first is no rate, and then the second is taken for it
VIDEO_DAMAGED = 100  # images in a row that cannot be read, after which a video is taken to be over

Shot = tuple[str, np.ndarray | OSError]  # its name, and uint8 [H, W, 3] RGB or why there is none


def is_camera(source: Path) -> bool:
    """Whether a source is a camera's device file, whose images do not end."""
    return source.is_char_device() or (source.parent == Path("/dev") and source.name.startswith("video"))


def shots(source: Path, period: float) -> Generator[Shot, None, None]:
    """The images of a source, in order.

    Args:
        source: a folder of images, an image, a video, or a camera such as /dev/video0.
        period: seconds of a video between two of its images; the others are left out.

    Raises:
        OSError: at the call: the source does not exist, holds nothing, or cannot be opened; the message says what to do.
    """
    if is_camera(source):
        return _camera(
            source, _open(source, f"cannot open the camera {source}: is it plugged in and free, and are you in group video?")
        )
    if source.is_file() and source.suffix.lower() not in SUFFIXES:
        what = "no image, nor a video that OpenCV opens: it may be cut short or damaged, else convert it to MP4"
        return _video(source, _open(source, f"cannot read {source}: {what}"), period)
    return _images(find_images([source]))


def _images(paths: list[Path]) -> Generator[Shot, None, None]:
    for path in paths:
        try:
            yield path.name, read_image(path)
        except OSError as error:
            yield path.name, error


def _open(source: Path, complaint: str) -> cv2.VideoCapture:
    before = OPENCV_LOG.getLogLevel()
    OPENCV_LOG.setLogLevel(0)  # its own complaints are many lines; ours is one
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet, too: read at the first video of a process
    try:
        capture = cv2.VideoCapture(str(source), cv2.CAP_V4L2 if is_camera(source) else cv2.CAP_FFMPEG)
    finally:
        OPENCV_LOG.setLogLevel(before)
    if not capture.isOpened():
        raise OSError(complaint)
    return capture


def _video(source: Path, capture: cv2.VideoCapture, period: float) -> Generator[Shot, None, None]:
    """Every so many images; those that cannot be read, or are missing at the end, are told as one error, the last shot."""
    rate, announced = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    if rate > FASTEST:  # a container's clock, and how many images follow from it; so are browsers' recordings
        rate, announced = USUAL, 0
    step = max(1, round(rate * period)) if np.isfinite(rate) else 1
    index = read = failed = 0  # failed: in a row, as one damaged image is not the end
    while failed < VIDEO_DAMAGED:
        image = None
        readable = capture.grab()
        if readable and index % step == 0:
            readable, image = capture.retrieve()
        index += 1
        failed = 0 if readable else failed + 1
        read += readable
        if image is not None:
            yield f"{source.name} image {index}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    capture.release()
    end = index - failed
    if read < end or read < min(1, announced) or read < 0.9 * announced:  # how many it announces may be an estimate
        told = f"only {read} of {max(announced, end)} images of {source} can be read: copy or export it again"
        yield source.name, OSError(told)


def _camera(source: Path, capture: cv2.VideoCapture) -> Generator[Shot, None, None]:
    """The newest image each time; ends with an error, as a camera does not end by itself."""
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    index = 0
    while (image := _newest(capture)) is not None:
        index += 1
        yield f"{source} image {index}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    capture.release()
    yield str(source), OSError(f"the camera {source} gives no more images: is it still plugged in?")


def _newest(capture: cv2.VideoCapture) -> np.ndarray | None:
    """A camera's next image, BGR; None where it has given none for a while, as one damaged image is not its end."""
    until = time.monotonic() + CAMERA_SILENT
    while time.monotonic() < until:
        if capture.grab():  # what waited in the buffer since the last image
            decoded, image = capture.read()
            if decoded:
                return image
        time.sleep(0.01)  # one that is unplugged fails at once, again and again
    return None

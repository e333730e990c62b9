# SPDX-License-Identifier: Apache-2.0
"""Finds and reads image files; a broken one is an error, never half an image."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from seqamodal_ros.scene.geometry import LARGEST_SIDE

OPENCV_LOG = getattr(cv2.utils, "logging", cv2)  # holds setLogLevel; OpenCV 4 has it in cv2 itself
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find_images(paths: Iterable[Path | str]) -> list[Path]:
    """Image files of the given files and folders: each once, a folder's by name (not those of folders in it).

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no image.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
            if not files:
                raise FileNotFoundError(f"no images in the folder {path}: it must hold {', '.join(SUFFIXES)} files")
        elif path.exists():
            files = [path]
        else:
            raise FileNotFoundError(f"no such file or folder: {path}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_image(path: Path | str) -> np.ndarray:
    """uint8 [H, W, 3] RGB of an image file; grey becomes RGB, alpha is dropped.

    Raises:
        OSError: the file cannot be read, or is no complete image; the message names it.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror}") from error
    try:
        return decode_image(data)
    except ValueError as error:
        remedy = "copy or export it again" if Path(path).suffix.lower() in SUFFIXES else f"give {', '.join(SUFFIXES)} files"
        raise OSError(f"cannot read {path}: {error}; {remedy}") from error


def decode_image(data: bytes, upright: bool = True) -> np.ndarray:
    """uint8 [H, W, 3] RGB of an encoded image (PNG, JPEG, ...).

    Args:
        data: of the file.
        upright: turn it as its EXIF orientation says, which is for people; a camera's calibration is of the pixels as they are.

    Raises:
        ValueError: the data are no complete image, or one of a JPEG's or PNG's size that is too large.
    """
    checked_size(data)
    try:
        flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"no image that OpenCV decodes ({error.err})") from error
    if image is None:
        raise ValueError("a truncated image, or no image at all")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def checked_size(data: bytes) -> tuple[int, int] | None:
    """`declared_size`, once all that is seen without decoding is well.

    Raises:
        ValueError: there are no data, they end before a JPEG image does, or a side is too large.
    """
    if not data:
        raise ValueError("it is empty")
    size = declared_size(data)
    if size is not None and not all(1 <= side <= LARGEST_SIDE for side in size):  # a small file may unpack to gigabytes
        raise ValueError(f"an image of {size[0]}x{size[1]} pixels; sides must be in 1..{LARGEST_SIDE}")
    if data.startswith(b"\xff\xd8") and not _jpeg_ends(data):
        raise ValueError("a truncated JPEG image")
    return size


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG or JPEG image says that it has, before anything of it is decoded; None of other data."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(b"\xff\xd8"):
        for marker, at in _jpeg_segments(data):
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
                return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
    return None


def _jpeg_ends(data: bytes) -> bool:
    """Whether the end marker follows the first scan; OpenCV 4 fills what is missing of a JPEG with grey."""
    return any(marker == 0xDA and data.find(b"\xff\xd9", at) >= 0 for marker, at in _jpeg_segments(data))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of each segment up to the first scan; a thumbnail among them has segments of its own, unseen here."""
    at = 2
    while data[at : at + 1] == b"\xff" and at + 1 < len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        yield marker, at
        if marker == 0xDA:  # start of scan
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")

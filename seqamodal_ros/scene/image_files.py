# SPDX-License-Identifier: Apache-2.0
"""Finds and reads image files. One that was cut short is an error; a JPEG that is damaged inside may pass, see `decode_image`."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from seqamodal_ros.scene.geometry import LARGEST_SIDE

OPENCV_LOG = getattr(cv2.utils, "logging", cv2)  # holds setLogLevel; OpenCV 4 has it in cv2 itself
LARGEST_PIXELS = 64_000_000  # of an encoded image
MOST_SEGMENTS = 5_000  # of a JPEG before its pixels: those of the largest profiles are some hundred
FILL = re.compile(rb"\xff*")
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
DEPTH = "depth"  # folder in a folder of images: of NAME.jpg it may have NAME.png, see `read_depth`


def find_images(paths: Iterable[Path | str]) -> list[Path]:
    """Image files of the given files and folders: each once, a folder's by name (not those of folders in it).

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no image.
        OSError: a path is a pipe, say, from which reading might wait for ever.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
            if not files:
                raise FileNotFoundError(f"no images in the folder {path}: it must hold {', '.join(SUFFIXES)} files")
        elif path.is_file():
            files = [path]
        elif path.exists():
            raise OSError(f"neither a file nor a folder: {path}; save the image as a file first")
        else:
            raise FileNotFoundError(f"no such file or folder: {path}")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_image(path: Path | str) -> np.ndarray:
    """uint8 [H, W, 3] RGB of an image file; grey becomes RGB, alpha is dropped.

    Raises:
        OSError: the file cannot be read, is no image, or ends before it does; the message names it.
    """
    return _read(path, decode_image)


def read_depth(path: Path | str) -> np.ndarray:
    """uint16 [H, W], millimetres, 0 where nothing was measured, of a PNG of 16 bits.

    Raises:
        OSError: the file cannot be read, or is something else; the message names it.
    """
    depth = _read(path, lambda data: _decoded(data, cv2.IMREAD_UNCHANGED))
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise OSError(f"{path} is no depth image: give a grey PNG of 16 bits, millimetres")
    return depth


def _read(path: Path | str, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror}") from error
    try:
        return decode(data)
    except ValueError as error:
        remedy = "copy or export it again" if Path(path).suffix.lower() in SUFFIXES else f"give {', '.join(SUFFIXES)} files"
        raise OSError(f"cannot read {path}: {error}; {remedy}") from error


def decode_image(data: bytes, upright: bool = True) -> np.ndarray:
    """uint8 [H, W, 3] RGB of an encoded image (PNG, JPEG, ...).

    A JPEG holds no checksum. One that is damaged between its start and its end is drawn as far as the decoder can, in part
    wrong or grey: it warns on stderr alone, so nobody is told.

    Args:
        data: of the file.
        upright: turn it as its EXIF orientation says, which is for people; a camera's calibration is of the pixels as they are.

    Raises:
        ValueError: the data are no image, or end before it does, or it is too large; of a JPEG or PNG that is known before.
    """
    return _decoded(data, cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION), cv2.COLOR_BGR2RGB)


def _decoded(data: bytes, flags: int, conversion: int | None = None) -> np.ndarray:
    """What OpenCV makes of an encoded image; ValueError as of `decode_image`."""
    checked_size(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if image is None:
            raise ValueError("a truncated image, or no image at all")
        _check_sides(image.shape[1], image.shape[0])  # of a format that is not asked for its size before
        return image if conversion is None else cv2.cvtColor(image, conversion)
    except cv2.error as error:
        raise ValueError(f"no image that OpenCV decodes ({error.err})") from error


def checked_size(data: bytes) -> tuple[int, int] | None:
    """`declared_size`, once all that is seen without decoding is well.

    Raises:
        ValueError: there are no data, they end before a JPEG image does, or see `declared_size`; a side is too large, or the
            image is.
    """
    if not data:
        raise ValueError("it is empty")
    size = declared_size(data)
    if size is not None:  # a small file may unpack to gigabytes, and take seconds for it
        _check_sides(*size)
    if data.startswith(b"\xff\xd8") and not _jpeg_ends(data):
        raise ValueError("a truncated JPEG image")
    return size


def _check_sides(width: int, height: int) -> None:
    if not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise ValueError(f"an image of {width}x{height} pixels; sides must be in 1..{LARGEST_SIDE}")
    if width * height > LARGEST_PIXELS:
        raise ValueError(f"an image of {width}x{height} pixels; {LARGEST_PIXELS:,} at most are taken")


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a PNG or JPEG image says that it has, before anything of it is decoded; None of other data.

    Raises:
        ValueError: a JPEG of more than `MOST_SEGMENTS`.
    """
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
    """Marker and place of each segment up to the first scan; a thumbnail among them has segments of its own, unseen here.

    Megabytes of fill bytes or of segments of nothing, made to deceive, take no time to speak of.

    Raises:
        ValueError: there are more than `MOST_SEGMENTS`.
    """
    at = 2
    for _ in range(MOST_SEGMENTS):
        marker_at = FILL.match(data, at).end()  # type: ignore[union-attr]  # it matches anywhere
        if marker_at == at or marker_at == len(data):
            return
        marker, at = data[marker_at], marker_at - 1
        yield marker, at
        if marker == 0xDA:  # start of scan
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError(f"a JPEG image of more than {MOST_SEGMENTS:,} segments before its pixels")

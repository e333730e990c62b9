# SPDX-License-Identifier: Apache-2.0
"""Image files: found once each; one that was cut short is an error."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from seqamodal_ros.scene import image_files
from seqamodal_ros.scene.image_files import declared_size, decode_image, find_images, read_depth, read_image

KINDS = [".png", ".jpg", ".webp", ".bmp", ".ppm", ".tiff"]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 4)


def encoded(rgb: np.ndarray, kind: str) -> bytes:
    return cv2.imencode(kind, rgb[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_reads_rgb(tmp_path, picture, kind):
    path = tmp_path / f"a{kind}"
    path.write_bytes(encoded(picture, kind))
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == picture.shape
    assert np.abs(image.astype(int) - picture).mean() < 6  # JPEG and WebP lose a little


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.98])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, picture, kind, share):
    data = encoded(picture, kind)
    path = tmp_path / f"cut{kind}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(OSError, match=f"cannot read .*cut{kind}.*again"):
        read_image(path)


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_truncated(picture):
    """The thumbnail lies in a segment before the image and has an end marker of its own."""
    thumbnail = encoded(picture[:16, :16], ".jpg")
    data = encoded(picture, ".jpg")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    assert decode_image(whole).shape == picture.shape
    with pytest.raises(ValueError, match="truncated JPEG"):
        decode_image(whole[: len(whole) * 3 // 4])


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(picture):
    assert decode_image(encoded(picture, ".jpg") + b"\xff\xda more").shape == picture.shape


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8", b"\xff\xd8\xff\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image(data):
    with pytest.raises(ValueError):
        decode_image(data)


def test_grey_alpha_and_16_bit_become_8_bit_rgb(picture):
    grey = cv2.imencode(".png", picture[..., 0])[1].tobytes()
    assert np.array_equal(decode_image(grey), np.repeat(picture[..., :1], 3, axis=2))
    rgba = cv2.imencode(".png", np.dstack([picture[..., ::-1], picture[..., 0]]))[1].tobytes()
    assert np.array_equal(decode_image(rgba), picture)
    deep = cv2.imencode(".png", picture[..., 0].astype(np.uint16) * 256)[1].tobytes()
    assert decode_image(deep).dtype == np.uint8


class TestDepth:
    MILLIMETRES = np.random.default_rng(0).integers(0, 2**16, (48, 64), dtype=np.uint16)

    def test_is_a_png_of_16_bits(self, tmp_path):
        cv2.imwrite(str(tmp_path / "a.png"), self.MILLIMETRES)
        depth = read_depth(tmp_path / "a.png")
        assert depth.dtype == np.uint16
        np.testing.assert_array_equal(depth, self.MILLIMETRES)

    @pytest.mark.parametrize("other", ["8 bits", "colour"])
    def test_others_are_none(self, tmp_path, other):
        cv2.imwrite(
            str(tmp_path / "a.png"),
            (self.MILLIMETRES >> 8).astype(np.uint8) if other == "8 bits" else np.dstack([self.MILLIMETRES] * 3),
        )
        with pytest.raises(OSError, match="a.png is no depth image: give a grey PNG of 16 bits, millimetres"):
            read_depth(tmp_path / "a.png")

    def test_a_damaged_or_missing_one_is_an_error_that_names_it(self, tmp_path):
        with pytest.raises(OSError, match="cannot read .*a.png: No such file"):
            read_depth(tmp_path / "a.png")
        data = cv2.imencode(".png", self.MILLIMETRES)[1].tobytes()
        (tmp_path / "a.png").write_bytes(data[:60])
        with pytest.raises(OSError, match="cannot read .*a.png: .*; copy or export it again"):
            read_depth(tmp_path / "a.png")


def test_an_image_that_says_its_size_to_the_decoder_alone_may_be_too_large_as_well(monkeypatch):
    monkeypatch.setattr(image_files, "LARGEST_PIXELS", 1000)
    _, data = cv2.imencode(".bmp", np.zeros((20, 51, 3), np.uint8))
    with pytest.raises(ValueError, match="an image of 51x20 pixels; 1,000 at most"):
        decode_image(data.tobytes())


@pytest.mark.parametrize(
    "size,words", [((40_000, 20_000), "sides must be in 1..16384"), ((16_384, 16_384), "64,000,000 at most")]
)
def test_a_small_file_of_a_huge_image_is_refused_before_it_is_decoded(size, words):
    """A PNG of 300 kB may unpack to gigabytes."""
    code = """
import resource, struct, zlib
import cv2
from seqamodal_ros.scene.image_files import decode_image
def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
width, height = SIZE
rows = zlib.compress(bytes((width + 8) // 8) * height, 9)
header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
assert len(png) < 300_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(png)
except ValueError as error:
    print(error)
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
"""
    done = subprocess.run([sys.executable, "-c", code.replace("SIZE", str(size))], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"an image of {size[0]}x{size[1]} pixels; {words}" in done.stdout


@pytest.mark.parametrize("kind", [".png", ".jpg"])
def test_the_size_is_known_before_it_is_decoded(picture, kind):
    data = cv2.imencode(kind, picture)[1].tobytes()
    assert declared_size(data) == picture.shape[1::-1]
    assert declared_size(data[:10]) is None
    assert declared_size(cv2.imencode(".bmp", picture)[1].tobytes()) is None


def test_fill_bytes_before_a_marker_are_passed_over(picture):
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    assert declared_size(data[:2] + b"\xff" * 7 + data[2:]) == picture.shape[1::-1]


def test_what_a_jpeg_says_before_its_pixels_is_read_in_no_time():
    """Ten megabytes of fill bytes, and of segments of nothing: byte by byte they would take seconds of the executor's thread."""
    assert declared_size(b"\xff\xd8" + b"\xff" * 10_000_000) is None
    with pytest.raises(ValueError, match="more than 5,000 segments"):
        declared_size(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 2_500_000)


def test_progressive_jpegs_are_images_too(picture):
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert declared_size(data) == picture.shape[1::-1]
    assert decode_image(data).shape == picture.shape


class TestFindImages:
    def test_files_and_folders_each_image_once(self, tmp_path):
        for name in ("b.png", "a.JPG", "notes.txt", "sub/c.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = find_images([tmp_path / "b.png", tmp_path, tmp_path / "sub" / ".." / "a.JPG"])
        assert [path.name for path in found] == ["b.png", "a.JPG"]

    def test_a_file_is_taken_whatever_its_suffix(self, tmp_path):
        (tmp_path / "frame.raw").touch()
        assert find_images([tmp_path / "frame.raw"]) == [tmp_path / "frame.raw"]

    def test_a_folder_without_images(self, tmp_path):
        (tmp_path / "notes.txt").touch()
        with pytest.raises(FileNotFoundError, match="no images in the folder .*png"):
            find_images([tmp_path])

    def test_a_pipe_is_refused_as_it_might_never_end(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(OSError, match="neither a file nor a folder: .*pipe.png"):
            find_images([tmp_path / "pipe.png"])

    def test_what_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file or folder: .*gone"):
            find_images([tmp_path / "gone"])

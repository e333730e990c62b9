# SPDX-License-Identifier: Apache-2.0
"""Folders, images, real videos; a camera's device file that is none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from seqamodal_ros.scene import sources
from seqamodal_ros.scene.sources import is_camera, shots


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two seconds of ten images a second, each of one grey level that tells its number."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    grain = np.random.default_rng(0).integers(0, 20, (48, 64, 3), dtype=np.uint8)
    for index in range(20):
        writer.write(grain + np.uint8(10 * index))
    writer.release()
    return path


@pytest.mark.parametrize("period,expected", [(0.0, range(20)), (0.5, range(0, 20, 5)), (100, [0])])
def test_a_video_gives_an_image_each_period(video, period, expected):
    found = list(shots(video, period))
    assert [name for name, _ in found] == [f"film.avi image {index + 1}" for index in expected]
    assert [image.shape for _, image in found] == [(48, 64, 3)] * len(found)
    np.testing.assert_allclose([image.mean() for _, image in found], [10 * index + 9.5 for index in expected], atol=4)


def test_a_video_that_calls_its_clock_its_rate_is_taken_for_a_usual_one(tmp_path):
    """As what browsers record: a thousand images a second, by the container."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 1000, (64, 48))
    for index in range(40):
        writer.write(np.full((48, 64, 3), 5 * index, np.uint8))
    writer.release()
    assert [name for name, _ in shots(path, 0.5)] == [f"film.avi image {index + 1}" for index in (0, 15, 30)]


def test_a_video_s_colours_are_rgb(tmp_path):
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
    writer.release()
    ((_, image),) = shots(path, 0.5)
    assert image[..., 0].mean() > 200 > 60 > image[..., 2].mean()


def test_a_truncated_video_gives_what_it_has_and_says_so(video):
    data = video.read_bytes()
    video.write_bytes(data[: len(data) * 2 // 3])
    *images, (name, error) = shots(video, 0.1)
    assert 5 <= len(images) < 16
    assert isinstance(error, OSError) and "of 20 images" in str(error)


def damaged(video: Path, images: range) -> None:
    """Zeros in place of what some images of a video hold."""
    data = bytearray(video.read_bytes())
    starts = [match.start() for match in re.finditer(b"\xff\xd8", data)]
    assert len(starts) == 20
    for index in images:
        end = starts[index + 1] - 20 if index < 19 else starts[index] + 200
        data[starts[index] + 2 : end] = bytes(end - starts[index] - 2)
    video.write_bytes(data)


@pytest.mark.parametrize("images", [range(1), range(8, 9), range(5, 13)], ids=len)
def test_damaged_images_of_a_video_are_left_out_and_told_and_the_others_come(video, images):
    damaged(video, images)
    *found, (name, error) = shots(video, 0.1)
    assert [name for name, _ in found] == [f"film.avi image {index + 1}" for index in range(20) if index not in images]
    assert name == "film.avi"
    assert f"only {20 - len(images)} of 20 images of {video} can be read" in str(error)


def test_an_image_that_does_not_decode_is_left_out_too(video, monkeypatch):
    video_capture = cv2.VideoCapture

    class Capture:
        def __init__(self, *opened):
            self.capture, self.count = video_capture(*opened), 0

        def __getattr__(self, name: str):
            return getattr(self.capture, name)

        def retrieve(self) -> tuple[bool, np.ndarray | None]:
            self.count += 1
            return (False, None) if self.count == 4 else self.capture.retrieve()

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    *found, (_, error) = shots(video, 0.1)
    assert len(found) == 19 and "film.avi image 4" not in dict(found)
    assert "only 19 of 20 images" in str(error)


READ = """
import sys
from pathlib import Path
from seqamodal_ros.scene.sources import shots

try:
    for name, image in shots(Path(sys.argv[1]), 0.1):
        print(image if isinstance(image, OSError) else name)
except OSError as error:
    print(error)
"""


def in_new_process(source: Path) -> list[str]:
    """All lines that a process writes which says what a source gives: FFmpeg, too, has its say on its stderr."""
    command = [sys.executable, "-c", READ, str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    if tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 6):  # Humble's cannot keep FFmpeg quiet
        return [line for line in lines if not line.startswith("[")]
    return lines


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100], ids=["empty", "nonsense"])
def test_what_is_no_video_is_one_clear_error(tmp_path, content):
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    what = "no image, nor a video that OpenCV opens: it may be cut short or damaged, else convert it to MP4"
    assert in_new_process(path) == [f"cannot read {path}: {what}"]


def test_a_damaged_mp4_is_one_clear_error(tmp_path):
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (160, 120))
    rng = np.random.default_rng(0)
    for _ in range(20):
        writer.write(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    path.write_bytes(data)
    *images, error = in_new_process(path)
    assert images and all(name.startswith("film.mp4 image ") for name in images)
    assert "images of" in error and "can be read: copy or export it again" in error


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="film.mp4"):
        shots(tmp_path / "film.mp4", 0.5)


@pytest.mark.parametrize("device", ["/dev/video99", "/dev/null"])
def test_a_camera_that_cannot_be_opened_is_one_clear_error(device, capfd):
    assert is_camera(Path(device))
    with pytest.raises(OSError, match="is it plugged in"):
        shots(Path(device), 0.5)
    assert "Traceback" not in capfd.readouterr().err


class Webcam:
    """A cv2.VideoCapture of a blue wall that is unplugged after so many calls of it; some that are left then fail, too."""

    def __init__(self, calls: int, damaged: tuple[int, ...] = ()):
        self.calls, self.damaged, self.opened, self.buffer, self.released = calls, damaged, (), None, False

    def __call__(self, *opened):
        self.opened = opened
        return self

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def set(self, setting: int, value: float) -> None:
        if setting == cv2.CAP_PROP_BUFFERSIZE:
            self.buffer = value

    def grab(self) -> bool:
        self.calls -= 1
        return self.calls >= 0 and self.calls not in self.damaged

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, np.full((4, 5, 3), (200, 20, 10), np.uint8)) if self.grab() else (False, None)

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize("calls", [4, 5], ids=["before_an_image", "within_an_image"])
def test_a_camera_that_is_unplugged_gives_what_it_gave_and_says_so(monkeypatch, calls):
    """An image takes two calls: one drops what is old, one reads."""
    webcam = Webcam(calls)
    monkeypatch.setattr(cv2, "VideoCapture", webcam)
    monkeypatch.setattr(sources, "CAMERA_SILENT", 0.1)
    *images, (name, error) = shots(Path("/dev/video7"), 0.5)
    assert webcam.opened == ("/dev/video7", cv2.CAP_V4L2)
    assert [name for name, _ in images] == ["/dev/video7 image 1", "/dev/video7 image 2"]
    for _, image in images:
        np.testing.assert_array_equal(image[0, 0], (10, 20, 200))
    assert name == "/dev/video7"
    assert isinstance(error, OSError) and "/dev/video7 gives no more images: is it still plugged in?" in str(error)
    assert webcam.released and webcam.buffer == 1


@pytest.mark.parametrize("damaged", [(9,), (8,), (9, 8, 7)], ids=["none_waits", "not_decoded", "three_fail"])
def test_a_camera_goes_on_after_a_damaged_image(monkeypatch, damaged):
    monkeypatch.setattr(cv2, "VideoCapture", Webcam(12, damaged))
    found = shots(Path("/dev/video7"), 0.5)
    assert [next(found)[0] for _ in range(3)] == [f"/dev/video7 image {number}" for number in (1, 2, 3)]


def test_a_pipe_is_an_error_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OSError, match="neither a file nor a folder: .*pipe.png"):
        shots(tmp_path / "pipe.png", 0.5)


def test_images_come_by_name_and_a_broken_one_as_an_error(tmp_path):
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 5, 3), np.uint8))
    (tmp_path / "c.png").write_bytes(b"broken")
    first, second, third = shots(tmp_path, 0.5)
    assert (first[0], second[0], third[0]) == ("a.png", "b.png", "c.png")
    assert first[1].shape == (4, 5, 3)
    assert isinstance(third[1], OSError)
    assert [name for name, _ in shots(tmp_path / "a.png", 0.5)] == ["a.png"]

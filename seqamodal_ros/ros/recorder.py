# SPDX-License-Identifier: Apache-2.0
"""Records what the node sees: a contact sheet a frame, layers.json, index.html, an MCAP bag; prints a row a frame."""

import fcntl
import json
import os
import shutil
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from seqamodal_ros.commands.arguments import complain
from seqamodal_ros.files import write_whole
from seqamodal_ros.messages import MessageTypes, image_rgb, message_to_scene, stamp_of, unstamped
from seqamodal_ros.ros.command_line import (
    WRONG_VALUES,
    Described,
    declared,
    only_ros_arguments,
    warn_of_unknown_parameters,
    with_defaults,
)
from seqamodal_ros.ros.service_guards import refuse_unknown_types
from seqamodal_ros.ros.signals import until_signalled
from seqamodal_ros.scene.captions import counted
from seqamodal_ros.scene.page import PAGE, Page
from seqamodal_ros.scene.pictures import contact_sheet, write_image
from seqamodal_ros.scene.report import COLUMNS, layers_json, row

PARAMETERS: Described = {"out": ("demo_out", "The folder, a new or empty one, or one of a recording, which is replaced.")}
KEPT_IMAGES = 30  # images that wait for their masks
QUIET = 0.5  # seconds without a message after which an interrupted recorder has heard all
CLOSE_WITHIN = 6.0  # seconds after which it closes its files even where messages keep coming


class Recorder(Node):
    """Subscribes `image`, `camera_info` and `seqamodal/layered_masks`; masks find their image by its stamp."""

    def __init__(self) -> None:
        super().__init__("recorder")
        out = declared(self, PARAMETERS, "out")
        warn_of_unknown_parameters(self)
        refuse_unknown_types(self)
        self.out = Path(out).expanduser()
        self._open_bag = bag_opener(self.out)
        self._bag: Any = None  # opened by the first masks: where none come, the recording of before stays
        self._waiting: deque[tuple[str, Any, int]] = deque(maxlen=2 * KEPT_IMAGES)  # what is heard until then
        self.frames: list[dict[str, Any]] = []
        self._page = Page()
        self.without_image = 0
        self._images: OrderedDict[tuple[int, int], Image] = OrderedDict()
        self.heard = 0  # messages
        qos = QoSProfile(depth=10)
        self._subscriptions_kept = [
            self.create_subscription(Image, "image", self._on_image, qos),
            self.create_subscription(CameraInfo, "camera_info", self._on_camera_info, qos),
            self.create_subscription(MessageTypes.ros().layered_masks, "seqamodal/layered_masks", self._on_masks, qos),
        ]

    def _write(self, topic: str, message: Any) -> None:
        self.heard += 1
        self._waiting.append((topic, message, time.time_ns()))
        while self._bag is not None and self._waiting:
            self._bag.write(*self._waiting.popleft())

    def _on_image(self, message: Image) -> None:
        self._write("/image", message)
        stamp = stamp_of(message.header)
        self._images.pop(stamp, None)  # a bag that is played again has the same stamps; the latest go last
        self._images[stamp] = message
        while len(self._images) > KEPT_IMAGES:
            self._images.popitem(last=False)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._write("/camera_info", message)

    def _on_masks(self, message: Any) -> None:
        if self._bag is None:
            self._bag = self._open_bag()
        self._write("/seqamodal/layered_masks", message)
        received = None if unstamped(message.header) else self._images.pop(stamp_of(message.header), None)
        if received is None:
            self.without_image += 1
            told = (
                f"masks came without their image (same stamp, of the last {KEPT_IMAGES}), or twice: is the camera that much "
                "faster than the node, or does another camera or perception node run here?"
            )
            if unstamped(message.header):
                told = "masks came without a stamp, so nothing tells of which image: let the driver set header.stamp."
            self.get_logger().error(f"{told} No contact sheet of this frame")
            return
        image, scene = image_rgb(received), message_to_scene(message)
        name = f"frame_{len(self.frames) + 1:03d}"
        write_image(self.out / f"{name}.png", contact_sheet(image, scene, name))
        self._page.add(name, image, scene)
        self.frames.append({"frame": name, "model_id": message.model_id, **layers_json(scene)})
        if len(self.frames) == 1:
            print(COLUMNS)
        print(row(name, scene), flush=True)

    def close(self) -> None:
        """Finish the bag; write layers.json and the page, each whether or not the others can be. Nothing where no masks came.

        Raises:
            OSError: something could not be written; a full disk, say.
        """
        if self._bag is None:
            return
        with ExitStack() as each:
            each.callback(self._page.write, self.out / PAGE)
            each.callback(write_whole, self.out / "layers.json", json.dumps(self.frames, indent=1, allow_nan=False).encode())
            each.callback(self._bag.close)


def bag_opener(out: Path) -> Callable[[], Any]:
    """Make the folder `out`; what is returned makes a new bag in it and clears away what an earlier recording left, nothing else.

    Raises:
        ImportError: rosbags is not installed; the message says how to install it.
        FileExistsError: it is no folder, holds something that no recorder wrote, or another recorder is writing there.
        OSError: the folder cannot be written.
    """
    try:
        from seqamodal_ros.ros.bag_writer import BagWriter
    except ImportError as error:
        raise ImportError(f"cannot import {error.name}: `pip install -r requirements/demo.txt`", name=error.name) from error
    marker = out / ".recording"
    if out.is_dir() and any(out.iterdir()) and not marker.is_file():
        raise FileExistsError(f"{out} holds files that are no recording: set the parameter 'out' to a new or empty folder")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is no folder: set the parameter 'out' to a new or empty one")
    out.mkdir(parents=True, exist_ok=True)
    held = os.open(marker, os.O_WRONLY | os.O_CREAT)  # a descriptor, which is not closed before the process ends
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileExistsError(f"another recording is written to {out}: set the parameter 'out' to another folder") from error
    marker.write_text("a recording of seqamodal_ros: the next one takes its place\n")

    def open_bag() -> BagWriter:
        for old in out.glob("frame_*.png"):
            if old.stem.removeprefix("frame_").isdecimal():  # others are somebody's own
                old.unlink()
        if (out / "bag").is_dir():
            shutil.rmtree(out / "bag")
        return BagWriter(out / "bag")

    return open_bag


def _hear_out(recorder: Recorder) -> None:
    """Record what is on its way, until none has come for a while; a picture that takes long to draw is no silence."""
    began = last = time.monotonic()
    while (now := time.monotonic()) - began < CLOSE_WITHIN and now - last < QUIET:
        heard = recorder.heard
        rclpy.spin_once(recorder, timeout_sec=QUIET)
        if recorder.heard > heard:
            last = time.monotonic()


def main() -> int:
    """Record until interrupted (SIGINT or SIGTERM), then hear out what is on its way and close the files.

    Returns 0 if frames were recorded and each had its picture, else 1.
    """
    only_ros_arguments("recorder", __doc__ or "", with_defaults(PARAMETERS))
    with until_signalled() as stop:
        try:
            recorder = Recorder()
        except (ImportError, OSError, *WRONG_VALUES) as error:
            complain(f"recorder: {error}")
            return 1
        return _record(recorder, stop)


def _record(recorder: Recorder, stop: list[int]) -> int:
    complete = True
    try:
        while not stop:
            rclpy.spin_once(recorder, timeout_sec=0.1)
        _hear_out(recorder)
    except (OSError, ValueError) as error:  # a full disk, a message that is not what it says
        complain(f"recorder: {error}")
        complete = False
    try:
        recorder.close()
    except OSError as error:
        complain(f"recorder: {error}")
        complete = False
    count = len(recorder.frames)
    if count:
        print(f"{counted(count, 'frame')} in {recorder.out}: contact sheets, layers.json, {PAGE}, bag/", flush=True)
    else:
        complain("recorder: no frame was recorded: is the perception node active, and does a camera send to it?")
    return 0 if complete and count and not recorder.without_image else 1


if __name__ == "__main__":
    sys.exit(main())

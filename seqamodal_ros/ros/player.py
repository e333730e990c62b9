# SPDX-License-Identifier: Apache-2.0
"""Plays a folder of images, with depth where it has some, a video or a camera; each image is sent when the last is answered."""

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import yaml
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from seqamodal_ros.commands.arguments import INTERRUPTED, complain
from seqamodal_ros.messages import MessageTypes, fill_image, stamp_of
from seqamodal_ros.ros.command_line import (
    WRONG_VALUES,
    Described,
    declared,
    only_ros_arguments,
    warn_of_unknown_parameters,
    with_defaults,
)
from seqamodal_ros.ros.service_guards import refuse_unknown_types
from seqamodal_ros.ros.signals import Signalled, ending_at_once, undisturbed, until_signalled
from seqamodal_ros.scene.geometry import LARGEST_SIDE
from seqamodal_ros.scene.image_files import DEPTH, find_images, read_depth
from seqamodal_ros.scene.sources import is_camera, shots
from seqamodal_ros.share import share_folder

PARAMETERS: Described = {
    "source": ("", "A folder of images, an image, a video, or a camera such as /dev/video0; empty: the sample frames."),
    "rate": (2.0, "Images a second at most, in (0, 1000]."),
    "loop": (False, "Begin again at the end of the source, until interrupted."),
    "listeners": (1, "How many must listen before the first image is sent, so that a recorder misses none."),
    "frame_id": ("camera_optical_frame", "Of the headers."),
}
SAY_AFTER = 3.0  # seconds after which it says what it waits for
FIND_WITHIN = 60.0  # seconds until a perception node must have been found
SEND_AGAIN_AFTER = 10.0  # seconds without an answer after which a frame counts as lost
SEND_AT_MOST = 3
STAMPS_KEPT = 100  # of the last images, to know their answers by


class PlayError(RuntimeError):
    """What keeps the player from playing, and what to do."""


class Player(Node):
    """Publishes `image`, `depth` and `camera_info`, waits on `seqamodal/layered_masks` for the answer to each."""

    def __init__(self) -> None:
        super().__init__("player")
        source = declared(self, PARAMETERS, "source")
        self.source = Path(source).expanduser() if source else share_folder("samples")
        rate = declared(self, PARAMETERS, "rate", dynamic_typing=True)  # 2 will do for 2.0
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1000:
            raise PlayError(f"parameter 'rate' must be in (0, 1000] images a second, not {rate!r}")
        self.period = 1 / rate
        self.listeners = declared(self, PARAMETERS, "listeners")
        self.frame_id = declared(self, PARAMETERS, "frame_id")
        self.loop = declared(self, PARAMETERS, "loop")
        warn_of_unknown_parameters(self)
        refuse_unknown_types(self)
        self.endless = self.loop or is_camera(self.source)
        self._shots = shots(self.source, self.period)
        self._camera_info = read_camera_info(self.source / "camera_info.yaml")
        self._images = self.create_publisher(Image, "image", QoSProfile(depth=1))
        self._infos = self.create_publisher(CameraInfo, "camera_info", QoSProfile(depth=1))
        self._depth_folder = self.source / DEPTH
        self._depths = self.create_publisher(Image, "depth", QoSProfile(depth=1)) if self._depth_folder.is_dir() else None
        if self._depths is not None and not any(self._depth_path(image.name).is_file() for image in find_images([self.source])):
            self.get_logger().warning(f"no image of {self.source} has depth in {self._depth_folder}: of NAME.jpg it is NAME.png")
        masks = MessageTypes.ros().layered_masks
        self._masks = self.create_subscription(masks, "seqamodal/layered_masks", self._on_masks, QoSProfile(depth=5))
        self._sent: deque[tuple[int, int]] = deque(maxlen=STAMPS_KEPT)
        self._answered: deque[tuple[int, int]] = deque(maxlen=STAMPS_KEPT)
        self._stranger = ""  # what tells that another node or player is at work here
        self._diagnostics = self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=5))
        self._problem = ""  # of the node that is to answer

    def play(self) -> int:
        """Send every image and wait for its answer; returns how many errors the source had: images, depth, a part of a video.

        Raises:
            PlayError: no perception node was found, it says what keeps it from answering, it does not answer, or another one, or
                another camera, is at work here.
        """
        self._wait_for_node()
        played, unreadable = self._play_once()
        while self.loop and played and not is_camera(self.source):
            self._shots = shots(self.source, self.period)
            played, unreadable = self._play_once()
        return unreadable

    def _play_once(self) -> tuple[int, int]:
        """How many images were sent, and the errors."""
        played = unreadable = 0
        for name, pixels in self._shots:
            if isinstance(pixels, OSError):
                self.get_logger().error(str(pixels))
                unreadable += 1
                continue
            depth = None
            try:
                depth = self._depth_of(name, pixels)
            except OSError as error:
                self.get_logger().error(f"{error}; {name} is sent without depth")
                unreadable += 1
            began = time.monotonic()
            self._send(pixels, depth, name)
            played += 1
            self._spin_until(lambda: False, began + self.period - time.monotonic())
        return played, unreadable

    def _depth_of(self, name: str, pixels: np.ndarray) -> np.ndarray | None:
        """uint16 [H, W], millimetres, of a folder's image; None where it has no depth image.

        Raises:
            OSError: it cannot be read, or is of another size.
        """
        path = self._depth_path(name)
        if self._depths is None or not path.is_file():
            return None
        depth = read_depth(path)
        if depth.shape != pixels.shape[:2]:
            sides = [f"{each.shape[1]}x{each.shape[0]}" for each in (depth, pixels)]
            raise OSError(f"{path} has {sides[0]} pixels, its image {sides[1]}: give depth that is registered to the image")
        return depth

    def _depth_path(self, name: str) -> Path:
        return self._depth_folder / f"{Path(name).stem}.png"

    def _send(self, pixels: np.ndarray, depth: np.ndarray | None, name: str) -> None:
        sent: set[tuple[int, int]] = set()
        for attempt in range(1, SEND_AT_MOST + 1):
            if attempt > 1:
                again = f"sending it again ({attempt} of {SEND_AT_MOST})"
                self.get_logger().warning(f"no answer to {name} in {SEND_AGAIN_AFTER:.0f} s; {again}")
            message = fill_image(Image(), pixels, "rgb8", Image().header)
            message.header.frame_id = self.frame_id
            message.header.stamp = self._new_stamp()
            sent.add(stamp := stamp_of(message.header))
            self._sent.append(stamp)
            with undisturbed():
                if depth is not None and self._depths is not None:
                    self._depths.publish(fill_image(Image(), depth, "16UC1", message.header))
                self._images.publish(message)
                if self._camera_info is not None:
                    self._camera_info.header = message.header
                    self._infos.publish(self._camera_info)
            if self._spin_until(lambda: not sent.isdisjoint(self._answered), SEND_AGAIN_AFTER):  # a late answer counts too
                return
        raise PlayError(f"no answer to {name}: is the perception node active, and does its log show an error?")

    def _new_stamp(self) -> Time:
        """The time, or just after the last stamp where a simulation's clock stands still: answers are known by their stamps."""
        now = self.get_clock().now().nanoseconds
        seconds, nanoseconds = self._sent[-1] if self._sent else (0, 0)
        return rclpy.time.Time(nanoseconds=max(now, seconds * 10**9 + nanoseconds + 1)).to_msg()

    def _wait_for_node(self) -> None:
        def found() -> bool:
            if self._problem:
                raise PlayError(f"the perception node says: {self._problem}")
            return self._images.get_subscription_count() >= self.listeners and self.count_publishers(self._masks.topic_name) > 0

        if self._spin_until(found, SAY_AFTER):
            return
        listening, answering = self._images.get_subscription_count(), self.count_publishers(self._masks.topic_name)
        heard = f"{listening} of {self.listeners} listen on '{self._images.topic_name}'"
        self.get_logger().info(f"waiting: {heard}, {answering} publish '{self._masks.topic_name}'")
        if not self._spin_until(found, FIND_WITHIN - SAY_AFTER):
            missing = f"no perception node found on '{self._images.topic_name}' within {FIND_WITHIN:.0f} s"
            raise PlayError(f"{missing}: start one, or see in its log why it is not active")

    def _spin_until(self, done: Callable[[], bool], seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not (finished := done()) and time.monotonic() < until:
            with undisturbed():
                rclpy.spin_once(self, timeout_sec=min(0.05, max(0.0, until - time.monotonic())))
            if self._stranger:
                raise PlayError(f"{self._stranger}: end the other camera or perception node, or set another ROS_DOMAIN_ID")
        return finished

    def _on_masks(self, message: Any) -> None:
        stamp = stamp_of(message.header)
        if not self._sent or stamp < self._sent[0]:
            return  # of before this player
        if stamp not in self._sent:
            self._stranger = "masks come of images that this player did not send"
        elif stamp in self._answered:
            self._stranger = "one image was answered twice"
        self._answered.append(stamp)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        node = self._masks.topic_name.rpartition("/")[0]
        for status in message.status:
            if status.name == node:  # one that ends itself to be started again is an error, too
                failed = status.level == DiagnosticStatus.ERROR and "cannot configure" in status.message
                self._problem = status.message if failed else ""


def read_camera_info(path: Path) -> CameraInfo | None:
    """A CameraInfo from the YAML that camera_calibration writes; None where there is none.

    Raises:
        PlayError: the file is not what camera_calibration writes.
    """
    if not path.is_file():
        return None
    try:
        return _camera_info(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise PlayError(f"{path} is not what camera_calibration writes ({error!r}): mend it or take it away") from error


def _camera_info(values: dict[str, Any]) -> CameraInfo:
    sides = [values[f"image_{side}"] for side in ("width", "height")]
    if any(type(side) is not int or not 0 < side <= LARGEST_SIDE for side in sides):  # a message takes it, and cannot be sent
        raise ValueError(f"image_width and image_height must be whole numbers in 1..{LARGEST_SIDE}, not {sides}")
    model = values["distortion_model"]
    if not isinstance(model, str):
        raise ValueError(f"distortion_model must be a name, not {model!r}")
    info = CameraInfo(width=sides[0], height=sides[1], distortion_model=model)
    info.d = _numbers(values, "distortion_coefficients")
    info.k = _numbers(values, "camera_matrix", 9)
    info.r = _numbers(values, "rectification_matrix", 9)
    info.p = _numbers(values, "projection_matrix", 12)
    return info


def _numbers(values: dict[str, Any], name: str, count: int | None = None) -> list[float]:
    numbers = [float(value) for value in values[name]["data"]]
    if count not in (None, len(numbers)):
        raise ValueError(f"{name} must hold {count} numbers, not {len(numbers)}")
    return numbers


def main() -> int:
    """Play the source and end: 0 when all was answered, 1 with one line that says what went wrong; 130 where interrupted,
    or 0 then of a camera, which has no end of its own."""
    only_ros_arguments("player", __doc__ or "", with_defaults(PARAMETERS))
    endless = False
    with until_signalled():
        try:
            with ending_at_once():
                player = Player()
                endless = player.endless
                unreadable = player.play()
                if unreadable:
                    player.get_logger().error(f"not all of the source could be read; errors above: {unreadable}")
                return 1 if unreadable else 0
        except (PlayError, OSError, ImportError, *WRONG_VALUES) as error:
            complain(f"player: {error}")
            return 1
        except Signalled:
            return 0 if endless else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

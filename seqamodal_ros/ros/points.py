# SPDX-License-Identifier: Apache-2.0
"""The topic `~/points`: the visible pixels of each object in space, where a depth image and camera_info come."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSPolicyKind, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from seqamodal_ros.clouds import MAX_SKEW, keep_latest, registered, scene_cloud, seconds_apart
from seqamodal_ros.messages import InvalidMessage, unstamped
from seqamodal_ros.ros.quality import publishers_of, sent_before
from seqamodal_ros.ros.worker import Frame
from seqamodal_ros.scene.scene import LayeredScene

KEPT_DEPTHS = 10  # images at most, see `keep_latest`; the one that fits comes soon before or after its colour image
DEPTH_WITHIN = 0.5  # seconds that an answer waits for the depth image of its stamp; of a still scene it is there first
LOOKED_EVERY = 0.1  # seconds


class DepthMatch:
    """Of the depth images that have come so far, the one whose stamp is nearest to a header's; None before any has."""

    def __init__(self, header: Any):
        self._header = header
        self.depth: Image | None = None
        self._apart = math.inf
        self.passed = False  # one of the header's stamp or of soon after it has come, so none that comes is nearer

    def offer(self, depth: Image) -> None:
        """A depth image that has come."""
        later = seconds_apart(depth.header.stamp, self._header.stamp)
        self.passed |= 0 <= later < DEPTH_WITHIN  # much later ones are of before a jump in time
        if abs(later) <= self._apart:  # of equal ones the newer: a simulation that began anew comes by the same stamps
            self.depth, self._apart = depth, abs(later)


class Waiting(NamedTuple):
    """An answer whose cloud is due once its depth image has come."""

    frame: Frame
    scene: LayeredScene
    label: np.ndarray
    until: float  # of the monotonic clock, when what has come by then must do


class Points:
    """Keeps the latest depth images and camera_info; makes a cloud of each answer while someone listens.

    Args:
        node: that it belongs to.
        prefix: comes before each topic's name.
        refused: hears why an answer gets no cloud.
    """

    def __init__(self, node: LifecycleNode, prefix: str, refused: Callable[[InvalidMessage], None]):
        self._node, self._refused = node, refused
        self._waiting: list[Waiting] = []  # oldest first
        self._timer = node.create_timer(LOOKED_EVERY, self._settle, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()
        overrides = QoSOverridingOptions.with_default_policies()
        self._publisher = node.create_lifecycle_publisher(PointCloud2, f"~/{prefix}points", 1, qos_overriding_options=overrides)
        self._depths: deque[Image] = deque(maxlen=KEPT_DEPTHS)
        self._stamp: Time | None = None  # of the image that was matched last
        # of frames that wait or are at work; no WeakSet, from which the worker's thread would take them while they are looked at
        self._matches: list[ref[DepthMatch]] = []
        self._info: CameraInfo | None = None
        latched = QoSOverridingOptions(
            [*overrides.policy_kinds, QoSPolicyKind.DURABILITY]
        )  # a camera's info may be published once for all
        self._depth, self._camera_info = [
            node.create_subscription(kind, f"{prefix}{name}", heard, _of_sensors(), qos_overriding_options=options)
            for kind, name, heard, options in (
                (Image, "depth", self._on_depth, overrides),
                (CameraInfo, "camera_info", self._on_camera_info, latched),
            )
        ]

    @property
    def wanted(self) -> bool:
        """Whether someone listens, while the node is active."""
        return self._publisher.is_activated and bool(self._publisher.get_subscription_count())

    def match(self, header: Any) -> DepthMatch:
        """For the image of this header; it goes on for as long as someone holds it, as inference may take longer than
        depth images are kept, and the one that fits may come after its colour image.
        """
        if not unstamped(header):
            before, self._stamp = self._stamp, header.stamp
            back = seconds_apart(before, header.stamp) if before is not None else 0.0
            # a simulation began anew, and depth has not yet: the last one's stamp is nearer to the image of before
            if back > MAX_SKEW and self._depths and seconds_apart(self._depths[-1].header.stamp, header.stamp) > back / 2:
                self._depths.clear()
        found = DepthMatch(header)
        for depth in self._depths:
            found.offer(depth)
        self._matches = [each for each in self._matches if each() is not None] + [ref(found)]
        return found

    def publish(self, frame: Frame, scene: LayeredScene, label: np.ndarray) -> None:
        """Send the cloud of an answer: now, or once the depth image of its stamp has come, which may take longer than inference.

        Args:
            frame: its `depth` holds the depth image that fits best so far.
            scene, label: the answer's.
        """
        self._waiting.append(Waiting(frame, scene, label, time.monotonic() + DEPTH_WITHIN))
        self._settle()

    def forget(self) -> None:
        """Make no cloud of what waits for its depth image, nor of depth images that came before now."""
        self._waiting.clear()
        self._depths.clear()
        self._timer.cancel()

    def _settle(self) -> None:
        """Send what need not wait, and go on looking while something does."""
        now = time.monotonic()
        hopeless = self._info is None or not self._node.count_publishers(self._depth.topic_name)
        due: list[Waiting] = []
        waiting: list[Waiting] = []
        for each in self._waiting:
            (due if hopeless or each.frame.depth.passed or each.until <= now else waiting).append(each)
        self._waiting = waiting[-KEPT_DEPTHS:]  # images are large
        for each in waiting[:-KEPT_DEPTHS] + due:
            try:
                self._send(*each[:3])
            except InvalidMessage as error:
                self._refused(error)
        if not self._waiting:
            self._timer.cancel()
        elif self._timer.is_canceled():
            self._timer.reset()

    def _send(self, frame: Frame, scene: LayeredScene, label: np.ndarray) -> None:
        """Send the cloud of an answer.

        Raises:
            InvalidMessage: no depth image or camera_info fits the image; the text says which and why.
        """
        if self._info is None:
            raise InvalidMessage(self._missing("camera_info", self._camera_info))
        if frame.depth.depth is None:
            raise InvalidMessage(self._missing("depth image", self._depth))
        header, image = frame.header, frame.image
        height, width = image.shape[:2]
        message = _fitting(frame.depth.depth, header, frame.max_depth_skew)
        depth, camera = registered(header, message, self._info, width, height)
        cloud = PointCloud2(header=header)
        self._publisher.publish(scene_cloud(scene, label, image, depth, camera, cloud, PointField))

    def _missing(self, what: str, subscription: Subscription) -> str:
        """That none has come, and why: whom of those who publish it this node cannot hear, or who sent it before it listened."""
        publishers, refused = publishers_of(self._node, subscription)
        if not publishers:
            return f"no {what} has come: nobody publishes {subscription.topic_name}"
        return "; ".join([f"no {what} has come", *refused, *sent_before(self._node, subscription)])

    def destroy(self) -> None:
        """Take the topics away."""
        self._node.destroy_timer(self._timer)
        for subscription in (self._depth, self._camera_info):
            self._node.destroy_subscription(subscription)
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _on_depth(self, message: Image) -> None:
        if self.wanted:
            keep_latest(self._depths, message)
            for each in self._matches:
                if match := each():
                    match.offer(message)
            if self._waiting:  # or each depth image would ask for publishers
                self._settle()
        else:
            self._depths.clear()

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._info = message


def _of_sensors() -> QoSProfile:
    """As `qos_profile_sensor_data`, anew for each subscription: rclpy writes what parameters override into it."""
    return QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)


def _fitting(depth: Image, header: Any, max_skew: float) -> Image:
    """The depth image, or InvalidMessage where it is not, or nobody knows whether it is, of about the time of this header."""
    if unstamped(header):
        raise InvalidMessage("the image has no stamp, so no depth image is known to be of its time: let the driver set it")
    apart = seconds_apart(depth.header.stamp, header.stamp)
    if abs(apart) > max_skew:
        raise InvalidMessage(f"the nearest depth image is {apart:+.3f} s from the image, more than max_depth_skew")
    return depth

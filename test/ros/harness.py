# SPDX-License-Identifier: Apache-2.0
"""What tests of the node share: a peer that is camera and consumer, and a bench that runs node and peer on threads."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from seqamodal_msgs.msg import LayeredMasks
from seqamodal_ros.messages import fill_image
from seqamodal_ros.ros.camera import Camera
from seqamodal_ros.ros.perception_node import PerceptionNode

WITHIN = 20.0  # seconds; a slow machine is no failure


class Peer(Node):
    """A camera and a consumer: publishes on `image`, keeps the masks that come back."""

    def __init__(self, context: rclpy.Context, name: str = "peer"):
        super().__init__(name, context=context)
        self.masks: list[LayeredMasks] = []
        self.images = self.create_publisher(Image, "image", QoSProfile(depth=1))
        to_masks = LayeredMasks, "seqamodal/layered_masks", self.masks.append, QoSProfile(depth=10)
        self.masks_subscription = self.create_subscription(*to_masks)

    def send(self, stamp: int = 1, **changes: Any) -> Image:
        """Publish a valid 64x48 rgb8 image, with some fields changed."""
        message = image_message(stamp)
        for field, value in changes.items():
            setattr(message, field, value)
        self.images.publish(message)
        return message


def image_message(stamp: int = 1) -> Image:
    """A valid 64x48 rgb8 image of noise."""
    pixels = np.random.default_rng(stamp).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    message = fill_image(Image(), pixels, "rgb8", Image().header)
    message.header.frame_id = "camera_optical_frame"
    message.header.stamp.sec = stamp
    message.header.stamp.nanosec = 999_999_999
    return message


class Bench:
    """A node under test and its peer, each spun by a thread of its own."""

    def __init__(self, cli_args: list[str] | None = None, **parameters: Any):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = PerceptionNode(context=self.context, cli_args=cli_args, parameter_overrides=overrides)
        self.peer = Peer(self.context)
        self._threads = []
        self._executors = []
        self.node.autostart()
        for node in (self.node, self.peer):
            executor = SingleThreadedExecutor(context=self.context)
            executor.add_node(node)
            thread = threading.Thread(target=executor.spin, daemon=True)
            thread.start()
            self._executors.append(executor)
            self._threads.append(thread)

    @property
    def camera(self) -> Camera:
        """The only one."""
        (camera,) = self.node.cameras.values()
        return camera

    def wait(self, condition: Callable[[], bool], seconds: float = WITHIN) -> bool:
        """Whether `condition` came true in time."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def said(self) -> str:
        """What the process has said on stderr, which the bench's fixture catches in a file.

        The file is read where it lies, as capfd.readouterr() empties it: what a thread writes meanwhile would be lost.
        """
        return os.pread(2, os.fstat(2).st_size, 0).decode(errors="replace")

    def says(self, *words: str) -> bool:
        """Whether the process came to say all the words on stderr."""
        return self.wait(lambda: all(word in self.said() for word in words))

    def connected(self) -> None:
        """Wait until node and peer have found one another."""
        assert self.wait(lambda: self.peer.images.get_subscription_count() > 0)
        assert self.wait(lambda: self.peer.count_publishers("seqamodal/layered_masks") > 0)
        assert self.wait(lambda: any(camera.outputs.wanted for camera in self.node.cameras.values()))

    def close(self) -> None:
        for executor in self._executors:
            executor.shutdown()
        for thread in self._threads:
            thread.join(5)
        self.peer.destroy_node()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


class DepthCamera:
    """Publishes depth (on a topic to which the node's is remapped, if given) and camera_info, and hears the node's clouds."""

    def __init__(self, b: Bench, depth: str = "depth"):
        self.bench = b
        self.clouds: list[PointCloud2] = []
        self.depths = b.peer.create_publisher(Image, depth, 5)
        self.infos = b.peer.create_publisher(CameraInfo, "camera_info", 5)
        b.peer.create_subscription(PointCloud2, "seqamodal/points", self.clouds.append, 5)
        assert b.wait(lambda: self.depths.get_subscription_count() and self.infos.get_subscription_count())
        assert b.wait(lambda: b.camera.points.wanted)
        b.connected()

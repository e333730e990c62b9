# SPDX-License-Identifier: Apache-2.0
"""The node's topics: what of an answer goes where."""

from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image

from seqamodal_ros.messages import MessageTypes, fill_image, scene_to_message
from seqamodal_ros.ros.worker import Answer, Frame
from seqamodal_ros.scene.scene import LayeredScene


class Outputs:
    """`~/layered_masks`; and `~/label` and `~/overlay`, each of which is made only while someone listens to it.

    `prefix` comes before each name.
    """

    def __init__(self, node: LifecycleNode, prefix: str, types: MessageTypes, model_id: str):
        self._node, self._types, self._model_id = node, types, model_id

        def publisher(kind: Any, name: str, depth: int) -> Any:
            overrides = QoSOverridingOptions.with_default_policies()
            return node.create_lifecycle_publisher(kind, f"~/{prefix}{name}", depth, qos_overriding_options=overrides)

        self._masks = publisher(types.layered_masks, "layered_masks", 5)
        self._label = publisher(Image, "label", 5)
        self._overlay = publisher(Image, "overlay", 1)

    @property
    def topic(self) -> str:
        """The name of `~/layered_masks` in full."""
        return str(self._masks.topic_name)

    @property
    def wanted(self) -> bool:
        """Whether someone listens to any of these three."""
        return bool(self._masks.get_subscription_count()) or self.label_wanted or self.overlay_wanted

    @property
    def label_wanted(self) -> bool:
        """Whether someone listens to `~/label`."""
        return bool(self._label.get_subscription_count())

    @property
    def overlay_wanted(self) -> bool:
        """Whether someone listens to `~/overlay`."""
        return bool(self._overlay.get_subscription_count())

    def message(self, frame: Frame, scene: LayeredScene) -> Any:
        """LayeredMasks of a frame's scene, with the image's own header."""
        return scene_to_message(scene, frame.header, self._model_id, self._types, frame.hypotheses)

    def publish(self, answer: Answer, scene: LayeredScene) -> None:
        """Send an answer's scene, and the label image if one was made of it."""
        header = answer.frame.header
        self._masks.publish(self.message(answer.frame, scene))
        if answer.label is not None:
            self._label.publish(fill_image(Image(), answer.label, "mono16", header))

    def publish_overlay(self, frame: Frame, overlay: np.ndarray) -> None:
        """Send a frame's overlay, uint8 [H, W, 3]."""
        self._overlay.publish(fill_image(Image(), overlay, "rgb8", frame.header))

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in (self._masks, self._label, self._overlay):
            self._node.destroy_lifecycle_publisher(publisher)

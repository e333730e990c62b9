# SPDX-License-Identifier: Apache-2.0
"""Images from serialized messages, and LayeredMasks to them, without ROS."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from seqamodal_ros.messages import InvalidMessage, MessageTypes, compressed_rgb, image_rgb, scene_to_message
from seqamodal_ros.scene.scene import LayeredScene
from seqamodal_ros.share import share_folder

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
LAYERED_MASKS = "seqamodal_msgs/msg/LayeredMasks"


class _Fields(SimpleNamespace):
    """A message by its fields alone, with numbers in arrays of their type, as rosbags serializes them."""

    _NUMBERS = {"data": np.uint8, "occluded_by": np.uint16, "pick_order": np.uint16}

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, np.asarray(value, self._NUMBERS[name]) if name in self._NUMBERS else value)


class Codec:
    """Images from serialized messages, and LayeredMasks to them.

    Attributes:
        store: rosbags' types, ours among them.
        digest: the type hash of LayeredMasks.

    Raises:
        ImportError: rosbags is not installed; the message says how to install it.
        FileNotFoundError: the definitions of our messages are not there; the message says how to get them.
    """

    _TYPES = MessageTypes(*[_Fields] * 6)

    def __init__(self) -> None:
        try:
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        except ImportError as error:
            missing = f"cannot import {error.name}: `pip install rosbags==0.11.9`, or all of requirements/demo.txt"
            raise ImportError(missing, name=error.name) from error
        self.store = get_typestore(Stores.LATEST)
        for path in sorted((share_folder("seqamodal_msgs") / "msg").glob("*.msg")):
            self.store.register(get_types_from_msg(path.read_text(), f"seqamodal_msgs/msg/{path.stem}"))
        self.digest: str = self.store.hash_rihs01(LAYERED_MASKS)

    def image(self, raw: bytes, kind: str) -> tuple[Any, np.ndarray]:
        """Header and uint8 [H, W, 3] RGB of a serialized image message of the type `kind`.

        Raises:
            InvalidMessage: the bytes are no such message, or the message holds no colour or grey image.
        """
        from rosbags.serde import SerdeError

        try:
            message: Any = self.store.deserialize_cdr(raw, kind)
        except (SerdeError, IndexError) as error:
            raise InvalidMessage(f"bytes that are no {kind}") from error
        return message.header, image_rgb(message) if kind == IMAGE else compressed_rgb(message)

    def masks(self, scene: LayeredScene, header: Any, model_id: str, hypotheses: bool) -> bytes:
        """Serialized LayeredMasks; see `scene_to_message`."""
        message = scene_to_message(scene, header, model_id, self._TYPES, hypotheses)
        return bytes(self.store.serialize_cdr(message, LAYERED_MASKS))

# SPDX-License-Identifier: Apache-2.0
"""Images of messages: checked at the door, on the executor's thread, and made by the worker, if it takes them; those of
cv_bridge at the door.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from seqamodal_ros.messages import COLOURS, compressed_rgb, compressed_size, image_rgb, image_size
from seqamodal_ros.ros.worker import Source

Size = tuple[int, int]  # width, height


def raw_image(message: Any) -> tuple[Source, Size]:
    """What makes the image of a sensor_msgs/Image, and its size.

    Raises:
        InvalidMessage: see `image_rgb`.
    """
    if message.encoding in COLOURS:
        return _made_once(image_rgb, message), image_size(message)
    image = image_rgb(message)  # by cv_bridge, which alone knows whether it can be used
    return image, image.shape[1::-1]


def compressed_image(message: Any) -> tuple[Source, Size]:
    """What makes the image of a sensor_msgs/CompressedImage, and its size; what makes it raises as `compressed_rgb` does.

    Raises:
        InvalidMessage: see `compressed_size`.
    """
    return _made_once(compressed_rgb, message), compressed_size(message)


def _made_once(convert: Callable[[Any], np.ndarray], message: Any) -> Callable[[], np.ndarray]:
    """Makes the image of a message, and keeps it in the message's place."""
    held = [message]

    @cache
    def make() -> np.ndarray:
        image = convert(held[0])
        held.clear()
        return image

    return make

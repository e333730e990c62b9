# SPDX-License-Identifier: Apache-2.0
"""The images that are measured on; without torch, which a camera's process has no use for."""

import numpy as np

from seqamodal_ros.scene.image_files import find_images, read_image
from seqamodal_ros.share import share_folder


def frames() -> list[np.ndarray]:
    """The sample frames, uint8 [480, 640, 3] RGB."""
    return [read_image(path) for path in find_images([share_folder("samples")])]

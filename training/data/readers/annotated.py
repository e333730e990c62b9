# SPDX-License-Identifier: Apache-2.0
"""An image with its objects as a dataset tells them, and who occludes whom, from whichever of several hints it gives."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from seqamodal_ros.scene.layers import occlusions
from training.data.scene import Rejected


@dataclass(frozen=True)
class Annotated:
    """One annotated image at its own size; at least one of `layers`, `order` and `visible` tells what lies in front.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        amodal: bool [N, H, W].
        visible: bool [N, H, W], or None.
        layers: int64 [N] from 1, the layer of each object, or None.
        order: int64 [N], a rank, lower in front, or None.
    """

    image: np.ndarray
    amodal: np.ndarray
    visible: np.ndarray | None = None
    layers: np.ndarray | None = None
    order: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.layers is None and self.order is None and self.visible is None:
            raise ValueError("nothing tells which object lies in front: give layers, an order or visible masks")


Load = Callable[[], Annotated]  # reads an image when it is its turn, or raises Rejected


def occluders(scene: Annotated) -> np.ndarray:
    """Z of Eq. 1: bool [N, N], object i is occluded by j.

    Two objects that share a pixel are ordered by their layers; else by their order; else by whose visible mask holds more of
    what they share, as the one in front is the one that shows there.
    """
    if scene.layers is not None:
        return _from_layers(scene.amodal, scene.layers)
    if scene.order is not None:
        return occlusions(scene.amodal, scene.order)
    assert scene.visible is not None  # Annotated holds one of the three
    amodal, visible = (_flat(masks) for masks in (scene.amodal, scene.visible))
    shows = visible @ amodal.T  # [i, j]: pixels of j at which i shows
    return shows < shows.T


def _flat(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(len(masks), -1).astype(np.float32)


def _from_layers(amodal: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Occluders that give these layers by Eq. 2: whatever shares a pixel and lies in an earlier layer.

    Where none of them lies in the layer just before, the nearest object of that layer is added, as Eq. 2 says that there is one
    and masks that were drawn by hand, or made smaller, may have lost the pixel.

    Raises:
        Rejected: a layer is empty and a deeper one is not.
    """
    occluded_by = occlusions(amodal, layers)
    centres = np.array([np.argwhere(mask).mean(axis=0) for mask in amodal])
    for i in np.flatnonzero(layers > 1):
        before = layers == layers[i] - 1
        if not before.any():
            raise Rejected("a layer is missing")
        if not (occluded_by[i] & before).any():
            distance = np.linalg.norm(centres - centres[i], axis=1)
            occluded_by[i, np.argmin(np.where(before, distance, np.inf))] = True
    return occluded_by

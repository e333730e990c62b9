# SPDX-License-Identifier: Apache-2.0
"""A scene with its truth, as networks are trained and measured on, and the rules that it has to keep."""

from dataclasses import dataclass

import numpy as np

from seqamodal_ros.scene.layers import layer_indices, layer_masks


class Rejected(Exception):
    """A scene that breaks a rule or cannot be read; the message is the reason in few words, for counting."""


@dataclass(frozen=True)
class Scene:
    """One image and what is in it.

    Attributes:
        image: uint8 [S, S, 3] RGB.
        amodal: bool [N, h, w], amodal mask of each object, nearest layer first.
        occluded_by: bool [N, N], Z of Eq. 1.
    """

    image: np.ndarray
    amodal: np.ndarray
    occluded_by: np.ndarray

    @property
    def layers(self) -> np.ndarray:
        """bool [L, h, w], the amodal mask of each layer, front first (Eq. 2)."""
        return layer_masks(self.amodal, layer_indices(self.occluded_by))

    @property
    def visible(self) -> np.ndarray:
        """bool [N, h, w], the visible mask of each object."""
        return uncovered(self.amodal, self.occluded_by)


def uncovered(amodal: np.ndarray, occluded_by: np.ndarray) -> np.ndarray:
    """Each object minus its occluders: bool [N, h, w] from bool [N, h, w] and Z of Eq. 1, bool [N, N]."""
    pairs = zip(amodal, occluded_by, strict=True)
    return np.array([mask & ~amodal[row].any(axis=0) for mask, row in pairs], bool).reshape(amodal.shape)


def layers_of(occluded_by: np.ndarray) -> np.ndarray:
    """L of Eq. 2, int [N]; `Rejected` where objects occlude one another in a cycle."""
    try:
        return layer_indices(occluded_by)
    except ValueError:
        raise Rejected("occlusion cycle") from None


def nearest_first(amodal: np.ndarray, occluded_by: np.ndarray, max_layers: int, area_min: int) -> tuple[np.ndarray, np.ndarray]:
    """The same objects, nearest layer first, once they keep the rules of Section 5.1.

    Args:
        amodal: bool [N, h, w] at the size of the masks.
        occluded_by: bool [N, N], Z of Eq. 1.
        max_layers: how many layers a scene may have.
        area_min: how many pixels each object must show.

    Raises:
        Rejected: there is no object, a rule is broken, or they occlude one another in a cycle.
    """
    if not len(amodal):
        raise Rejected("no object")
    layers = layers_of(occluded_by)
    if layers.max() > max_layers:
        raise Rejected(f"more than {max_layers} layers")
    if uncovered(amodal, occluded_by).sum(axis=(1, 2)).min() < area_min:
        raise Rejected(f"an object shows fewer than {area_min} pixels")
    order = np.argsort(layers, kind="stable")
    return amodal[order], occluded_by[np.ix_(order, order)]

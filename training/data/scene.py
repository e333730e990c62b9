# SPDX-License-Identifier: Apache-2.0
"""A scene with its truth, as networks are trained and measured on, and the rules that it has to keep."""

from dataclasses import dataclass

import numpy as np

from seqamodal_ros.scene.layers import layer_indices, layer_masks
from training.data.ranges import check_not_negative

SPLITS = ("train", "val", "test", "unseen")  # what a set of scenes is for


class Rejected(Exception):
    """A scene that breaks a rule or cannot be read; the message is the reason in few words, for counting."""


@dataclass(frozen=True)
class Scene:
    """One image and what is in it.

    Attributes:
        image: uint8 [S, S, 3] RGB.
        amodal: bool [N, h, w], amodal mask of each object, nearest layer first.
        occluded_by: bool [N, N], Z of Eq. 1.
        depth: uint16 [S, S], millimetres along the optical axis, 0 where unknown; None where there is none.
    """

    image: np.ndarray
    amodal: np.ndarray
    occluded_by: np.ndarray
    depth: np.ndarray | None = None

    @property
    def layers(self) -> np.ndarray:
        """bool [L, h, w], the amodal mask of each layer, front first (Eq. 2)."""
        return layer_masks(self.amodal, layer_indices(self.occluded_by))

    @property
    def visible(self) -> np.ndarray:
        """bool [N, h, w], the visible mask of each object."""
        return uncovered(self.amodal, self.occluded_by)


def metres_of(depth: np.ndarray) -> np.ndarray:
    """float32 [H, W], NaN where unknown, from uint16 [H, W], millimetres, 0 where unknown (REP 118)."""
    return np.where(depth > 0, depth / np.float32(1000), np.float32(np.nan))


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


@dataclass(frozen=True)
class SceneRules:
    """What every scene keeps to, wherever it comes from.

    Attributes:
        image_size: side of the image, pixels.
        mask_size: side of the masks, pixels.
        max_layers: scenes that are deeper are left out.
        area_min: scenes in which an object shows fewer visible mask pixels are left out (Section 5.1).
    """

    image_size: int = 256
    mask_size: int = 64
    max_layers: int = 5
    area_min: int = 10

    def __post_init__(self) -> None:
        check_not_negative(self, "area_min")

    def check(self, amodal: np.ndarray, occluded_by: np.ndarray) -> np.ndarray:
        """L of Eq. 2, int [N], of N >= 0 objects that keep the rules.

        Args:
            amodal: bool [N, h, w] at the size of the masks.
            occluded_by: bool [N, N], Z of Eq. 1.

        Raises:
            Rejected: a rule is broken, or they occlude one another in a cycle.
        """
        layers = layers_of(occluded_by)
        if len(layers) and layers.max() > self.max_layers:
            raise Rejected(f"more than {self.max_layers} layers")
        if (uncovered(amodal, occluded_by).sum(axis=(1, 2)) < self.area_min).any():
            raise Rejected(f"an object shows fewer than {self.area_min} pixels")
        return layers


def nearest_first(amodal: np.ndarray, occluded_by: np.ndarray, rules: SceneRules) -> tuple[np.ndarray, np.ndarray]:
    """The same objects, nearest layer first, once they keep the rules; see `SceneRules.check`.

    Raises:
        Rejected: there is no object, a rule is broken, or they occlude one another in a cycle.
    """
    if not len(amodal):
        raise Rejected("no object")
    layers = rules.check(amodal, occluded_by)
    order = np.argsort(layers, kind="stable")
    return amodal[order], occluded_by[np.ix_(order, order)]

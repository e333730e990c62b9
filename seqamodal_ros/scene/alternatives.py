# SPDX-License-Identifier: Apache-2.0
"""What each hypothesis of a layer says of one object: its shape, and what lies on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from seqamodal_ros.scene.scene import SceneObject


def object_hypotheses(objects: Sequence[SceneObject], hypotheses: np.ndarray) -> dict[int, np.ndarray]:
    """Of each object, by its id, its mask in each hypothesis of its layer: bool [K, h, w].

    A pixel of a hypothesis belongs to the nearest of the layer's objects that its connected part of the hypothesis shares pixels
    with; a part that shares none is nobody's. Where a hypothesis does not see an object, its mask is blank.

    Args:
        objects: of one scene.
        hypotheses: bool [L, K, h, w], of its layers.
    """
    found: dict[int, np.ndarray] = {}
    for layer, samples in enumerate(hypotheses, start=1):
        own = [obj for obj in objects if obj.layer == layer]
        if own and len(samples):
            masks = np.stack([_shared_out(sample, [obj.amodal for obj in own]) for sample in samples], axis=1)
            found.update(zip((obj.id for obj in own), masks, strict=True))
    return found


def occluder_shares(objects: Sequence[SceneObject], masks: Mapping[int, np.ndarray]) -> dict[int, dict[int, float]]:
    """How sure it is what lies on what: of each object, by its id, the objects in front that may lie on it, and the share.

    The share, in [0, 1], is that of the hypotheses that see the object (half of its visible pixels, or of all where none is
    visible) in which its mask shares a pixel with the amodal mask of the other one. All of its `occluded_by` are listed, and
    those that some hypothesis would add. How many of such pairs are true: docs/picking.md.

    Args:
        objects: of one scene.
        masks: `object_hypotheses` of them.
    """
    shares: dict[int, dict[int, float]] = {}
    for obj in objects if masks else ():
        shown = obj.visible if obj.visible.any() else obj.amodal
        sees = 2 * (masks[obj.id] & shown).sum(axis=(1, 2)) >= shown.sum()
        shares[obj.id] = {}
        for other in objects:
            if other.layer < obj.layer:
                share = float((masks[obj.id] & other.amodal).any(axis=(1, 2))[sees].mean()) if sees.any() else 0.0
                if share or other.id in obj.occluded_by:
                    shares[obj.id][other.id] = share
    return shares


def _shared_out(hypothesis: np.ndarray, objects: Sequence[np.ndarray]) -> np.ndarray:
    """A hypothesis bool [h, w] among a layer's objects, each bool [h, w]: bool [N, h, w]."""
    distances = np.stack(
        [cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for mask in objects]
    )
    parts = np.zeros((len(objects), *hypothesis.shape), bool)
    count, labels = cv2.connectedComponents(hypothesis.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        part = labels == label
        touched = np.flatnonzero([(part & mask).any() for mask in objects])
        if len(touched):
            nearest = touched[distances[touched].argmin(axis=0)]
            parts |= part & (nearest == np.arange(len(objects))[:, None, None])
    return parts

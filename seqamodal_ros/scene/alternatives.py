# SPDX-License-Identifier: Apache-2.0
"""What each hypothesis of a layer says of one object: its shape, and what lies on it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np

from seqamodal_ros.scene.picking import SeenObject


class MaskedObject(SeenObject, Protocol):
    """What is asked of an object; see `SceneObject` for what the fields mean."""

    @property
    def amodal(self) -> np.ndarray: ...
    @property
    def visible(self) -> np.ndarray: ...


def object_hypotheses(objects: Iterable[MaskedObject], amodal: np.ndarray, hypotheses: np.ndarray) -> dict[int, np.ndarray]:
    """Of each object, by its id, its mask in each hypothesis of its layer: bool [K, h, w]; nothing where K is 0.

    A pixel of a hypothesis belongs to what of the layer is nearest, among that which its connected part of the hypothesis shares
    pixels with: to an object, or to nobody where that is a fragment or a speck. A part that shares none is nobody's. Where a
    hypothesis does not see an object, its mask is blank.

    Args:
        objects: of one scene.
        amodal: bool [L, h, w], its layers.
        hypotheses: bool [L, K, h, w], theirs.
    """
    objects = list(objects)
    found: dict[int, np.ndarray] = {}
    for layer, (whole, samples) in enumerate(zip(amodal, hypotheses, strict=True), start=1):
        own = [obj for obj in objects if obj.layer == layer]
        if own and len(samples):
            masks = [obj.amodal for obj in own]
            rest = whole & ~np.logical_or.reduce(masks)
            shared_out = _shared_out(samples, [*masks, rest] if rest.any() else masks)
            found.update({obj.id: of_object for obj, of_object in zip(own, shared_out, strict=False)})  # the rest is nobody's
    return found


def occluder_shares(objects: Iterable[MaskedObject], masks: Mapping[int, np.ndarray]) -> dict[int, dict[int, float]]:
    """How sure it is what lies on what: of each object, by its id, the objects in front that may lie on it, and the share.

    The share, in [0, 1], is that of the hypotheses that see the object (half of its visible pixels, or of all where none is
    visible) in which its mask shares a pixel with the amodal mask of the other one. All of its `occluded_by` are listed, and
    those that some hypothesis would add. How many of such pairs are true: docs/picking.md.

    Args:
        objects: of one scene.
        masks: `object_hypotheses` of them.
    """
    objects = list(objects)
    shares: dict[int, dict[int, float]] = {}
    for obj in objects:
        if obj.id not in masks:
            continue
        shown = obj.visible if obj.visible.any() else obj.amodal
        sees = 2 * (masks[obj.id] & shown).sum(axis=(1, 2)) >= shown.sum()
        shares[obj.id] = {}
        for other in objects:
            if other.layer < obj.layer:
                share = float((masks[obj.id] & other.amodal).any(axis=(1, 2))[sees].mean()) if sees.any() else 0.0
                if share or other.id in obj.occluded_by:
                    shares[obj.id][other.id] = share
    return shares


def _shared_out(hypotheses: np.ndarray, owners: Sequence[np.ndarray]) -> np.ndarray:
    """Hypotheses bool [K, h, w] among masks that do not overlap, each bool [h, w]: bool [N, K, h, w]."""
    outside = [(~mask).astype(np.uint8) for mask in owners]
    distances = np.stack([cv2.distanceTransform(each, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for each in outside])
    parts = np.zeros((len(owners), *hypotheses.shape), bool)
    for sample, hypothesis in enumerate(hypotheses):
        count, labels = cv2.connectedComponents(hypothesis.astype(np.uint8), connectivity=8)
        for label in range(1, count):
            part = labels == label
            touched = np.flatnonzero([(part & mask).any() for mask in owners])
            if len(touched):
                nearest = touched[distances[touched].argmin(axis=0)]
                parts[:, sample] |= part & (nearest == np.arange(len(owners))[:, None, None])
    return parts

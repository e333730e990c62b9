# SPDX-License-Identifier: Apache-2.0
"""Parts of a layer that are no objects of their own: fragments of an object that was drawn whole in a layer further back."""

from collections.abc import Sequence

import numpy as np

from seqamodal_ros.scene.picking import LOW_SCORE

WITHIN = 0.8  # share of a fragment that lies within the object, and its largest area in proportion to the object's


def without_fragments(parts: Sequence[list[np.ndarray]], probability: np.ndarray) -> list[list[np.ndarray]]:
    """The parts that are objects.

    A fragment scores less than `LOW_SCORE`, and `WITHIN` of it lie within one larger object of a layer further back: an object
    whose layer the network was not sure of was drawn in both layers, in one of them in pieces. Of such parts seven in ten are
    that (docs/experiments.md).

    Args:
        parts: of each layer, front first: bool [h, w] each.
        probability: float32 [L, h, w] in [0, 1].
    """
    kept: list[list[np.ndarray]] = []
    for masks, chances in zip(reversed(parts), probability[::-1], strict=True):  # from the back
        further = [thing for behind in kept for thing in behind]
        kept.insert(0, [mask for mask in masks if not _is_fragment(mask, chances, further)])
    return kept


def _is_fragment(mask: np.ndarray, probability: np.ndarray, further: list[np.ndarray]) -> bool:
    if probability[mask].mean() >= LOW_SCORE:
        return False
    area = mask.sum()
    return any((mask & thing).sum() >= WITHIN * area and area <= WITHIN * thing.sum() for thing in further)

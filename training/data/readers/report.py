# SPDX-License-Identifier: Apache-2.0
"""What became of a dataset that was read, in a table, beside the paper's counts."""

import numpy as np

from seqamodal_ros.scene.layers import layer_indices
from training.data.packed import PackedScenes
from training.data.readers.paper_sets import PAPER_SETS


def report(packed: PackedScenes, dataset: str) -> str:
    """Lines: images read and kept, images dropped by reason, and how many have 1, 2, ... layers."""
    meta = packed.meta
    dropped = meta["dropped"]
    lines = [f"{meta['name']}: read {meta['found'] + sum(dropped.values())}, fit for use {meta['found']}, kept {len(packed)}"]
    lines += [f"  dropped {count}: {reason}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1])]
    deepest = [int(layer_indices(scene.occluded_by).max(initial=0)) for scene in packed]
    shares = ", ".join(f"{layers}: {count}" for layers, count in enumerate(np.bincount(deepest)) if count)
    lines.append(f"  images by number of layers: {shares}")
    if dataset in PAPER_SETS:
        paper = PAPER_SETS[dataset]
        lines.append(f"  the paper: {paper.train} images for training, {paper.test} for testing")
    return "\n".join(lines)

# SPDX-License-Identifier: Apache-2.0
"""How hard a set of composites is, in the figures that the papers give of theirs."""

from collections.abc import Sequence

import numpy as np

from training.data.packed import PackedScenes
from training.data.scene import Scene

# As published or worked out from the papers' figures (Intra-AFruit, papers/001 Section 4; ACom; MUVA, papers/003)
TARGETS = """the papers' sets: Intra-AFruit 3.2 objects an image, 64% occluded; mean occlusion rate 31% over all; (image, layer)
pairs by layer 0.42 0.31 0.20 0.06 0.01; ACom 3.6 objects an image; MUVA 7.5 objects, up to 7 layers, six views a scene"""


def describe(composites: Sequence[Scene] | PackedScenes) -> str:
    """A line: objects an image, share occluded, occlusion rate over all and over occluded objects, share of each layer.

    The occlusion rate of an object is the share of its amodal mask that lies behind others.
    """
    rates: list[float] = []
    layers: list[int] = []
    for composite in composites:
        in_front = np.zeros(composite.amodal.shape[1:], bool)
        for mask in composite.amodal:  # nearest first
            rates.append(float((mask & in_front).sum() / mask.sum()))
            in_front |= mask
        layers += range(1, len(composite.layers) + 1)
    rate = np.array(rates)
    shares = np.bincount(layers)[1:] / len(layers)
    return (
        f"{len(rates) / len(composites):.1f} objects an image, {(rate > 0).mean():.0%} occluded; mean occlusion rate "
        f"{rate.mean():.0%} over all, {rate[rate > 0].mean():.0%} over occluded; (image, layer) pairs by layer: "
        + " ".join(f"{share:.2f}" for share in shares)
    )

# SPDX-License-Identifier: Apache-2.0
"""Sets of composites: the papers' recipe at any count, and a stratified one that holds as many scenes of each depth."""

from collections.abc import Sequence

import numpy as np

from training.data.compositor import Composite, Compositor
from training.data.packed import Shard

PER_SHARD = 256
FEWEST, MOST = 2, 5  # objects of a scene (papers/001, Section 4)


def composite_shard(compositor: Compositor, seed: Sequence[int], count: int, depths: Sequence[int], shard: int) -> Shard:
    """Shard number `shard` of `count` scenes; scene k is drawn from the seed and k alone.

    Args:
        compositor: draws the scenes.
        seed: of the set.
        count: scenes of the set.
        depths: scene k has the next of these numbers of layers, in turn; none leaves it to the compositor.
        shard: which.
    """
    numbers = range(shard * PER_SHARD, min(count, (shard + 1) * PER_SHARD))
    scenes = [_scene(compositor, np.random.default_rng([*seed, k]), depths[k % len(depths)] if depths else None) for k in numbers]
    return scenes, list(numbers), {}


def _scene(compositor: Compositor, rng: np.random.Generator, depth: int | None) -> Composite:
    while True:
        count = None if depth is None else int(rng.integers(max(FEWEST, depth), MOST + 1))
        scene = compositor(rng, count=count)
        if depth is None or len(scene.layers) == depth:
            return scene

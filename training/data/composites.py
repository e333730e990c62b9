# SPDX-License-Identifier: Apache-2.0
"""Sets of composites: the papers' recipe at any count, and a stratified one that holds as many scenes of each depth."""

from collections.abc import Sequence

import numpy as np

from training.data.compositor import Compositor
from training.data.packed import Shard
from training.data.scene import Scene

PER_SHARD = 256
TRIES = 2000  # for a scene of a given depth


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


def _scene(compositor: Compositor, rng: np.random.Generator, depth: int | None) -> Scene:
    for _ in range(TRIES):
        scene = compositor(rng, count=None if depth is None else _count(compositor, rng, depth))
        if depth is None or len(scene.layers) == depth:
            return scene
    raise ValueError(f"none of {TRIES} composites has {depth} layers: allow more objects or more layers, or let them lie closer")


def _count(compositor: Compositor, rng: np.random.Generator, depth: int) -> int:
    """A number of objects that the settings know, and that can be so deep."""
    known = [count for count, probability in enumerate(compositor.settings.counts) if probability and count >= depth]
    return int(rng.choice(known))

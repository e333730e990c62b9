# SPDX-License-Identifier: Apache-2.0
"""The papers' processing: square crop, smaller, images with too hidden objects dropped; and what became of each image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seqamodal_ros.scene.geometry import Geometry
from training.data.packed import MOST_OBJECTS, PackedScenes, Shard, pack
from training.data.readers.annotated import Annotated, Load, occluders
from training.data.samples import letterboxed
from training.data.scene import Rejected, Scene, SceneRules, nearest_first

SHARD = 256  # images of a shard of a set


@dataclass(frozen=True)
class Processing(SceneRules):
    """How an annotated image becomes a scene.

    Attributes:
        crop: cut the image to a square of its shorter edge, at the left (top) or in the middle, whichever keeps more
            objects (MUVA); else all of it is fitted into a square, as the Perceiver does it.
    """

    crop: bool = False


def read_shard(sources: Sequence[tuple[int, Load]], settings: Processing, shard: int) -> Shard:
    """Shard number `shard` of a packed set: the next `SHARD` sources, each the number of its scene and what reads it."""
    scenes, numbers, dropped = [], [], Counter[str]()
    for number, load in sources[shard * SHARD : (shard + 1) * SHARD]:
        try:
            scenes.append(processed(load(), settings))
            numbers.append(number)
        except Rejected as reason:
            dropped[str(reason)] += 1
    return scenes, numbers, dropped


def pack_sources(
    sources: Mapping[str, Load],
    scenes: Mapping[str, str],
    settings: Processing,
    out: Path,
    about: Mapping[str, Any],
    subset: int | None,
    seed: int,
) -> PackedScenes:
    """Read and process every image, and pack what is kept.

    Args:
        sources: name -> what reads the image.
        scenes: name -> the scene that it is a view of; they are numbered in the order in which they come.
        settings: the processing.
        out: folder of the set to be.
        about: split, and a fingerprint of what the sources are read from.
        subset: how many to keep, drawn at random; None keeps all, in order.
        seed: of that draw.
    """
    number = {scene: k for k, scene in enumerate(dict.fromkeys(scenes[name] for name in sources))}
    loads = [(number[scenes[name]], load) for name, load in sources.items()]
    if subset is not None:
        loads = [loads[k] for k in np.random.default_rng(seed).permutation(len(loads))]
    described = {**about, "images": len(loads), "subset": subset, "seed": seed, "settings": asdict(settings)}
    return pack(out, described, partial(read_shard, loads, settings), -(-len(loads) // SHARD), subset)


def processed(annotated: Annotated, settings: Processing) -> Scene:
    """One scene, its objects nearest layer first.

    Raises:
        Rejected: it breaks a rule of the settings, or its objects occlude one another in a cycle.
    """
    if settings.crop:
        annotated = _cropped(annotated)
    occluded_by = occluders(annotated)
    if len(annotated.amodal) > MOST_OBJECTS:
        raise Rejected(f"more than {MOST_OBJECTS} objects")
    small = np.array([letterboxed(mask, settings.mask_size) for mask in annotated.amodal])
    amodal, occluded_by = nearest_first(small, occluded_by, settings)
    height, width = annotated.image.shape[:2]
    image = Geometry.letterbox(width, height).to_model(annotated.image, settings.image_size)
    return Scene(image, amodal, occluded_by)


def _cropped(annotated: Annotated) -> Annotated:
    """The square of the shorter edge, at the left (top) or in the middle, that keeps more objects, and these alone.

    Layers become an order, as what lay in front may have been cut away.
    """
    height, width = annotated.image.shape[:2]
    side = min(height, width)
    squares = []
    for start in (0, (max(height, width) - side) // 2):
        long = slice(start, start + side)
        squares.append((slice(0, side), long) if width > height else (long, slice(0, side)))
    inside = [annotated.amodal[:, rows, columns].any(axis=(1, 2)) for rows, columns in squares]
    best = int(inside[1].sum() > inside[0].sum())
    rows, columns = squares[best]
    kept = inside[best]
    if not kept.any():
        raise Rejected("no object")
    order = annotated.order if annotated.layers is None else annotated.layers
    return Annotated(
        annotated.image[rows, columns],
        annotated.amodal[kept, rows, columns],
        None if annotated.visible is None else annotated.visible[kept, rows, columns],
        order=None if order is None else order[kept],
    )

# SPDX-License-Identifier: Apache-2.0
"""The papers' processing: square crop, smaller, images with too hidden objects dropped; and what became of each image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from seqamodal_ros.scene.layers import layer_indices
from training.data.compositor import Composite
from training.data.packed import PackedScenes, Packer, Shard
from training.data.readers.annotated import Annotated, Load, Skipped, occluders

SHARD = 256  # images of a shard of a set


@dataclass(frozen=True)
class Processing:
    """How an annotated image becomes a scene.

    Attributes:
        image_size: side of the image, pixels.
        mask_size: side of the masks, pixels.
        max_layers: images with more are dropped.
        area_min: images in which an object shows fewer mask pixels are dropped (Section 5.1).
        crop: cut the image to a square of its shorter edge, at the left (top) or in the middle, whichever keeps more
            objects (MUVA); else it is squeezed to a square.
    """

    image_size: int = 64
    mask_size: int = 64
    max_layers: int = 5
    area_min: int = 10
    crop: bool = False


def read_shard(sources: Sequence[tuple[int, Load]], settings: Processing, shard: int) -> Shard:
    """Shard number `shard` of a packed set: the next `SHARD` sources, each a place in the listing and what reads it."""
    scenes, places, dropped = [], [], Counter[str]()
    for place, load in sources[shard * SHARD : (shard + 1) * SHARD]:
        try:
            scenes.append(processed(load(), settings))
            places.append(place)
        except Skipped as reason:
            dropped[str(reason)] += 1
    return scenes, places, dropped


def pack(sources: Mapping[str, Load], settings: Processing, out: Path, split: str, subset: int | None, seed: int) -> PackedScenes:
    """Read and process every image, and pack what is kept.

    Args:
        sources: name -> what reads the image.
        settings: the processing.
        out: folder of the set to be.
        split: what it is for.
        subset: how many to keep, drawn at random; None keeps all, in order.
        seed: of that draw.
    """
    loads = list(enumerate(sources.values()))
    if subset is not None:
        loads = [loads[k] for k in np.random.default_rng(seed).permutation(len(loads))]
    about = {"split": split, "images": len(loads), "subset": subset, "seed": seed, "settings": asdict(settings)}
    packer = Packer(out, about)
    packer.fill(partial(read_shard, loads, settings), -(-len(loads) // SHARD), subset)
    return packer.finish(subset)


def processed(scene: Annotated, settings: Processing) -> Composite:
    """One scene, its objects nearest layer first.

    Raises:
        Skipped: it breaks a rule of the settings, or its objects occlude one another in a cycle.
    """
    occluded_by = occluders(scene)
    image, amodal = scene.image, scene.amodal
    if settings.crop:
        rows, columns = _square(amodal)
        image, amodal = image[rows, columns], amodal[:, rows, columns]
        inside = amodal.any(axis=(1, 2))
        amodal, occluded_by = amodal[inside], occluded_by[np.ix_(inside, inside)]
    if not len(amodal):
        raise Skipped("no object")
    small = np.array([_smaller(mask.astype(np.float32), settings.mask_size) >= 0.5 for mask in amodal])
    try:
        layers = layer_indices(occluded_by)
    except ValueError:
        raise Skipped("occlusion cycle") from None
    if layers.max() > settings.max_layers:
        raise Skipped(f"more than {settings.max_layers} layers")
    visible = np.array([mask & ~small[row].any(axis=0) for mask, row in zip(small, occluded_by, strict=True)])
    if visible.sum(axis=(1, 2)).min() < settings.area_min:
        raise Skipped(f"an object shows fewer than {settings.area_min} pixels")
    order = np.argsort(layers, kind="stable")
    return Composite(_smaller(image, settings.image_size), small[order], occluded_by[np.ix_(order, order)])


def _square(amodal: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the square of the shorter edge, at the left (top) or in the middle, that keeps more objects."""
    height, width = amodal.shape[1:]
    side = min(height, width)
    squares = []
    for start in (0, (max(height, width) - side) // 2):
        long = slice(start, start + side)
        squares.append((slice(0, side), long) if width > height else (long, slice(0, side)))
    kept = [int(amodal[:, rows, columns].any(axis=(1, 2)).sum()) for rows, columns in squares]
    return squares[int(kept[1] > kept[0])]


def _smaller(image: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)

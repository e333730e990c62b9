# SPDX-License-Identifier: Apache-2.0
"""Batches of scenes for training; batch n is the same whoever draws it, so that training can resume exactly."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from seqamodal_ros.scene.geometry import PADDING
from seqamodal_ros.scene.layers import layer_indices
from training.data.compositor import Compositor
from training.data.painting import camera, worn
from training.data.scene import Scene

OTHERS = 12  # scenes to look at while a network trains


@dataclass(frozen=True)
class Batch:
    """Scenes padded to the same number of objects O.

    Attributes:
        image: uint8 [B, 3, S, S] RGB.
        amodal: bool [B, O, h, w]; padding is blank.
        occluded_by: bool [B, O, O], Z of Eq. 1; padding occludes nothing.
        layers: int64 [B, O], L of Eq. 2 from 1; 0 for padding.
    """

    image: Tensor
    amodal: Tensor
    occluded_by: Tensor
    layers: Tensor

    def to(self, device: torch.device, copy: bool = False) -> "Batch":
        """The same batch on a device; a copy of it even where it is there already, if asked for."""
        return Batch(*(getattr(self, field.name).to(device, non_blocking=True, copy=copy) for field in fields(self)))

    def turned(self, turns: int, mirrored: bool) -> "Batch":
        """The same scenes, turned by so many right angles; or their mirror images, turned."""

        def each(pictures: Tensor) -> Tensor:
            return torch.rot90(pictures.flip(-1) if mirrored else pictures, turns, (-2, -1)).contiguous()

        return replace(self, image=each(self.image), amodal=each(self.amodal))


def union(amodal: Tensor, chosen: Tensor) -> Tensor:
    """The union of each scene's chosen objects: bool [B, O, h, w] and bool [B, O] -> bool [B, 1, h, w]."""
    return (amodal & chosen[:, :, None, None]).any(dim=1, keepdim=True)


def all_layers(batch: Batch, count: int) -> Tensor:
    """The amodal masks of the first `count` layers, blank where there are fewer: bool [B, count, h, w]."""
    return torch.cat([union(batch.amodal, batch.layers == layer) for layer in range(1, count + 1)], dim=1)


class SceneBatches(Dataset):
    """Item n is a whole batch, or part of one, drawn from the seed and n alone.

    Args:
        draw: draws a scene from a generator, as a `Compositor` or a `Mixture` does.
        batch_size: scenes an item.
        batches: how many items there are.
        seed: of everything that is drawn.
    """

    def __init__(self, draw: Callable[[np.random.Generator], Scene], batch_size: int, batches: int, seed: int):
        self.draw = draw
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed

    def __len__(self) -> int:
        return self.batches

    def others(self) -> list[Scene]:
        """`OTHERS` scenes that no item has: composites of other draws; those of a packed set are in items, varied otherwise."""
        draw = self.draw.draw if isinstance(self.draw, Repeated) else self.draw
        return [draw(np.random.default_rng([self.seed, self.batches, k])) for k in range(OTHERS)]

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self.seed, index])
        scenes = [self.draw(rng) for _ in range(self.batch_size)]
        objects = max(1, *(len(scene.amodal) for scene in scenes))
        amodal = np.zeros((len(scenes), objects, *scenes[0].amodal.shape[1:]), bool)
        occluded_by = np.zeros((len(scenes), objects, objects), bool)
        layers = np.zeros((len(scenes), objects), np.int64)
        for k, scene in enumerate(scenes):
            count = len(scene.amodal)
            amodal[k, :count] = scene.amodal
            occluded_by[k, :count, :count] = scene.occluded_by
            layers[k, :count] = layer_indices(scene.occluded_by)
        image = np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2)
        return Batch(*map(torch.from_numpy, (np.ascontiguousarray(image), amodal, occluded_by, layers)))


class Repeated:
    """Draws each of `count` scenes once, keeps it, and draws among them again and again.

    Args:
        draw: draws a scene; scene k from the seed and k alone.
        count: of the scenes, about 0.25 MB of memory each, in each process that draws.
        seed: of all of them.
    """

    def __init__(self, draw: Callable[[np.random.Generator], Scene], count: int, seed: int):
        self.draw = draw
        self.count = count
        self.seed = seed
        self._drawn: dict[int, Scene] = {}

    def __call__(self, rng: np.random.Generator) -> Scene:
        number = int(rng.integers(self.count))
        if number not in self._drawn:
            self._drawn[number] = self.draw(np.random.default_rng([self.seed, number]))
        return self._drawn[number]


class Scenes(Protocol):
    """A packed set, some of its scenes, or several sets."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Scene: ...


class Mixture:
    """Draws scenes from packed sets and from a compositor.

    Args:
        packed: the sets; their scenes are `varied`.
        share: probability that a scene is one of the set's, in (0, 1].
        compositor: draws the others; not needed where `share` is 1.
        worn: see `CompositeSettings`.
    """

    def __init__(self, packed: Scenes, share: float, compositor: Compositor | None, worn: float = 0.0):
        self.packed = packed
        self.share = share
        self.compositor = compositor
        self.worn = worn

    def __call__(self, rng: np.random.Generator) -> Scene:
        if self.compositor is not None and rng.random() >= self.share:
            return self.compositor(rng)
        return varied(self.packed[int(rng.integers(len(self.packed)))], rng, self.worn)


def varied(scene: Scene, rng: np.random.Generator, worn_share: float = 0.0) -> Scene:
    """The scene turned by a multiple of 90 degrees, mirrored, in other colours, through another camera; at times a worse one."""
    turns, mirror = int(rng.integers(4)), slice(None, None, -1 if rng.random() < 0.5 else 1)
    image = np.rot90(scene.image, turns)[:, mirror]
    amodal = np.rot90(scene.amodal, turns, axes=(1, 2))[..., mirror]
    grey = (image == PADDING).all(axis=2)
    inside = np.ix_(~grey.all(axis=1), ~grey.all(axis=0))  # without the whole grey rows or columns of letterboxes
    if rng.random() < 0.3:
        image = image[..., rng.permutation(3)]
    seen = camera(rng, image[inside].astype(np.float32) / 255)
    if worn_share and rng.random() < worn_share:
        seen = worn(rng, seen)
    whole = np.full_like(image, PADDING)  # seen by itself, or its grey would run in
    whole[inside] = seen
    return Scene(whole, amodal, scene.occluded_by)

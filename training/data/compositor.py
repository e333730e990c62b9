# SPDX-License-Identifier: Apache-2.0
"""Composites of sprites on textures, with the amodal mask of every object and the stacking order (papers' own recipe)."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from seqamodal_ros.scene.geometry import PADDING
from seqamodal_ros.scene.layers import occlusions
from training.data.painting import aspect, bend, camera, coarser, heap, inside, lay, recolour, retexture, warp, worn
from training.data.ranges import check_shares
from training.data.rooms import room
from training.data.scene import Rejected, Scene, SceneRules
from training.data.sprites import Material, load_material
from training.data.two_truths import two_truths


@dataclass(frozen=True)
class CompositeSettings(SceneRules):
    """How composites are drawn; the defaults come near the papers' figures (`python -m training.synthesize stats`).

    Attributes:
        counts: probability of 0, 1, 2, ... objects.
        same_class: probability that all objects of a scene are of one class.
        shadow: probability of soft shadows.
        recolour: probability that a sprite's colours are exchanged and bent, so that outlines are learnt, not paints; and that
            a background is turned by right angles, its colours exchanged.
        retexture: probability that a sprite gets the surface of one of the textures, and keeps its light and shade.
        bend: probability that a sprite is bent out of shape.
        size: range of the objects' size, as a share of the image's side, from which each departs by up to a quarter.
        spread: range of the distance between neighbours, as a share of their size; small heaps them.
        coarse: probability that the image is of a camera with fewer pixels, down to half as many a side.
        rooms: probability that the background is a room: surfaces with edges, plain ones among them, unevenly lit (`rooms.py`).
        worn: probability that the image is of a worse camera yet, see `painting.worn`; of a packed set's images, too.
        two_truths: probability of an image that two scenes agree with (`two_truths`), one of which is taken for the truth.
        letterbox: probability that the scene is not square and padded to a square, as `Geometry` does it.
    """

    counts: tuple[float, ...] = (0.1, 0.08, 0.23, 0.26, 0.19, 0.14)
    same_class: float = 0.6
    shadow: float = 0.6
    size: tuple[float, float] = (0.3, 0.64)
    spread: tuple[float, float] = (0.25, 0.85)
    letterbox: float = 0.3
    recolour: float = 0.0
    retexture: float = 0.0
    bend: float = 0.0
    coarse: float = 0.0
    rooms: float = 0.0
    worn: float = 0.0
    two_truths: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "same_class", "shadow", "letterbox", "recolour", "retexture", "bend", "coarse")
        check_shares(self, "rooms", "worn", "two_truths")
        if not (sum(self.counts) > 0 and min(self.counts) >= 0):
            raise ValueError(f"counts are shares, 0 or more and not all of them 0, not {list(self.counts)}")


Drawn = TypeVar("Drawn")

TRIES = 5000  # for a scene


class Compositor:
    """Draws composites of one split's material; every draw comes from the generator that is passed in."""

    def __init__(self, material: Material, settings: CompositeSettings):
        self.material = material
        self.settings = settings

    def __call__(self, rng: np.random.Generator, family: str | None = None, count: int | None = None) -> Scene:
        """One scene of `family` ("fruits", "objects"; None draws it) with `count` objects (None draws it)."""
        counts = np.asarray(self.settings.counts)
        if family is None:
            family = str(rng.choice(list(self.material.sprites)))
        if count is None:
            count = int(rng.choice(len(counts), p=counts / counts.sum()))
        if self.settings.two_truths and rng.random() < self.settings.two_truths:
            return self.two_truths(rng, family)[rng.integers(2)]
        return _kept(lambda: self._draw(rng, family, count))

    def two_truths(self, rng: np.random.Generator, family: str) -> tuple[Scene, Scene]:
        """One image that two scenes agree with, see `two_truths`; which of them is nearer the sprite's own shape comes first."""

        def draw() -> tuple[Scene, Scene]:
            canvas = self._background(rng)
            front, behind = self._choose_sprites(rng, family, 2)
            return two_truths(rng, canvas, front, behind, self.settings)

        return _kept(draw)

    def _draw(self, rng: np.random.Generator, family: str, count: int) -> Scene:
        """One try; `Rejected` where the scene breaks a rule of the settings."""
        s = self.settings
        canvas = self._background(rng)
        sprites = self._choose_sprites(rng, family, count)
        size = rng.uniform(*s.size)
        width, height = aspect(rng) if rng.random() < s.letterbox else (1.0, 1.0)
        places = 0.5 + (heap(rng, count, size * rng.uniform(*s.spread)) - 0.5) * [width, height]
        size *= np.sqrt(width * height)
        amodal = np.zeros((count, s.mask_size, s.mask_size), bool)
        shadow = (rng.normal(size=2) * 0.02, rng.uniform(0.2, 0.6)) if rng.random() < s.shadow else None
        for index in reversed(range(count)):  # the farthest is drawn first
            layer, region = warp(rng, sprites[index], places[index], size * rng.uniform(0.75, 1.25), s.image_size)
            amodal[index] = lay(canvas, layer, region, s.mask_size, shadow)
        amodal &= inside(s.mask_size, width, height)
        occluded_by = occlusions(amodal, np.arange(count))
        s.check(amodal, occluded_by)
        image = camera(rng, canvas)
        if s.coarse and rng.random() < s.coarse:
            image = coarser(image, rng.uniform(0.45, 1))
        if s.worn and rng.random() < s.worn:
            image = worn(rng, image)
        image[~inside(s.image_size, width, height)] = PADDING
        return Scene(image, amodal, occluded_by)

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        """float32 [S, S, 3] in [0, 1]: a surface, or a room."""
        if self.settings.rooms and rng.random() < self.settings.rooms:
            return room(rng, self._surface)
        return self._surface(rng)

    def _surface(self, rng: np.random.Generator) -> np.ndarray:
        """float32 [S, S, 3] in [0, 1]: a crop of a texture, sometimes magnified, as a table or a bin would be."""
        texture = self.material.textures[rng.integers(len(self.material.textures))]
        side = min(texture.shape[:2])
        crop = int(side * rng.uniform(0.5, 1))
        top, left = rng.integers(texture.shape[0] - crop + 1), rng.integers(texture.shape[1] - crop + 1)
        patch = texture[top : top + crop, left : left + crop]
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
        if self.settings.recolour and rng.random() < self.settings.recolour:
            patch = np.rot90(patch, int(rng.integers(4)))[..., rng.permutation(3)]
        size = self.settings.image_size
        canvas = cv2.resize(np.ascontiguousarray(patch), (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        return canvas * rng.uniform(0.6, 1.15)

    def _choose_sprites(self, rng: np.random.Generator, family: str, count: int) -> list[np.ndarray]:
        classes = self.material.sprites[family]
        names = list(classes)
        chosen = rng.choice(names, 1).repeat(count) if rng.random() < self.settings.same_class else rng.choice(names, count)
        sprites = [classes[name][rng.integers(len(classes[name]))] for name in chosen]
        return [self._varied(rng, sprite) for sprite in sprites]

    def _varied(self, rng: np.random.Generator, sprite: np.ndarray) -> np.ndarray:
        """The sprite with other colours, another surface or another shape; nothing is drawn for what the settings leave out."""
        s = self.settings
        if s.recolour and rng.random() < s.recolour:
            sprite = recolour(rng, sprite)
        if s.retexture and rng.random() < s.retexture:
            sprite = retexture(rng, sprite, self.material.textures[rng.integers(len(self.material.textures))])
        if s.bend and rng.random() < s.bend:
            sprite = bend(rng, sprite)
        return sprite


def _kept(draw: Callable[[], Drawn]) -> Drawn:
    """The first that keeps the rules; ValueError, saying which stands in the way, where none of `TRIES` does."""
    broken = Counter[str]()
    for _ in range(TRIES):
        try:
            return draw()
        except Rejected as rule:
            broken[str(rule)] += 1
    ((why, times),) = broken.most_common(1)
    raise ValueError(f"none of {TRIES} composites keeps the rules, {times} for: {why}: relax these rules")


# as in training, but square, and with 2 to 5 objects each, as the papers' sets are
TEST_COMPOSITES = CompositeSettings(image_size=128, counts=(0, 0, 0.28, 0.31, 0.24, 0.17), letterbox=0)

# sets that are packed come nearer to the papers' figures with more overlap
SET_COMPOSITES = replace(TEST_COMPOSITES, spread=(0.15, 0.7))


def evaluation_compositor(data: Path, rendered: Path, split: str, image_size: int = 128) -> Compositor:
    """Of one split's material, for evaluation. See `load_material`."""
    return Compositor(load_material(data, rendered, split), replace(TEST_COMPOSITES, image_size=image_size))


def in_turns(draw: Callable[[np.random.Generator, str], Drawn], material: Material, count: int, seed: int) -> list[Drawn]:
    """`count` draws for evaluation, each of its own generator; the material's families (fruits, objects) take turns."""
    families = list(material.sprites)
    return [draw(np.random.default_rng([seed, k]), families[k % len(families)]) for k in range(count)]

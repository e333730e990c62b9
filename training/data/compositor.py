# SPDX-License-Identifier: Apache-2.0
"""Composites of sprites on textures, with the amodal mask of every object and the stacking order (papers' own recipe)."""

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from seqamodal_ros.scene.geometry import PADDING
from seqamodal_ros.scene.layers import occlusions
from training.data.scene import Rejected, Scene, SceneRules
from training.data.sprites import Material, cut, load_material


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
        spread: range of the distance between neighbours, as a share of their size; small heaps them.
        coarse: probability that the image is of a camera with fewer pixels, down to half as many a side.
        letterbox: probability that the scene is not square and padded to a square, as `Geometry` does it.
    """

    counts: tuple[float, ...] = (0.1, 0.08, 0.23, 0.26, 0.19, 0.14)
    same_class: float = 0.6
    shadow: float = 0.6
    spread: tuple[float, float] = (0.25, 0.85)
    letterbox: float = 0.3
    recolour: float = 0.0
    retexture: float = 0.0
    bend: float = 0.0
    coarse: float = 0.0


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
        while True:
            try:
                return self._draw(rng, family, count)
            except Rejected:
                continue

    def _draw(self, rng: np.random.Generator, family: str, count: int) -> Scene:
        """One try; `Rejected` where the scene breaks a rule of the settings."""
        s = self.settings
        canvas = self._background(rng)
        sprites = self._choose_sprites(rng, family, count)
        size = rng.uniform(0.3, 0.64)
        width, height = _aspect(rng) if rng.random() < s.letterbox else (1.0, 1.0)
        places = 0.5 + (_places(rng, count, size * rng.uniform(*s.spread)) - 0.5) * [width, height]
        size *= np.sqrt(width * height)
        amodal = np.zeros((count, s.mask_size, s.mask_size), bool)
        shadow = (rng.normal(size=2) * 0.02, rng.uniform(0.2, 0.6)) if rng.random() < s.shadow else None
        for index in reversed(range(count)):  # the farthest is drawn first
            layer, region = _warp(rng, sprites[index], places[index], size * rng.uniform(0.75, 1.25), s.image_size)
            alpha = np.zeros((s.image_size, s.image_size), np.float32)
            alpha[region] = layer[..., 3]
            covered = cv2.resize(alpha, (s.mask_size, s.mask_size), interpolation=cv2.INTER_AREA)
            if shadow is not None:
                canvas *= _light(covered, *shadow, s.image_size)[..., None]
            canvas[region] *= 1 - layer[..., 3:]
            canvas[region] += layer[..., :3]
            amodal[index] = covered >= 0.5
        amodal &= _inside(s.mask_size, width, height)
        occluded_by = occlusions(amodal, np.arange(count))
        s.check(amodal, occluded_by)
        image = camera(rng, canvas)
        if s.coarse and rng.random() < s.coarse:
            image = coarser(image, rng.uniform(0.45, 1))
        image[~_inside(s.image_size, width, height)] = PADDING
        return Scene(image, amodal, occluded_by)

    def _background(self, rng: np.random.Generator) -> np.ndarray:
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
            sprite = _recolour(rng, sprite)
        if s.retexture and rng.random() < s.retexture:
            sprite = _retexture(rng, sprite, self.material.textures[rng.integers(len(self.material.textures))])
        if s.bend and rng.random() < s.bend:
            sprite = _bend(rng, sprite)
        return sprite


# as in training, but square, and with 2 to 5 objects each, as the papers' sets are
TEST_COMPOSITES = CompositeSettings(image_size=128, counts=(0, 0, 0.28, 0.31, 0.24, 0.17), letterbox=0)

# sets that are packed come nearer to the papers' figures with more overlap
SET_COMPOSITES = replace(TEST_COMPOSITES, spread=(0.15, 0.7))


def draw_composites(data: Path, rendered: Path, split: str, count: int, seed: int, image_size: int = 128) -> list[Scene]:
    """`count` composites of one split, for evaluation; its families (fruits, objects) take turns. See `load_material`."""
    compositor = Compositor(load_material(data, rendered, split), replace(TEST_COMPOSITES, image_size=image_size))
    families = list(compositor.material.sprites)
    return [compositor(np.random.default_rng([seed, k]), family=families[k % len(families)]) for k in range(count)]


def coarser(image: np.ndarray, share: float) -> np.ndarray:
    """The image as a camera with this share of its pixels a side would see it."""
    side = len(image)
    fewer = round(share * side)
    return cv2.resize(
        cv2.resize(image, (fewer, fewer), interpolation=cv2.INTER_AREA), (side, side), interpolation=cv2.INTER_LINEAR
    )


def _aspect(rng: np.random.Generator) -> tuple[float, float]:
    """Width and height of a 4:3 or 16:9 scene, landscape or portrait, as shares of the square that holds it."""
    short = float(rng.choice([3 / 4, 9 / 16]))
    return (1.0, short) if rng.random() < 0.8 else (short, 1.0)


def _inside(side: int, width: float, height: float) -> np.ndarray:
    """bool [side, side]: true within the centred width x height of the square."""
    centres = np.abs((np.arange(side) + 0.5) / side - 0.5)
    return (centres[:, None] < height / 2) & (centres[None, :] < width / 2)


def _places(rng: np.random.Generator, count: int, spread: float) -> np.ndarray:
    """Centres [count, 2] in (0, 1): each but the first lies about `spread` from one drawn before, so that objects overlap."""
    places = [rng.uniform(0.3, 0.7, 2)]
    while len(places) < count:
        angle, distance = rng.uniform(0, 2 * np.pi), spread * rng.uniform(0.6, 1.4)
        place = places[rng.integers(len(places))] + distance * np.array([np.cos(angle), np.sin(angle)])
        places.append(np.clip(place, 0.14, 0.86))
    return np.array(places)[rng.permutation(len(places))]


def _warp(
    rng: np.random.Generator, sprite: np.ndarray, place: np.ndarray, size: float, side: int
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """A sprite turned, scaled to `size` of the image, put at `place`: float32 [h, w, 4] in [0, 1], premultiplied, and where."""
    height, width = sprite.shape[:2]
    scale = size * side / max(height, width)
    if scale < 0.6:  # shrink by area first, as warping alone would alias
        shrink = max(2 * scale, 0.3)
        sprite = cv2.resize(sprite, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        height, width = sprite.shape[:2]
        scale = size * side / max(height, width)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rng.uniform(0, 360), scale)
    stretch = np.diag([rng.uniform(0.85, 1.15), rng.uniform(0.85, 1.15)])
    matrix[:, 2] -= [(width - 1) / 2, (height - 1) / 2]
    matrix = stretch @ matrix
    matrix[:, 2] += place * side
    if rng.random() < 0.5:
        sprite = sprite[:, ::-1]
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    left, top = (corners.min(axis=1) - 2).astype(int).clip(0, side - 1)
    right, bottom = (corners.max(axis=1) + 3).astype(int).clip(1, side)
    matrix[:, 2] -= [left, top]
    there = cv2.warpAffine(np.ascontiguousarray(sprite), matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.94, 1.06, 3)
    return there * (np.append(gain, 1) / 255).astype(np.float32), (slice(top, bottom), slice(left, right))


def _recolour(rng: np.random.Generator, sprite: np.ndarray) -> np.ndarray:
    """The sprite with its colour channels exchanged, some of them inverted, and another gamma in each."""
    channels = [np.linspace(0, 1, 256) ** np.exp(rng.normal() * 0.4) for _ in range(3)]
    alpha = np.maximum(sprite[..., 3:], 1).astype(np.float32)
    straight = np.minimum(255.0 * sprite[..., rng.permutation(3)] / alpha, 255).astype(np.uint8)
    tables = [channel[::-1] if rng.random() < 0.25 else channel for channel in channels]
    bent = np.stack([table[straight[..., k]] for k, table in enumerate(tables)], axis=-1)
    return np.dstack([(bent * sprite[..., 3:]).astype(np.uint8), sprite[..., 3]])


def _retexture(rng: np.random.Generator, sprite: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """The sprite with the surface of a texture, lighter and darker where its own is."""
    height, width = sprite.shape[:2]
    side = int(min(texture.shape[:2]) * rng.uniform(0.3, 1))
    top, left = rng.integers(texture.shape[0] - side + 1), rng.integers(texture.shape[1] - side + 1)
    surface = cv2.resize(texture[top : top + side, left : left + side], (width, height), interpolation=cv2.INTER_LINEAR)
    alpha = sprite[..., 3].astype(np.float32) / 255
    light = cv2.GaussianBlur(sprite[..., :3].max(axis=2).astype(np.float32), (0, 0), 0.02 * max(height, width))
    light /= max(1.0, float(light[alpha > 0.5].mean()))
    shaded = surface * (light.clip(0.25, 1.8) ** rng.uniform(0.6, 1.2) * alpha)[..., None]
    return np.dstack([np.minimum(shaded, 255 * alpha[..., None]).astype(np.uint8), sprite[..., 3]])


def _bend(rng: np.random.Generator, sprite: np.ndarray) -> np.ndarray:
    """The sprite warped by smooth displacements of up to about a fifth of its size."""
    height, width = sprite.shape[:2]
    border = int(0.15 * max(height, width))
    sprite = cv2.copyMakeBorder(sprite, border, border, border, border, cv2.BORDER_CONSTANT)
    coarse = (rng.normal(size=(4, 4, 2)) * rng.uniform(0.02, 0.08) * max(height, width)).astype(np.float32)
    moved = cv2.resize(coarse, sprite.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    columns, rows = np.meshgrid(np.arange(sprite.shape[1], dtype=np.float32), np.arange(sprite.shape[0], dtype=np.float32))
    bent = cv2.remap(sprite, columns + moved[..., 0], rows + moved[..., 1], cv2.INTER_LINEAR)
    return cut(bent) if (bent[..., 3] > 127).any() else sprite  # a hair may be bent out of sight


def _light(covered: np.ndarray, offset: np.ndarray, strength: float, side: int) -> np.ndarray:
    """float32 [side, side]: what a soft shadow leaves of the light; it is worked out at the masks' size, as it has no edges."""
    small = len(covered)
    moved = cv2.warpAffine(covered, np.array([[1, 0, offset[0] * small], [0, 1, offset[1] * small]], np.float32), (small, small))
    return cv2.resize(1 - strength * cv2.GaussianBlur(moved, (0, 0), 0.03 * small), (side, side), interpolation=cv2.INTER_LINEAR)


def camera(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """uint8 image of the canvas: exposure, colour cast, blur and noise of a cheap camera."""
    gamma, cast = rng.uniform(0.8, 1.25), rng.uniform(0.93, 1.07, 3)
    canvas = cv2.pow(canvas.clip(0, 1).astype(np.float32, copy=False), gamma) * (255 * cast).astype(np.float32)
    if rng.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.0))
    noise = rng.normal(size=canvas.shape[:2]).astype(np.float32)
    canvas += (255 * rng.uniform(0, 0.03) * noise)[..., None]
    return np.rint(canvas.clip(0, 255, out=canvas), out=canvas).astype(np.uint8)

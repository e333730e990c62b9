# SPDX-License-Identifier: Apache-2.0
"""Scenes as worse cameras see them: other light, out of focus, moving, noise, fewer pixels, from afar."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from seqamodal_ros.scene.geometry import PADDING
from training.data.painting import coarser, jpeg
from training.data.scene import Scene

AFAR = (5, 8)  # size that is left of a scene, as a fraction: sides of images and masks are whole in it


# name -> the image float32 [S, S, 3] in 0..255 -> the image that the camera gives, likewise; lengths are shares of its side
OF_IMAGES: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "dark": lambda _, image: 255 * (image / 255) ** 1.8 * 0.6,
    "too bright, clipped": lambda _, image: 1.7 * image,
    "light from one side": lambda _, image: image * np.linspace(0.35, 1.4, image.shape[1], dtype=np.float32)[None, :, None],
    "warm light": lambda _, image: image * np.array([1.25, 1, 0.65], np.float32),
    "out of focus": lambda _, image: cv2.GaussianBlur(image, (0, 0), 0.008 * len(image)),
    "moving": lambda _, image: cv2.blur(image, (round(0.04 * len(image)), 1)),
    "noise": lambda rng, image: image + 20 * rng.normal(size=image.shape).astype(np.float32),
    "JPEG of quality 15": lambda _, image: jpeg(np.rint(image).astype(np.uint8), 15).astype(np.float32),
    "a quarter of the pixels a side": lambda _, image: coarser(image, 0.25),
}


def disturbed(scene: Scene, seed: int, area_min: int = 10) -> dict[str, Scene]:
    """The scene in each of these ways; the truth is the same but from afar, where it is smaller.

    Args:
        scene: its image is uint8 [S, S, 3].
        seed: of the noise.
        area_min: the fewest mask pixels of an object.
    """
    image = scene.image.astype(np.float32)
    found = {
        name: replace(scene, image=np.rint(camera(np.random.default_rng(seed), image).clip(0, 255)).astype(np.uint8))
        for name, camera in OF_IMAGES.items()
    }
    return {**found, "from afar": from_afar(scene, area_min)}


def from_afar(scene: Scene, area_min: int) -> Scene:
    """The scene at `AFAR` of its size, in the middle of a grey image; what is smaller than `area_min` then is no object of it."""
    image = np.full_like(scene.image, PADDING)
    image[_middle(len(image))] = _smaller(scene.image)
    amodal = np.zeros_like(scene.amodal)
    for whole, small in zip(scene.amodal, amodal, strict=True):
        small[_middle(len(small))] = _smaller(255 * whole.astype(np.uint8)) >= 128
    kept = amodal.sum(axis=(1, 2)) >= area_min
    return Scene(image, amodal[kept], scene.occluded_by[np.ix_(kept, kept)])


def _side(of: int) -> int:
    return of * AFAR[0] // AFAR[1]


def _middle(side: int) -> tuple[slice, slice]:
    first = (side - _side(side)) // 2
    return (slice(first, first + _side(side)),) * 2


def _smaller(picture: np.ndarray) -> np.ndarray:
    side = _side(len(picture))
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)

# SPDX-License-Identifier: Apache-2.0
"""What is around objects in a room: a table and what is beyond its edge, plain surfaces, uneven light, shadows and glare."""

from collections.abc import Callable

import cv2
import numpy as np

PARTS = (0.35, 0.35, 0.2, 0.1)  # probability of a room of one surface, two, three, four
PLAIN = 0.55  # of a surface of one colour


def room(rng: np.random.Generator, texture: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
    """A background float32 [S, S, 3] in [0, 1] of up to four surfaces with straight edges, unevenly lit.

    Args:
        rng: draws it.
        texture: draws a surface float32 [S, S, 3] in [0, 1].
    """
    canvas = _surface(rng, texture)
    for _ in range(rng.choice(len(PARTS), p=PARTS)):
        beyond = _half_plane(rng, len(canvas))[..., None]
        canvas = canvas * (1 - beyond) + beyond * _surface(rng, texture) * rng.uniform(0.4, 1.1)
    return (canvas * _light(rng, len(canvas))[..., None]).clip(0, 1)


def _surface(rng: np.random.Generator, texture: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
    other = texture(rng)
    if rng.random() >= PLAIN:
        return other
    grey = rng.uniform(0.12, 0.95)
    colour = (grey * np.exp(rng.normal(size=3) * rng.uniform(0.02, 0.35))).clip(0, 1).astype(np.float32)
    grain = (other.mean(axis=2, keepdims=True) - other.mean()) * rng.uniform(0, 0.25)  # what is left of the texture
    return colour * (1 + grain)


def _half_plane(rng: np.random.Generator, side: int) -> np.ndarray:
    """float32 [S, S], 1 beyond a straight line that leaves the middle of the image free, 0 on this side of it."""
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.5) * side
    along = np.arange(side, dtype=np.float32) - (side - 1) / 2
    across = np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None] - distance
    return (across / rng.uniform(1, 3) + 0.5).clip(0, 1).astype(np.float32)


def _light(rng: np.random.Generator, side: int) -> np.ndarray:
    """float32 [S, S], what lamps, their glare and the shadows of things out of sight make of an even light."""
    slow = cv2.resize(rng.normal(size=(3, 3)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    light = np.exp(rng.uniform(0, 0.3) * slow)
    for _ in range(rng.integers(0, 3)):  # shadows, and glare where the sign is the other one
        centre = tuple(map(int, rng.integers(0, side, 2)))
        axes = tuple(map(int, rng.uniform(0.05, 0.3, 2) * side))
        spot = cv2.ellipse(np.zeros((side, side), np.float32), centre, axes, rng.uniform(0, 360), 0, 360, 1, -1)
        light *= 1 + rng.uniform(-0.6, 0.4) * cv2.GaussianBlur(spot, (0, 0), rng.uniform(0.01, 0.08) * side)
    return light.astype(np.float32)

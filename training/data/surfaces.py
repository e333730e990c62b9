# SPDX-License-Identifier: Apache-2.0
"""Procedural textures of the tables and trays that piles lie on, made of noise; no photograph is used."""

from collections.abc import Callable

import cv2
import numpy as np

SIDE = 2048  # pixels of a texture's side; a pile's table is TABLE metres wide, so a pixel is about a millimetre
TABLE = 2.4

Paint = Callable[[np.random.Generator], np.ndarray]


def noise(rng: np.random.Generator, rows: float, columns: float, octaves: int = 4) -> np.ndarray:
    """Smooth noise, float32 [SIDE, SIDE], mean about 0 and deviation about 1.

    Args:
        rng: draws it.
        rows, columns: features of the coarsest octave from top to bottom and from left to right.
        octaves: each has features half as large and as strong as the one before.
    """
    total = np.zeros((SIDE, SIDE), np.float32)
    for octave in range(octaves):
        grid = rng.normal(size=(min(SIDE, int(rows * 2**octave) + 2), min(SIDE, int(columns * 2**octave) + 2)))
        total += cv2.resize(grid.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / total.std()


def wood(rng: np.random.Generator) -> np.ndarray:
    """Planks of light wood: uint8 [SIDE, SIDE, 3] RGB, as every surface here."""
    plank = SIDE // 18
    index = np.arange(SIDE) // plank
    shift = rng.normal(size=index.max() + 1)[index][:, None].astype(np.float32)
    rings = np.sin(2.2 * noise(rng, 40, 1.5, 3) + 9 * noise(rng, 14, 1.2, 2) + 3 * shift)
    grain = noise(rng, 700, 16, 2)
    value = 1 + 0.045 * rings + 0.03 * grain + 0.05 * shift + 0.03 * noise(rng, 4, 4)
    value[np.arange(SIDE) % plank < 2] *= 0.62
    return _colour(value, (178, 134, 92))


def dark_wood(rng: np.random.Generator) -> np.ndarray:
    """One board of stained wood."""
    value = 1 + 0.12 * np.sin(8 * noise(rng, 9, 1.0, 3)) + 0.06 * noise(rng, 600, 14, 2) + 0.05 * noise(rng, 4, 4)
    return _colour(value, (98, 66, 46))


def cloth(rng: np.random.Generator) -> np.ndarray:
    """A woven cloth in blue-grey with faint folds."""
    step = np.arange(SIDE)
    weave = np.sin(step * np.pi / 3)[:, None] * np.sin(step * np.pi / 3)[None, :]
    value = 1 + 0.09 * weave + 0.06 * noise(rng, 900, 900, 1) + 0.035 * noise(rng, 12, 9) + 0.05 * noise(rng, 300, 12, 2)
    return _colour(value, (104, 122, 146))


def felt(rng: np.random.Generator) -> np.ndarray:
    """Dark green felt."""
    value = 1 + 0.10 * noise(rng, 800, 800, 2) + 0.05 * noise(rng, 30, 30) + 0.03 * noise(rng, 4, 4)
    return _colour(value, (44, 92, 70))


def speckle(rng: np.random.Generator) -> np.ndarray:
    """A pale laminate with speckles."""
    value = 1 + 0.015 * noise(rng, 500, 500, 2) + 0.02 * noise(rng, 5, 5)
    image = _colour(value, (206, 202, 194)).astype(np.float32)
    for tone, rarity in (((120, 112, 104), 2.35), ((232, 228, 222), 2.1), ((158, 140, 122), 2.6)):
        image[noise(rng, 420, 420, 2) > rarity] = tone
    return cv2.GaussianBlur(image, (0, 0), 0.7).astype(np.uint8)


def tray(rng: np.random.Generator) -> np.ndarray:
    """Grey painted sheet metal with fine scratches and wear."""
    value = 1 + 0.02 * noise(rng, 700, 700, 2) + 0.05 * noise(rng, 6, 6)
    image = _colour(value, (112, 116, 120))
    for _ in range(900):
        start = rng.integers(0, SIDE, 2)
        end = start + rng.normal(size=2) * 70
        tone = int(rng.uniform(125, 165))
        points = (int(start[0]), int(start[1])), (int(end[0]), int(end[1]))
        cv2.line(image, *points, (tone, tone, tone), 1, cv2.LINE_AA)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


def blue_tray(rng: np.random.Generator) -> np.ndarray:
    """Blue plastic with the grain of a moulded bin."""
    value = 1 + 0.05 * noise(rng, 500, 500, 2) + 0.05 * noise(rng, 5, 5)
    return _colour(value, (52, 86, 140))


def cardboard(rng: np.random.Generator) -> np.ndarray:
    """Brown card with its flutes showing."""
    flutes = np.sin(np.arange(SIDE) * 2 * np.pi / 7)[None, :]
    value = 1 + 0.015 * flutes + 0.03 * noise(rng, 500, 120, 2) + 0.04 * noise(rng, 6, 6) + 0.03 * noise(rng, 900, 900, 1)
    return _colour(value, (186, 152, 112))


def mat(rng: np.random.Generator) -> np.ndarray:
    """A slate cutting mat with a grid of 5 cm."""
    value = 1 + 0.05 * noise(rng, 700, 700, 2) + 0.04 * noise(rng, 5, 5)
    image = _colour(value, (66, 74, 80)).astype(np.float32)
    step = SIDE * 0.05 / TABLE
    lines = (np.arange(SIDE) % step) < 1.6
    image[lines[:, None] | lines[None, :]] += 34
    return image.clip(0, 255).astype(np.uint8)


def linen(rng: np.random.Generator) -> np.ndarray:
    """Cream linen with irregular threads."""
    threads = 0.05 * noise(rng, 600, 20, 2) + 0.05 * noise(rng, 20, 600, 2)
    value = 1 + threads + 0.03 * noise(rng, 900, 900, 1) + 0.03 * noise(rng, 7, 5)
    return _colour(value, (196, 182, 156))


SURFACES: dict[str, Paint] = {
    paint.__name__: paint for paint in (wood, dark_wood, cloth, felt, speckle, tray, blue_tray, cardboard, mat, linen)
}


def carton(colour: tuple[int, int, int], title: str) -> np.ndarray:
    """A printed food carton of ours, uint8 [384, 256, 3] RGB: a band, a bowl and a title."""
    image = np.full((384, 256, 3), colour, np.uint8)
    cv2.rectangle(image, (0, 40), (255, 128), (244, 236, 214), -1)
    size, _ = cv2.getTextSize(title, cv2.FONT_HERSHEY_DUPLEX, 1.6, 4)
    cv2.putText(image, title, ((256 - size[0]) // 2, 100), cv2.FONT_HERSHEY_DUPLEX, 1.6, (150, 40, 30), 4, cv2.LINE_AA)
    cv2.ellipse(image, (128, 250), (92, 92), 0, 0, 180, (240, 240, 246), -1, cv2.LINE_AA)
    cv2.ellipse(image, (128, 250), (92, 24), 0, 0, 360, (250, 250, 252), -1, cv2.LINE_AA)
    rng = np.random.default_rng(len(title))
    for _ in range(90):
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1) ** 0.5
        centre = (int(128 + 78 * radius * np.cos(angle)), int(250 + 17 * radius * np.sin(angle)))
        cv2.circle(image, centre, int(rng.integers(4, 8)), tuple(map(int, rng.integers((150, 90, 30), (225, 160, 90)))), -1)
    return image


def _colour(value: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (value[..., None] * np.array(colour, np.float32)).clip(0, 255).astype(np.uint8)

# SPDX-License-Identifier: Apache-2.0
"""Where objects of a rendered scene lie: on a table, in a bin or on a shelf, and from where they can be looked at."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.data.stage import Wall

THICK = 0.006  # metres, half


@dataclass(frozen=True)
class Place:
    """Where objects lie.

    Attributes:
        walls: draws the boxes that stand around them.
        tilts: range of the camera's angle from straight down, degrees.
        turns: range of the direction that it looks from, degrees from x to y.
    """

    walls: Callable[[np.random.Generator], list[Wall]]
    tilts: tuple[float, float]
    turns: tuple[float, float] = (0.0, 360.0)


def _none(_: np.random.Generator) -> list[Wall]:
    return []


def _bin(rng: np.random.Generator) -> list[Wall]:
    """Four sides, 5 to 9 cm high."""
    x, y, height = rng.uniform(0.15, 0.24), rng.uniform(0.12, 0.2), rng.uniform(0.025, 0.045)
    colour = _colour(rng)
    across = [Wall((side * x, 0, height), (THICK, y + THICK, height), colour) for side in (-1, 1)]
    return across + [Wall((0, side * y, height), (x + THICK, THICK, height), colour) for side in (-1, 1)]


def _shelf(rng: np.random.Generator) -> list[Wall]:
    """A back at -x and two sides, open towards +x."""
    depth, width, height = rng.uniform(0.12, 0.18), rng.uniform(0.2, 0.3), rng.uniform(0.1, 0.2)
    colour = _colour(rng)
    sides = [Wall((0, side * width, height), (depth, THICK, height), colour) for side in (-1, 1)]
    return [Wall((-depth, 0, height), (THICK, width, height), colour), *sides]


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in rng.uniform(0.15, 0.9, 3))
    return red, green, blue


PLACES = {
    "table": Place(_none, (0, 50)),
    "bin": Place(_bin, (0, 22)),
    "shelf": Place(_shelf, (10, 55), (-35, 35)),
}

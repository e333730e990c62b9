# SPDX-License-Identifier: Apache-2.0
"""Where objects of a rendered scene lie: on a table, in a bin, on a shelf or a desk, and from where they can be looked at."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from training.data.stage import Colour, Wall

THICK = 0.006  # metres, half
DESK = 0.4  # metres, its height


class Surroundings(NamedTuple):
    """What stands around objects, and the table's colour, or None for its texture."""

    walls: list[Wall]
    plain: Colour | None = None


@dataclass(frozen=True)
class Place:
    """Where objects lie.

    Attributes:
        surroundings: draws them.
        tilts: range of the camera's angle from straight down, degrees.
        turns: range of the direction that it looks from, degrees from x to y.
        fill: range of the share of the picture's width or height that the objects take.
        spread: range of the deviation of where they fall, metres.
        ground: the height that they fall on, metres.
    """

    surroundings: Callable[[np.random.Generator], Surroundings]
    tilts: tuple[float, float]
    turns: tuple[float, float] = (0.0, 360.0)
    fill: tuple[float, float] = (0.6, 1.05)
    spread: tuple[float, float] = (0.005, 0.05)
    ground: float = 0.0


def _none(_: np.random.Generator) -> Surroundings:
    return Surroundings([])


def _bin(rng: np.random.Generator) -> Surroundings:
    """Four sides, 5 to 9 cm high."""
    x, y, height = rng.uniform(0.15, 0.24), rng.uniform(0.12, 0.2), rng.uniform(0.025, 0.045)
    colour = _colour(rng)
    across = [Wall((side * x, 0, height), (THICK, y + THICK, height), colour) for side in (-1, 1)]
    along = [Wall((0, side * y, height), (x + THICK, THICK, height), colour) for side in (-1, 1)]
    return Surroundings(across + along)


def _shelf(rng: np.random.Generator) -> Surroundings:
    """A back at -x and two sides, open towards +x."""
    depth, width, height = rng.uniform(0.12, 0.18), rng.uniform(0.2, 0.3), rng.uniform(0.1, 0.2)
    colour = _colour(rng)
    sides = [Wall((0, side * width, height), (depth, THICK, height), colour) for side in (-1, 1)]
    return Surroundings([Wall((-depth, 0, height), (THICK, width, height), colour), *sides])


def _desk(rng: np.random.Generator) -> Surroundings:
    """A desk in a room, a wall behind it, and boxes that stand around on the floor; desk or floor is of one colour."""
    x, y, tint = rng.uniform(0.3, 0.5), rng.uniform(0.35, 0.6), rng.uniform(0.85, 1.15)
    grey = rng.uniform(0.15, 0.85)
    red, green, blue = (float(np.clip(grey * each, 0, 1)) for each in (tint, 1.0, 2 - tint))
    shift = rng.uniform(-0.12, 0.12, 2)
    smooth = rng.random() < 0.6
    desk = Wall((float(shift[0]), float(shift[1]), DESK / 2), (x, y, DESK / 2), (red, green, blue) if smooth else None)
    back = Wall((-rng.uniform(0.75, 1.1), 0, 0.7), (THICK, 1.2, 0.7), _colour(rng))
    boxes = []
    for _ in range(rng.integers(0, 4)):
        side, height = rng.uniform(0.05, 0.15), rng.uniform(0.05, 0.3)
        away = rng.choice([-1, 1]) * (y + 0.12 + side + rng.uniform(0.02, 0.15))
        boxes.append(Wall((rng.uniform(-0.6, 0.2), float(away), height), (side, side, height), _colour(rng)))
    return Surroundings([desk, back, *boxes], None if smooth else (red, green, blue))


def _colour(rng: np.random.Generator) -> Colour:
    red, green, blue = (float(value) for value in rng.uniform(0.15, 0.9, 3))
    return red, green, blue


PLACES = {
    "table": Place(_none, (0, 50)),
    "bin": Place(_bin, (0, 22)),
    "shelf": Place(_shelf, (10, 55), (-35, 35)),
    "desk": Place(_desk, (25, 65), (-40, 40), fill=(0.25, 0.85), spread=(0.02, 0.12), ground=DESK),
}

# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: scenes with their layers, true and predicted, to be looked at."""

from collections.abc import Sequence

import cv2
import numpy as np

from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.pictures import layer_colour
from training.data.packed import PackedScenes, evenly
from training.data.scene import Scene

CELL = 128  # pixels


def contact_sheet(scenes: PackedScenes, count: int = 24, columns: int = 4) -> np.ndarray:
    """uint8 [rows * 128, columns * 256, 3] RGB: `count` scenes spread evenly over the set, each beside its layers.

    The front layer is drawn last; the outline of what it hides is drawn through it.
    """
    chosen = [scenes[k] for k in evenly(len(scenes), count)]
    return _arranged([[scene.image, _picture(scene.layers)] for scene in chosen], columns)


def answer_sheet(scenes: Sequence[Scene], predicted: Sequence[np.ndarray], columns: int = 3) -> np.ndarray:
    """uint8 [rows * 128, columns * 384, 3] RGB: each scene's image, its true layers, and the predicted ones, bool [L, h, w]."""
    pairs = zip(scenes, predicted, strict=True)
    return _arranged([[_square(scene.image), _picture(scene.layers), _picture(stack)] for scene, stack in pairs], columns)


def _arranged(rows: list[list[np.ndarray]], columns: int) -> np.ndarray:
    return in_columns([np.hstack([_fit(picture) for picture in row]) for row in rows], columns)


def in_columns(cells: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Pictures uint8 [h, w, 3] of one size, row by row, as one; what is left of the last row is black."""
    cells = [*cells, *[np.zeros_like(cells[0])] * (-len(cells) % columns)]
    return np.vstack([np.hstack(cells[k : k + columns]) for k in range(0, len(cells), columns)])


def _square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return Geometry.letterbox(width, height).to_model(image, CELL)


def _picture(layers: np.ndarray) -> np.ndarray:
    """Each layer bool [L, h, w] in its colour over those behind it, its hidden outline drawn through."""
    picture = np.full((*layers.shape[1:], 3), 32, np.uint8)
    for k in reversed(range(len(layers))):
        picture[layers[k]] = layer_colour(k + 1)
    for k, layer in enumerate(layers):
        outline = layer & ~cv2.erode(layer.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        picture[outline & layers[:k].any(axis=0)] = layer_colour(k + 1)
    return picture


def _fit(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (CELL, CELL), interpolation=cv2.INTER_NEAREST)

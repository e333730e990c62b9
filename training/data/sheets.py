# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: scenes of a set with their layers, to be looked at."""

import cv2
import numpy as np

from seqamodal_ros.scene.pictures import layer_colour
from training.data.packed import PackedScenes
from training.data.scene import Scene

CELL = 128  # pixels


def contact_sheet(scenes: PackedScenes, count: int = 24, columns: int = 4) -> np.ndarray:
    """uint8 [rows * 128, columns * 256, 3] RGB: `count` scenes spread evenly over the set, each beside its layers.

    The front layer is drawn last; the outline of what it hides is drawn through it.
    """
    chosen = np.unique(np.linspace(0, len(scenes) - 1, count).round().astype(int))
    cells = [np.hstack([_fit(scenes[int(k)].image), _fit(_layers(scenes[int(k)]))]) for k in chosen]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[k : k + columns]) for k in range(0, len(cells), columns)])


def _layers(scene: Scene) -> np.ndarray:
    """Each layer in its colour over those behind it, its hidden outline drawn through."""
    picture = np.full((*scene.amodal.shape[1:], 3), 32, np.uint8)
    layers = scene.layers
    for k in reversed(range(len(layers))):
        picture[layers[k]] = layer_colour(k + 1)
    for k, layer in enumerate(layers):
        outline = layer & ~cv2.erode(layer.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        picture[outline & layers[:k].any(axis=0)] = layer_colour(k + 1)
    return picture


def _fit(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (CELL, CELL), interpolation=cv2.INTER_NEAREST)

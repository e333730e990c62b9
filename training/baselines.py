# SPDX-License-Identifier: Apache-2.0
"""Baselines that keep figures honest: they complete nothing, or little, of what is visible in truth, or to the model."""

import cv2
import numpy as np

from seqamodal_ros.scene.components import components
from seqamodal_ros.scene.layers import layer_indices, layer_masks, visible_masks
from seqamodal_ros.scene.scene import LayeredScene
from training.data.scene import Scene


def connected(scene: Scene) -> list[np.ndarray]:
    """The visible masks bool [h, w] of connected parts of the true layers: the objects of who knows the layers and no centres."""
    layers = scene.layers
    return [
        part & seen for layer, seen in zip(layers, visible_masks(layers), strict=True) for part in components(layer, area_min=1)
    ]


def visible_layers(scene: Scene) -> np.ndarray:
    """bool [L, h, w], no completion at all: each layer's visible objects."""
    return layer_masks(scene.visible, layer_indices(scene.occluded_by))


def hull_layers(scene: Scene) -> np.ndarray:
    """bool [L, h, w], the least completion: the convex hull of each visible object."""
    hulls = np.array([_hull(mask) for mask in scene.visible], bool).reshape(scene.amodal.shape)
    return layer_masks(hulls, layer_indices(scene.occluded_by))


def predicted_hull_layers(scene: LayeredScene) -> np.ndarray:
    """bool [L, h, w], what is left of a prediction without its hidden parts: the convex hull of each predicted visible object,
    and of each connected part of what makes no objects."""
    hulls = np.zeros_like(scene.amodal)
    for layer, (hull, rest) in enumerate(zip(hulls, scene.visible, strict=True), start=1):
        things = [thing.visible for thing in scene.objects if thing.layer == layer]
        for part in (*things, *components(rest & ~np.logical_or.reduce(things, initial=False), area_min=1)):
            hull |= _hull(part)
    return hulls


def _hull(mask: np.ndarray) -> np.ndarray:
    filled = np.zeros(mask.shape, np.uint8)
    points = np.argwhere(mask)[:, ::-1].astype(np.int32)
    if len(points):
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled.astype(bool)

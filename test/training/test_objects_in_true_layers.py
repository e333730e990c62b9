# SPDX-License-Identifier: Apache-2.0
"""The objects that a model tells apart in layers that it is told."""

import numpy as np
import pytest

from seqamodal_ros import LayeredScene, Perceiver
from seqamodal_ros.scene.components import components
from training.data.scene import Scene
from training.metrics import iou
from training.predictions import objects_in_true_layers

IMAGE = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(32, 0).repeat(32, 1)


def told(perceiver: Perceiver, layers: np.ndarray) -> list[np.ndarray]:
    """What it tells apart in these layers, each of which lies on all that follow."""
    on_what_follows = np.tri(len(layers), k=-1, dtype=bool)
    (objects,) = objects_in_true_layers(perceiver, [Scene(IMAGE, layers, on_what_follows)])
    return objects


def found(scene: LayeredScene, masks: list[np.ndarray]) -> float:
    """Share of the scene's objects, of those that show, whose visible mask is one of these, or nearly so."""
    shown = [thing.visible for thing in scene.objects if thing.visible.any()]
    return float(np.mean([any(iou(visible, mask) > 0.8 for mask in masks) for visible in shown]))


@pytest.mark.parametrize("mirror", [False, True])
def test_they_are_those_it_saw_where_the_layers_are_its_own(centred_model, mirror):
    perceiver = Perceiver.load(str(centred_model), "cpu", mirror=mirror)
    seen = perceiver(IMAGE)
    assert len(seen.objects) > len(seen.amodal) > 1
    assert found(seen, told(perceiver, seen.amodal)) > 0.9  # a pixel as far from one centre as from another may go either way
    layers = zip(seen.amodal, seen.visible, strict=True)
    assert found(seen, [part & visible for layer, visible in layers for part in components(layer, 10)]) < 0.5


def test_they_are_connected_parts_where_a_network_knows_no_centres(small_model, rectangles):
    left, right, behind = rectangles((2, 2, 8, 12), (20, 2, 26, 12), (4, 6, 22, 20))
    objects = told(Perceiver.load(str(small_model), "cpu"), np.stack([left | right, behind]))
    assert np.array_equal(objects, [left, right, behind & ~left & ~right])


def test_a_bare_scene_has_none(centred_model):
    assert told(Perceiver.load(str(centred_model), "cpu"), np.zeros((0, 32, 32), bool)) == []

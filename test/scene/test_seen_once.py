# SPDX-License-Identifier: Apache-2.0
"""A layer that one of several hypotheses saw alone makes no objects, unless it is the first."""

import numpy as np
import pytest


@pytest.mark.parametrize(("seen_by", "layers"), [((3, 3), [1, 2]), ((3, 2), [1, 2]), ((3, 1), [1]), ((1, 3), [1, 2])])
def test_objects_of_a_layer_that_one_hypothesis_saw(make_scene, rectangles, seen_by, layers):
    amodal = rectangles((2, 2, 14, 14), (10, 10, 28, 28))
    hypotheses = np.repeat(amodal[:, None], 3, axis=1)
    for of_layer, count in zip(hypotheses, seen_by, strict=True):
        of_layer[count:] = False
    scene = make_scene(amodal, hypotheses=hypotheses)
    assert [obj.layer for obj in scene.objects] == layers
    assert len(scene.amodal) == 2  # the layer itself is there


def test_one_hypothesis_is_as_good_as_it_gets_where_one_was_asked_for(make_scene, rectangles):
    assert len(make_scene(rectangles((2, 2, 14, 14), (10, 10, 28, 28)), samples=1).objects) == 2


def test_objects_further_back_are_under_what_is_named(make_scene, rectangles):
    amodal = rectangles((2, 2, 14, 14), (10, 10, 20, 20), (12, 12, 28, 28))
    hypotheses = np.repeat(amodal[:, None], 2, axis=1)
    hypotheses[1, 1] = False
    first, last = make_scene(amodal, hypotheses=hypotheses).objects
    assert (first.id, last.id, last.layer, last.occluded_by) == (1, 2, 3, (1,))

# SPDX-License-Identifier: Apache-2.0
"""Objects in each hypothesis of their layer, and how sure it is what lies on what."""

import json
from dataclasses import replace

import numpy as np
import pytest

from seqamodal_ros.scene.report import layers_json


@pytest.fixture
def scene(make_scene, rectangles):
    """One object in front; two behind it in one layer, K = 4, of which the left one may end before the front one."""
    front, left, right, shorter, both = rectangles((8, 0, 16, 12), (0, 2, 10, 10), (14, 2, 24, 10), (0, 2, 8, 10), (0, 2, 24, 10))
    blank = np.zeros_like(front)
    hypotheses = np.array([[front] * 4, [left | right, shorter | right, both, blank]])
    return make_scene(np.array([front, left | right]), hypotheses=hypotheses)


def test_each_object_in_each_hypothesis(scene, rectangles):
    shorter, left_half, right_half = rectangles((0, 2, 8, 10), (0, 2, 12, 10), (12, 2, 24, 10))
    left, right = (scene.object_hypotheses[number] for number in (2, 3))
    assert left.shape == (4, 32, 32)
    assert np.array_equal(left[0], scene.objects[1].amodal)
    assert np.array_equal(left[1], shorter)
    assert np.array_equal(left[2], left_half)  # what connects both is divided where it is as far from the one as from the other
    assert np.array_equal(right[2], right_half)
    assert not left[3].any()
    assert not right[3].any()


def test_a_part_that_touches_no_object_is_nobodys(make_scene, rectangles):
    thing, elsewhere = rectangles((0, 0, 8, 8), (20, 20, 28, 28))
    scene = make_scene(thing[None], hypotheses=np.array([[thing, thing | elsewhere]]))
    assert np.array_equal(scene.object_hypotheses[1], np.array([thing, thing]))


def test_a_fragment_beside_an_object_is_not_part_of_it(make_scene, rectangles):
    front, thing, fragment, deep = rectangles((8, 0, 16, 12), (16, 0, 26, 12), (10, 2, 16, 8), (4, 0, 20, 14))
    amodal = np.array([front, thing | fragment, deep])
    ways = np.zeros((3, 2, 32, 32))
    ways[1, 0, fragment], ways[1, 0, thing] = -8, 4  # to centres of their own
    probability = np.where(amodal, 0.9, 0.1).astype(np.float32)
    probability[1, fragment] = 0.3
    scene = make_scene(amodal, probability=probability, to_centres=ways)
    (seen,) = [obj for obj in scene.objects if obj.layer == 2]
    assert np.array_equal(seen.amodal, thing)
    assert np.array_equal(scene.object_hypotheses[seen.id], np.array([thing, thing]))
    assert scene.occluder_shares[seen.id] == {}


def test_the_share_is_of_the_hypotheses_that_see_the_object(scene):
    assert scene.occluder_shares == {1: {}, 2: {1: pytest.approx(2 / 3)}, 3: {1: 1.0}}


def test_what_some_hypothesis_would_add_is_listed(make_scene, rectangles):
    front, behind, longer, smaller = rectangles((8, 0, 16, 12), (18, 2, 26, 10), (12, 2, 26, 10), (18, 2, 21, 10))
    scene = make_scene(np.array([front, behind]), hypotheses=np.array([[front] * 3, [behind, longer, smaller]]))
    assert scene.objects[1].occluded_by == ()
    assert scene.occluder_shares[2] == {1: 0.5}  # the smaller has less than half of what is visible


def test_an_occluder_that_no_hypothesis_confirms_is_listed_with_zero(make_scene, rectangles):
    front, behind, shorter = rectangles((8, 0, 16, 12), (12, 2, 26, 10), (16, 2, 26, 10))
    scene = make_scene(np.array([front, behind]), hypotheses=np.array([[front] * 2, [shorter, shorter]]))
    assert scene.occluder_shares[2] == {1: 0.0}


def test_an_object_of_no_layer_is_left_out(scene):
    strange = replace(scene, objects=(*scene.objects[:2], replace(scene.objects[2], layer=7)))
    assert set(strange.object_hypotheses) == set(strange.occluder_shares) == {1, 2}


def test_without_hypotheses_nothing_is_said(make_scene, rectangles):
    scene = make_scene(rectangles((0, 0, 8, 8), (4, 4, 12, 12)), hypotheses=np.zeros((2, 0, 32, 32), bool))
    assert scene.object_hypotheses == scene.occluder_shares == {}


def test_layers_json_has_the_shares(scene):
    objects = json.loads(json.dumps(layers_json(scene), allow_nan=False))["objects"]
    assert [obj["occluder_shares"] for obj in objects] == [{}, {"1": pytest.approx(2 / 3)}, {"1": 1.0}]

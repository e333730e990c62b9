# SPDX-License-Identifier: Apache-2.0
"""A part of little score that lies within a larger object further back is a fragment of that, and no object."""

import numpy as np
import pytest

from seqamodal_ros.scene.status import Status, status_of

SMALL, LARGE = (4, 4, 9, 9), (2, 2, 24, 24)
FOUR_FIFTHS, LESS = (20, 4, 25, 9), (21, 4, 26, 9)  # of their columns within LARGE: four of five, and three
AS_LARGE = (2, 2, 24, 20)  # more than four fifths of LARGE


@pytest.fixture
def seen(make_scene, rectangles):
    """A scene of one rectangle a layer, each of one score."""

    def see(*boxes: tuple[int, int, int, int], scores: tuple[float, ...]):
        amodal = rectangles(*boxes)
        probability = np.where(amodal, np.array(scores)[:, None, None], 0).astype(np.float32)
        return make_scene(amodal, probability=probability)

    return see


@pytest.mark.parametrize(
    ("front", "score", "objects"),
    [(SMALL, 0.59, 1), (SMALL, 0.61, 2), (FOUR_FIFTHS, 0.5, 1), (LESS, 0.5, 2), (AS_LARGE, 0.5, 2)],
)
def test_what_is_a_fragment(seen, front, score, objects):
    assert len(seen(front, LARGE, scores=(score, 0.9)).objects) == objects


def test_a_fragment_hides_what_lies_behind_it(seen):
    scene = seen(SMALL, LARGE, scores=(0.5, 0.9))
    (thing,) = scene.objects
    assert (thing.layer, thing.occluded_by) == (2, ())
    assert (thing.visible == scene.visible[1]).all()
    assert not scene.label()[scene.amodal[0]].any()


def test_what_lies_on_two_things_is_a_fragment_of_neither(make_scene, rectangles):
    amodal = rectangles((10, 4, 20, 9), (2, 2, 15, 24), (15, 2, 28, 24))
    amodal = np.array([amodal[0], amodal[1] | amodal[2]])
    rows, columns = np.mgrid[:32, :32]
    ways = np.array([[15 - columns, 6 - rows], [np.where(columns < 15, 8, 21) - columns, 13 - rows]], np.float32)
    probability = np.where(amodal, np.array([0.5, 0.9])[:, None, None], 0).astype(np.float32)
    scene = make_scene(amodal, probability=probability, to_centres=ways)
    assert [(obj.layer, obj.occluded_by) for obj in scene.objects] == [(1, ()), (2, (1,)), (2, (1,))]


def test_a_fragment_is_one_of_an_object_and_not_of_another_fragment(seen):
    """The middle one is a fragment of the last; of the first, less than four fifths lie within the last."""
    first, middle, last = (20, 4, 26, 8), (16, 3, 26, 9), (2, 2, 24, 24)
    assert [obj.layer for obj in seen(first, middle, last, scores=(0.5, 0.5, 0.9)).objects] == [1, 3]
    assert [obj.layer for obj in seen(first, middle, last, scores=(0.5, 0.9, 0.9)).objects] == [2, 3]


def test_it_is_told_that_there_is_one_in_front(make_scene, rectangles):
    front, thing = rectangles(SMALL, LARGE)
    amodal = np.array([front | rectangles((26, 26, 31, 31))[0], thing])
    probability = np.where(amodal, 0.9, 0).astype(np.float32)
    probability[0][front] = 0.5
    scene = make_scene(amodal, probability=probability)
    assert [obj.layer for obj in scene.objects] == [1, 2]
    assert status_of(scene) == (Status.LOW_CONFIDENCE, "a fragment of the front layer scores 0.50, below 0.6")


def test_fragments_alone_in_front(seen):
    assert status_of(seen(SMALL, LARGE, scores=(0.5, 0.9))) == (
        Status.LOW_CONFIDENCE,
        "the front layer holds specks or fragments only, no object",
    )

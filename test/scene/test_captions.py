# SPDX-License-Identifier: Apache-2.0
"""Captions: numbers with their nouns, and what is left out where it is unknown."""

from dataclasses import replace

import numpy as np
import pytest

from seqamodal_ros.scene.captions import counted, layer_facts, ordinal, scene_facts
from seqamodal_ros.scene.geometry import Geometry


def test_nouns_and_ordinals():
    assert [counted(number, "layer") for number in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]
    )


def test_facts_of_a_scene(make_scene, rectangles):
    scene = make_scene(rectangles((0, 0, 8, 8), (4, 0, 12, 8)), seconds=0.25, truncated=True)
    assert scene_facts(scene) == ["2 layers", "2 objects", "K = 2", "truncated: more layers may exist", "0.25 s"]
    assert scene_facts(make_scene(np.zeros((0, 8, 8)))) == ["0 layers", "0 objects", "K = 2"]


@pytest.mark.parametrize(
    ("geometry", "said"),
    [
        (Geometry.letterbox(64, 48), []),
        (Geometry.centre_crop(64, 48), ["looked at 48x48 at 8, 0"]),
        (Geometry.centre_crop(640, 479), ["looked at 479x479 at 80.5, 0"]),
        (Geometry.centre_crop(4, 3), ["looked at 3x3 at 0.5, 0"]),
        (Geometry.region(64, 48, 10, 20, 30, 16), ["looked at 30x16 at 10, 20"]),
    ],
    ids=["all", "crop", "odd crop", "small crop", "region"],
)
def test_what_alone_was_looked_at_is_said(make_scene, geometry, said):
    assert scene_facts(make_scene(np.zeros((0, 8, 8)), geometry=geometry))[3:] == said


@pytest.mark.parametrize(("samples", "agreement"), [(1, []), (2, ["agreement 1.00"])])
def test_facts_of_a_layer(make_scene, rectangles, samples, agreement):
    scene = make_scene(rectangles((0, 0, 8, 8), (4, 0, 12, 8)), samples=samples)
    assert layer_facts(scene, 1) == ["1 object", "50% hidden", *agreement]


def test_a_layer_that_one_hypothesis_saw_says_so(make_scene, rectangles):
    scene = make_scene(rectangles((0, 0, 8, 8), (4, 0, 12, 8)), samples=3)
    hypotheses = scene.hypotheses.copy()
    hypotheses[1, 1:] = False
    assert layer_facts(replace(scene, hypotheses=hypotheses), 1) == ["1 object", "50% hidden", "seen by 1 of 3"]

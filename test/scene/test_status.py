# SPDX-License-Identifier: Apache-2.0
"""How far an answer can be trusted: the same word in a message, in layers.json, on the screen, on the sheet and on the page."""

import math
from dataclasses import replace

import numpy as np
import pytest

from seqamodal_ros.scene.page_frame import frame_html
from seqamodal_ros.scene.pictures import contact_sheet
from seqamodal_ros.scene.report import layers_json, row
from seqamodal_ros.scene.status import Status, status_of


@pytest.fixture
def unsure(make_scene, rectangles):
    """A large object of score 0.9 and a small one of 0.4, both in front."""
    masks = rectangles((2, 2, 14, 14)) | rectangles((20, 20, 28, 28))
    probability = np.where(masks, 0.9, 0.1).astype(np.float32)
    probability[0, 20:28, 20:28] = 0.4
    return make_scene(masks, probability=probability)


def test_an_unsure_object_in_front(unsure):
    assert status_of(unsure) == (Status.LOW_CONFIDENCE, "an object of the front layer scores 0.40, below 0.6")


def test_a_score_next_to_the_bound_is_not_rounded_up_to_it(make_scene, rectangles):
    masks = rectangles((2, 2, 14, 14))
    scene = make_scene(masks, probability=np.where(masks, 0.597, 0.1).astype(np.float32))
    assert "scores 0.59, below 0.6" in status_of(scene)[1]


def test_an_unsure_object_behind_is_no_reason(make_scene, rectangles):
    masks = rectangles((2, 2, 14, 14), (10, 10, 28, 28))
    probability = np.where(masks, 0.9, 0.1).astype(np.float32)
    probability[1, 10:28, 10:28] = 0.4
    assert status_of(make_scene(masks, probability=probability)) == (Status.OK, "")


@pytest.mark.parametrize("unknown", [0, 1])
def test_a_score_that_was_not_computed_hides_no_low_one(unsure, unknown):
    objects = [replace(obj, score=math.nan) if index == unknown else obj for index, obj in enumerate(unsure.objects)]
    objects[1 - unknown] = replace(objects[1 - unknown], score=0.3)
    said = status_of(replace(unsure, objects=tuple(objects)))
    assert said == (Status.LOW_CONFIDENCE, "an object of the front layer scores 0.30, below 0.6")
    none = tuple(replace(obj, score=math.nan) for obj in unsure.objects)
    assert status_of(replace(unsure, objects=none)) == (Status.OK, "")


def test_specks_alone(make_scene, rectangles):
    assert status_of(make_scene(rectangles((2, 2, 4, 4)))) == (
        Status.LOW_CONFIDENCE,
        "the front layer holds specks or fragments only, no object",
    )


def test_the_values_are_the_messages():
    masks = pytest.importorskip("seqamodal_msgs.msg._layered_masks", reason="needs seqamodal_msgs: `make build`").LayeredMasks
    assert {each.name: each.value for each in Status} == {each.name: getattr(masks, each.name) for each in Status}


def test_it_is_said_wherever_an_answer_is_shown(unsure, make_scene):
    sure = make_scene(unsure.amodal)
    image = np.zeros((32, 32, 3), np.uint8)
    report = layers_json(unsure)
    assert (report["status"], report["status_message"]) == ("LOW_CONFIDENCE", status_of(unsure)[1])
    assert row("one", unsure).endswith(f"  1 2  LOW_CONFIDENCE: {status_of(unsure)[1]}")
    assert f'<p class="caution">LOW_CONFIDENCE: {status_of(unsure)[1]}</p>' in frame_html(1, "one", image, unsure)
    assert (layers_json(sure)["status"], layers_json(sure)["status_message"]) == ("OK", "")
    assert "LOW_CONFIDENCE" not in row("one", sure) + frame_html(1, "one", image, sure)
    headlines = [contact_sheet(image, scene, "one")[:52] for scene in (unsure, sure)]
    assert (headlines[0] != headlines[1]).any()


def test_so_it_is_where_nothing_is_seen(make_scene):
    image, said = np.zeros((8, 8, 3), np.uint8), "LOW_CONFIDENCE: cannot tell: too dark"
    doubtful, empty = (make_scene(np.zeros((0, 8, 8)), doubt=doubt) for doubt in ("too dark", ""))
    assert (layers_json(doubtful)["status"], layers_json(empty)["status"]) == ("LOW_CONFIDENCE", "EMPTY")
    assert row("one", doubtful).endswith(f"  -  {said}") and row("one", empty).endswith("  -  EMPTY: no layer found")
    assert said in frame_html(1, "one", image, doubtful)
    assert "LOW_CONFIDENCE" not in frame_html(1, "one", image, empty)
    assert (contact_sheet(image, doubtful, "one")[:52] != contact_sheet(image, empty, "one")[:52]).any()

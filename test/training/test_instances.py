# SPDX-License-Identifier: Apache-2.0
"""Figures of objects and of whole sets, on scenes for which they can be worked out by hand."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from seqamodal_ros import LayeredScene
from seqamodal_ros.scene.geometry import Geometry
from training.data.scene import Scene
from training.data.sheets import answer_sheet
from training.figures import difference, markdown, measure, worst_first
from training.instances import ap_by_object, coco_ap, occluding_pairs, pickable, told_apart

SIDE = 20


def box(left: int, right: int, top: int = 0, bottom: int = 10) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = True
    return mask


def scene(*amodal: np.ndarray, occluded_by=()) -> Scene:
    z = np.zeros((len(amodal),) * 2, bool)
    for pair in occluded_by:
        z[pair] = True
    return Scene(np.zeros((SIDE, SIDE, 3), np.uint8), np.array(amodal, bool).reshape(-1, SIDE, SIDE), z)


def seen(*layers: np.ndarray, probability: float = 0.9) -> LayeredScene:
    stack = np.array(layers, bool).reshape(-1, SIDE, SIDE)
    return LayeredScene.assemble(stack, probability * stack.astype(np.float32), stack[:, None], Geometry.letterbox(SIDE, SIDE))


FRONT, BEHIND = box(0, 10), box(5, 15)  # BEHIND is half covered
PAIR = scene(FRONT, BEHIND, occluded_by=[(1, 0)])


def test_all_found():
    assert coco_ap([seen(FRONT, BEHIND)], [PAIR]) == (1, 1)
    assert ap_by_object([[FRONT, BEHIND]], [PAIR]) == 1
    assert vars(pickable([seen(FRONT, BEHIND)], [PAIR]).shares()) == {"precision": 1, "recall": 1, "first": 1, "images": 1}


def test_half_found_is_half_of_the_recall():
    """One of two objects is found: precision is 1 up to a recall of 0.5, which is 51 of COCO's 101 points."""
    assert coco_ap([seen(FRONT)], [PAIR]) == pytest.approx((51 / 101, 51 / 101))


def test_a_rough_mask_counts_up_to_its_iou():
    """IOU 0.8 is enough at 0.5, 0.55, ... 0.8: seven of ten thresholds."""
    ap, ap_50 = coco_ap([seen(box(0, 8))], [scene(FRONT)])
    assert (ap, ap_50) == pytest.approx((0.7, 1))
    assert coco_ap([seen(box(0, 6))], [scene(FRONT)]) == pytest.approx((0.3, 1))
    assert [pickable([seen(box(0, right))], [scene(FRONT)]).shares().precision for right in (4, 5, 6)] == [0, 1, 1]


def test_a_false_object_counts_where_it_is_surer():
    """The false one is ranked first, so precision is 1/2 wherever the true one is found."""
    sure, unsure = seen(box(0, 5, 12, 20), probability=0.9), seen(FRONT, probability=0.6)
    assert coco_ap([sure, unsure], [scene(), scene(FRONT)]) == pytest.approx((0.5, 0.5))
    sure, unsure = seen(box(0, 5, 12, 20), probability=0.6), seen(FRONT, probability=0.9)
    assert coco_ap([sure, unsure], [scene(), scene(FRONT)]) == pytest.approx((1, 1))


def test_nothing_found_and_nothing_there():
    assert coco_ap([seen()], [PAIR]) == (0, 0)
    assert coco_ap([seen(FRONT)], [scene()]) == (0, 0)
    assert ap_by_object([[]], [PAIR]) == pytest.approx(100 / 400)  # a blank mask scores pi
    assert math.isnan(ap_by_object([[]], [scene()]))


def test_what_lies_behind_is_not_free():
    both_in_front = seen(box(0, 4) | BEHIND & ~box(5, 10))  # the front one is missed, the one behind is taken for free
    assert vars(pickable([both_in_front], [PAIR]).shares()) == {"precision": 0, "recall": 0, "first": 0, "images": 1}
    apart = scene(box(0, 8), box(12, 20))
    assert vars(pickable([seen(box(0, 8))], [apart]).shares()) == {"precision": 1, "recall": 0.5, "first": 1, "images": 1}
    wrong_layer = seen(box(0, 8), box(12, 20))
    assert vars(pickable([wrong_layer], [apart]).shares()) == {"precision": 1, "recall": 0.5, "first": 1, "images": 1}
    assert math.isnan(pickable([seen()], [apart]).shares().precision)
    assert math.isnan(pickable([seen(FRONT)], [scene()]).shares().recall)


def test_what_is_surer_can_be_picked_sooner():
    """The first image has a false object on the left and, surer, a true one on the right; the second's only one is false."""
    right = box(12, 18)
    scores = (np.where(right, 0.95, 0.7) * (FRONT | right)).astype(np.float32)
    stack = (FRONT | right)[None]
    images = [
        LayeredScene.assemble(stack, scores[None], stack[:, None], Geometry.letterbox(SIDE, SIDE)),
        seen(FRONT, probability=0.8),
    ]
    truth = [scene(right), scene(right)]
    assert vars(pickable(images, truth).shares()) == {"precision": pytest.approx(1 / 3), "recall": 0.5, "first": 0.5, "images": 1}
    assert vars(pickable(images, truth, min_score=0.9).shares()) == {"precision": 1, "recall": 0.5, "first": 1, "images": 0.5}


def test_objects_that_touch_are_one_and_fit_neither():
    assert vars(pickable([seen(box(0, 20))], [scene(box(0, 9), box(11, 20))]).shares()) == {
        "precision": 0,
        "recall": 0,
        "first": 0,
        "images": 1,
    }


def test_an_object_that_two_picks_fit_is_found_once():
    halves = box(0, 5) | box(6, 11)
    found = pickable([seen(halves)], [scene(halves)])
    assert (found.right.tolist(), found.found.tolist(), found.shares().recall) == ([2], [1], 1)


def visible(scene: LayeredScene) -> list[list[np.ndarray]]:
    return [[obj.visible for obj in scene.objects]]


def test_objects_that_touch_are_merged():
    true = scene(box(0, 5), box(5, 10), box(12, 18))
    found = told_apart(visible(seen(box(0, 10) | box(12, 18))), [true]).shares()
    assert (found.merged, found.split) == (pytest.approx(2 / 3), 0)


def test_one_that_is_seen_as_two_is_split():
    found = told_apart(visible(seen(box(0, 4) | box(6, 10))), [scene(box(0, 10))]).shares()
    assert (found.merged, found.split) == (0, 1)


def test_one_that_is_merged_counts_as_that_alone_though_it_is_split_too():
    found = told_apart([[box(0, 6) | box(12, 14), box(7, 10)]], [scene(box(0, 10), box(12, 14))]).shares()
    assert (found.merged, found.split) == (1, 0)


def test_half_of_an_object_is_not_most_of_it():
    """Neither of both objects that one takes half of, nor of itself in each of them."""
    found = told_apart([[box(0, 5), box(5, 15)]], [scene(box(0, 10), box(10, 20))]).shares()
    assert (found.merged, found.split) == (0, 0)


def test_one_on_top_of_another_is_neither():
    """Though its mask lies within the other's."""
    small = box(4, 8, 2, 6)
    found = told_apart(visible(seen(small, box(0, 10))), [scene(small, box(0, 10), occluded_by=[(1, 0)])]).shares()
    assert (found.merged, found.split) == (0, 0)


def test_of_no_objects_nothing_is_said():
    assert math.isnan(told_apart(visible(seen(FRONT)), [scene()]).shares().merged)
    assert told_apart(visible(seen()), [PAIR]).shares().merged == 0


def test_what_lies_on_what_by_the_share_of_the_hypotheses():
    """Both hypotheses of the first image see what is true, one of the second; of the third, where things lie apart, none does."""
    apart = scene(box(0, 8), box(10, 18), occluded_by=[])
    predicted = []
    for behind in ([BEHIND, BEHIND], [BEHIND, box(10, 15)], [box(10, 18), box(10, 18)]):
        stack = np.array([FRONT if behind[0] is BEHIND else box(0, 8), behind[0]])
        hypotheses = np.array([[stack[0]] * 2, behind])
        predicted.append(LayeredScene.assemble(stack, stack.astype(np.float32), hypotheses, Geometry.letterbox(SIDE, SIDE)))
    counts = occluding_pairs([*predicted, seen(FRONT)], [PAIR, PAIR, apart, PAIR])
    assert [each.tolist() for each in counts] == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0] * 4]
    figures = measure("set", [PAIR, PAIR, apart], predicted, [PAIR.layers, PAIR.layers, apart.layers], [[], [], []])
    assert "where of the hypotheses all do in 100.0 [20.7, 100.0] % of 1, some do in 100.0" in markdown(figures)
    assert "none does in 0.0 [0.0, 79.3] % of 1." in markdown(figures)


def test_two_parts_of_one_object_are_no_pair():
    assert not any(each.any() for each in occluding_pairs([seen(FRONT, box(0, 15))], [scene(FRONT)]))


def test_what_depth_says_against_a_pick():
    """Of two that are free by colour, FRONT lies under BEHIND in truth, which is nearer by depth."""
    alone = box(0, 10, top=13, bottom=20)
    truth = scene(FRONT, BEHIND, alone, occluded_by=[(0, 1)])
    depth = np.full((SIDE, SIDE), 1000, np.uint16)
    depth[BEHIND & ~FRONT] = 900
    known = replace(truth, depth=depth)
    predicted = [seen(FRONT | alone, BEHIND)]
    assert pickable(predicted, [known]).shares().precision == 0.5
    assert pickable(predicted, [known], by_depth=True).shares().precision == 1
    assert pickable(predicted, [truth], by_depth=True).shares().precision == 0.5  # no depth, no objection
    figures = measure("set", [known], predicted, [truth.layers], [truth.visible])
    assert [row["precision"] for row in figures["pickable_by_depth"]] == [1, 1, 1, 1, None]
    assert "| 0.8 or more, nothing nearer at its edge | 100.0 [" in markdown(figures)
    for scenes in ([truth], [known, truth]):  # of all images, or not at all
        told = [each.layers for each in scenes], [each.visible for each in scenes]
        assert measure("set", scenes, predicted * len(scenes), *told)["pickable_by_depth"] == []


def test_the_figures_of_a_set():
    """The first image is right; in the second nothing is seen; of the third, half of the front object."""
    scenes = [PAIR, PAIR, scene(FRONT)]
    predicted = [seen(FRONT, BEHIND), seen(), seen(box(0, 5))]
    figures = measure("set", scenes, predicted, [s.layers for s in scenes], [s.visible for s in scenes], groups=[0, 0, 1])
    assert figures["images"] == 3
    assert figures["stop_accuracy"] == pytest.approx(2 / 3)
    assert figures["false_layers"] == 0
    first, second = figures["layers"]
    assert (first["images"], second["images"]) == (3, 2)
    assert first["iou"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert second["iou"] == pytest.approx((1 + 0) / 2)
    assert first["iou_low"] is first["iou_high"] is None  # of two scenes
    assert "| 1 | 3 | 50.0 | " in markdown(figures)
    for key in ("stop_accuracy", "merged", "split"):
        low, high = figures[f"{key}_interval"]
        assert low <= figures[key] <= high
    picks = figures["pickable"][0]
    assert picks["precision_interval"][0] <= picks["precision"] <= picks["precision_interval"][1]
    assert first["forced_iou"] == second["forced_iou"] == 1
    assert (figures["merged_true"], figures["split_true"]) == (0, 0)
    assert (second["hidden_free"], second["hidden_predicted_hull"], second["hidden_forced"]) == (0.5, 0, 1)
    assert first["hidden_free"] is None  # nothing is hidden in layer 1
    assert (second["visible_iou"], second["best_layer"]) == (0.5, pytest.approx((1 + 0) / 2))
    pi = 100 / 400
    half = 1 * 0.5 + 0.5 * pi  # precision 1, recall 1/2
    assert figures["ap_with_layer"] == pytest.approx((1 + 1 + pi + pi + half) / 5)
    assert figures["iou_by_image"] == [[1, 1], [0, 0], [0.5]]
    assert worst_first(figures) == [1, 2, 0]
    json.dumps(figures, allow_nan=False)


def test_the_figures_of_a_layer_that_is_drawn_in_the_place_of_another():
    """A corner of the one behind is covered: its hull gives half of that back. Half of it was drawn where the truth was given."""
    behind = box(5, 15, 5, 15)
    true = scene(FRONT, behind, occluded_by=[(1, 0)])
    stack = np.array([behind, FRONT])
    hypotheses = np.array([[behind] * 3, [FRONT, box(0, 5), box(0, 5)]])
    predicted = LayeredScene.assemble(stack, stack.astype(np.float32), hypotheses, Geometry.letterbox(SIDE, SIDE))
    figures = measure("set", [true], [predicted], [np.array([FRONT, box(5, 10, 5, 15)])], [[]])
    row = figures["layers"][1]
    assert row["visible_iou"] == 0.75 and 0.8 < row["hull_iou"] < 0.95 and 0.3 < row["hidden_hull"] < 0.8
    assert (row["best_layer"], row["iou"]) == (1, pytest.approx(25 / 175))
    assert (row["forced_iou"], row["forced_ap"]) == (0.5, pytest.approx(1 * 0.5 + 0.5 * 100 / 400))
    assert figures["agreement"] == pytest.approx((1 + 0.5) / 2)  # of the layers


def intervals(figures: dict) -> list[list]:
    """Of a set, and of all that is counted in it."""
    rows = [figures, *figures["pickable"], *figures["occluding_pairs"].values()]
    found = [row[key] for row in rows for key in row if key.endswith("_interval")]
    return [*found, *([row["iou_low"], row["iou_high"]] for row in figures["layers"])]


def test_more_views_of_the_same_scenes_make_no_figure_surer():
    """Four views each of ten scenes, of which every other one is right, say no more than one view each."""
    right, wrong = seen(FRONT, box(5, 14)), seen(box(0, 15), box(0, 9, 5, 15))
    found = []
    for views in (1, 4):
        scenes, groups = [PAIR] * 10 * views, [*range(10)] * views
        told = [each.layers for each in scenes], [each.visible for each in scenes]
        figures = measure("set", scenes, [right, wrong] * 5 * views, *told, groups=groups)
        other = measure("set", scenes, [right, seen()] * 5 * views, *told, groups=groups)
        found.append((intervals(figures), re.findall(r"\[.*?\]", difference(figures, other).split("| ---")[-1])))
    (once, of_difference), (four_times, the_same) = found
    assert sum(None not in each for each in once) > 8 and len(of_difference) == 2
    assert all(one == pytest.approx(other) for one, other in zip(once, four_times, strict=True))
    assert of_difference == the_same


def test_what_is_printed_is_markdown():
    as_one = [np.logical_or.reduce(PAIR.visible)]
    text = markdown(measure("set", [PAIR], [seen(FRONT)], [PAIR.layers], [as_one])).splitlines()
    assert text[0].startswith(
        "**set**, 1 images: number of layers right in 0.0 [0.0, 79.3] %, 0.00 false layers an image; AP with layer 62.5"
    )
    assert "(in the true layers 100.0, 0.0; their connected parts 0.0, 0.0)" in text[0]
    assert "| 1 | 1 | 100.0 | 100.0 | 25.0 | 100.0 | 100.0 | 25.0 | 100.0 | 100.0 |" in text
    assert "| 2 | 1 | 0.0 | 25.0 | 25.0 | 0.0 | 25.0 | 25.0 | 100.0 | 100.0 |" in text
    assert "| 1 | - | - | - | - | 100.0 | 100.0 | 100.0 |" in text
    assert "| 0.8 or more | 100.0 [20.7, 100.0] | 100.0 | 100.0 [20.7, 100.0] | 100.0 |" in text
    assert "| 0.95 or more | - | 0.0 | - | 0.0 |" in text
    assert len({line.count("|") for line in text if line.startswith("|")}) == 3  # three tables


def test_a_bare_set_has_no_layers():
    figures = measure("bare", [scene()], [seen()], [scene().layers], [[]])
    assert figures["stop_accuracy"] == 1
    assert figures["layers"] == worst_first(figures) == []
    assert "AP with layer -" in markdown(figures)


def test_the_difference_is_paired_by_scene():
    """The first model is better by four or five tenths, though images differ by as much: the interval is of the difference."""
    scenes = [scene(FRONT)] * 6
    told = [s.layers for s in scenes], [s.visible for s in scenes]
    better = measure("set", scenes, [seen(FRONT), seen(box(0, 6))] * 3, *told)
    worse = measure("set", scenes, [seen(box(0, 5)), seen(box(0, 2))] * 3, *told)
    start, low, high = re.fullmatch(r"(.*) \[\+([\d.]+), \+([\d.]+)\] \|", difference(better, worse).splitlines()[2]).groups()
    assert start == "| 1 | 6 | +45.0" and 40 <= float(low) < 45 < float(high) <= 50
    assert difference(worse, better).splitlines()[2] == f"| 1 | 6 | -45.0 [-{high}, -{low}] |"
    with pytest.raises(ValueError, match="the other figures of 'set' are of other images"):
        difference(better, measure("set", scenes[:2], [seen(FRONT)] * 2, *(each[:2] for each in told)))


def test_a_sheet_shows_image_truth_and_answer():
    """Each in a cell of 128 pixels, three scenes beside each other."""
    sheet = answer_sheet([PAIR, PAIR], [PAIR.layers, PAIR.layers[:0]])
    assert sheet.shape == (128, 3 * 384, 3)
    truth, answer, nothing = (sheet[:, start : start + 128] for start in (128, 256, 384 + 256))
    assert (truth == answer).all()
    assert len(np.unique(truth.reshape(-1, 3), axis=0)) == 3  # two layers on grey
    assert (nothing == 32).all()


def test_layers_that_the_model_does_not_draw_and_the_time_are_told_at_the_top():
    predicted, forced = [seen(FRONT)] * 5, [PAIR.layers] * 5
    figures = measure("set", [PAIR] * 5, predicted, forced, [[]] * 5, max_layers=1, seconds=10.0)
    assert (figures["max_layers"], figures["seconds"]) == (1, 10.0)
    top = markdown(figures).split("| can be picked")[0]
    assert "5 of these images have up to 2 layers, more than the 1 that the model draws." in top
    assert "; free-running in 10.0 s, 2.000 s an image." in top
    for drawn in (2, None):
        text = markdown(measure("set", [PAIR] * 5, predicted, forced, [[]] * 5, max_layers=drawn))
        assert "more than" not in text and "free-running in" not in text


def test_where_all_images_are_alike_no_interval_is_printed():
    figures = measure("set", [PAIR] * 6, [seen(FRONT)] * 6, [PAIR.layers] * 6, [[]] * 6)
    text = markdown(figures)
    assert "| 1 | 6 | 100.0 | " in text and "| 2 | 6 | 0.0 | " in text
    assert "| 1 | 6 | +0.0 |" in difference(figures, figures)

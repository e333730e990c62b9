# SPDX-License-Identifier: Apache-2.0
"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_average_precision, binary_jaccard_index

from training.baselines import hull_layers, predicted_hull_layers, visible_layers
from training.data.compositor import Scene
from training.metrics import (
    average_precision,
    best_iou,
    bootstrap_interval,
    both_found,
    false_layers,
    hidden_iou,
    iou,
    layer_figures,
    share_interval,
    stop_accuracy,
)


def strip(start: int, stop: int, width: int = 10) -> np.ndarray:
    """bool [1, width], true from `start` up to `stop`."""
    mask = np.zeros((1, width), bool)
    mask[0, start:stop] = True
    return mask


BLANK = strip(0, 0)


def test_iou():
    assert iou(strip(0, 4), strip(2, 6)) == pytest.approx(2 / 6)
    assert iou(strip(0, 4), strip(0, 4)) == 1
    assert iou(BLANK, strip(0, 4)) == 0
    assert math.isnan(iou(BLANK, BLANK))


def test_average_precision_is_p_r_plus_the_rest_at_pi():
    # 2 of 4 predicted are right, 2 of 5 true are found, pi = 0.5
    assert average_precision(strip(0, 4), strip(2, 7)) == pytest.approx(0.5 * 0.4 + 0.6 * 0.5)
    assert average_precision(strip(0, 4), strip(0, 4)) == 1
    assert average_precision(BLANK, strip(0, 3)) == pytest.approx(0.3)
    assert math.isnan(average_precision(strip(0, 3), BLANK))


def test_iou_and_average_precision_are_torchmetrics():
    """Theirs are of scores and curves; a thresholded mask is a score of two values."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        predicted, true = rng.random((2, 8, 8)) > 0.6
        scores, labels = torch.from_numpy(predicted).float(), torch.from_numpy(true).long()
        assert iou(predicted, true) == pytest.approx(binary_jaccard_index(scores, labels).item())
        assert average_precision(predicted, true) == pytest.approx(binary_average_precision(scores, labels).item(), abs=1e-6)


def stack(*masks: np.ndarray) -> np.ndarray:
    return np.array(masks, bool).reshape(-1, 1, 10)


TRUE = [stack(strip(0, 4), strip(3, 8)), stack(strip(0, 5)), stack()]
PREDICTED = [stack(strip(0, 2)), stack(strip(0, 5), strip(4, 6)), stack(strip(9, 10))]


def test_first_layer():
    figures = layer_figures(PREDICTED, TRUE, 1)
    assert figures.images == 2  # the third image has no layer; its prediction counts in the pooled reading alone
    assert figures.iou == pytest.approx((0.5 + 1) / 2)
    assert figures.pi == pytest.approx((0.4 + 0.5) / 2)
    assert figures.ap == pytest.approx(((1 * 0.5 + 0.5 * 0.4) + 1) / 2)
    assert figures.pooled_iou == pytest.approx((2 + 5) / (4 + 5 + 1))
    assert figures.pooled_pi == pytest.approx(9 / 30)
    precision, recall = 7 / 8, 7 / 9
    assert figures.pooled_ap == pytest.approx(precision * recall + (1 - recall) * 9 / 30)


def test_a_missing_layer_is_blank_and_a_false_one_counts_when_pooled():
    figures = layer_figures(PREDICTED, TRUE, 2)
    assert figures.images == 1
    assert figures.iou == 0
    assert figures.ap == pytest.approx(figures.pi) == pytest.approx(0.5)
    assert figures.pooled_iou == 0
    assert figures.pooled_pi == pytest.approx(5 / 30)
    assert figures.pooled_ap == pytest.approx(5 / 30)


def test_a_layer_that_no_truth_has():
    with pytest.raises(ValueError, match="no image's truth has a layer 3"):
        layer_figures(PREDICTED, TRUE, 3)


def test_how_the_sequence_stops():
    assert stop_accuracy(PREDICTED, TRUE) == 0
    assert stop_accuracy(TRUE, TRUE) == 1
    assert stop_accuracy(PREDICTED[:1] + TRUE[1:], TRUE) == pytest.approx(2 / 3)
    assert false_layers(PREDICTED, TRUE) == pytest.approx((0 + 1 + 1) / 3)


def test_bootstrap_interval():
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    for side in (values.mean() - low, high - values.mean()):
        assert side == pytest.approx(1.96 * 0.1 / 400**0.5, rel=0.1)
    assert bootstrap_interval(values) == (low, high)


def test_a_scene_of_many_images_counts_as_many_times():
    """Of twenty scenes of one image, all wrong, and twenty of twenty images, all right, 95 % are right, and not half."""
    low, high = bootstrap_interval([0] * 20 + [1] * 400, [*range(20), *np.arange(20, 40).repeat(20)])
    assert 0.85 < low < 20 / 21 < high


@pytest.mark.parametrize(
    ("values", "groups"),
    [([], None), ([0.3], None), ([0.1, 0.2, 0.3, 0.4], None), ([0.1, 0.2] * 20, [0, 1, 2, 3] * 10), ([0.0] * 100, None)],
)
def test_few_scenes_or_equal_values_have_no_interval(values, groups):
    assert all(map(math.isnan, bootstrap_interval(values, groups)))


def test_five_scenes_have_an_interval():
    low, high = bootstrap_interval([0.1, 0.2, 0.3, 0.4, 0.5])
    assert 0.1 <= low < 0.3 < high <= 0.5


def test_the_interval_of_a_share_is_wilsons():
    """Of 80 of 100 independent ones: Wilson's is [71.1, 86.7] %."""
    assert share_interval([1] * 80 + [0] * 20, [1] * 100, range(100)) == pytest.approx((0.711, 0.867), abs=2e-3)
    # ten views of each of a hundred scenes, all alike, say no more
    alike = share_interval(([1] * 800 + [0] * 200), [1] * 1000, np.arange(100).repeat(10))
    assert alike == pytest.approx((0.711, 0.867), abs=2e-3)


def test_the_interval_of_a_share_is_of_as_many_as_vary_so_much():
    """Of ten scenes of one each nine, as the share is not known; of scenes that vary less than chance does no more than all."""
    for part, whole, count in (([1, 0] * 5, [1] * 10, 9), ([1] * 50 + [0, 2] * 5, [2] * 60, 120)):
        half = 1.96 / 2 / (count + 1.96**2) ** 0.5
        assert share_interval(part, whole, range(len(part))) == pytest.approx((0.5 - half, 0.5 + half))


def test_a_share_of_few_is_worth_little_though_all_are_right():
    low, high = share_interval([1, 1, 1], [1, 1, 1], range(3))
    assert (low, high) == (pytest.approx(0.438, abs=1e-3), pytest.approx(1))
    assert share_interval([5, 5, 0], [5, 5, 0], range(3))[0] < low  # of two scenes; the third has none
    assert all(map(np.isnan, share_interval([0, 0], [0, 0], range(2))))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_nineteen_in_twenty_intervals_hold_the_true_share(share):
    """Though what is in one scene is alike: it has a share of its own."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        whole = rng.integers(1, 6, 60)
        low, high = share_interval(rng.binomial(whole, rng.beta(2 * share, 2 * (1 - share), 60)), whole, range(60))
        assert 0 <= low <= high <= 1
        held += low <= share <= high
    assert held > 0.91 * 400


def test_one_mistake_more_makes_no_surer():
    widths = []
    for misses in range(4):
        part = [5] * 60
        part[:misses] = [4] * misses
        widths.append(np.subtract(*reversed(share_interval(part, [5] * 60, range(60)))))
    assert widths == sorted(widths)


def test_views_of_a_scene_are_drawn_together():
    """Ten scenes of forty equal views say no more than ten images do."""
    values = np.random.default_rng(0).normal(0.5, 0.1, 10)
    views, groups = values.repeat(40), np.arange(10).repeat(40)
    assert bootstrap_interval(views, groups) == pytest.approx(bootstrap_interval(values))
    low, high = bootstrap_interval(views)
    assert high - low < 0.3 * np.subtract(*reversed(bootstrap_interval(views, groups)))


def test_hidden_iou_counts_outside_the_visible_region_alone():
    amodal, visible = strip(0, 6), strip(0, 2)
    assert hidden_iou(strip(1, 5), amodal, visible) == pytest.approx(3 / 4)  # 2..4 of 2..5
    assert hidden_iou(visible, amodal, visible) == 0
    assert math.isnan(hidden_iou(amodal, amodal, amodal))


def test_both_are_found_from_an_iou_of_three_quarters_on():
    assert both_found(stack(strip(0, 8)), [strip(0, 10)]) and not both_found(stack(strip(0, 7)), [strip(0, 10)])


def test_best_iou_asks_for_no_order():
    assert best_iou(stack(strip(0, 3), strip(4, 8)), strip(4, 8)) == 1
    assert best_iou(stack(), strip(4, 8)) == 0


def test_baselines_on_a_corner_that_is_covered():
    """The front square covers a corner of the one behind: the hull gives half of that corner back."""
    front, back = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
    front[:8, :8], back[4:14, 4:14] = True, True
    scene = Scene(np.zeros((16, 16, 3), np.uint8), np.array([front, back]), np.array([[0, 0], [1, 0]], bool))
    visible, hull = visible_layers(scene), hull_layers(scene)
    assert (visible[0] == front).all()
    assert (visible[1] == (back & ~front)).all()
    assert (hull[0] == front).all()
    assert not (hull[1] & ~back).any()
    corner = back & front
    assert 6 <= (hull[1] & corner).sum() <= 10  # of 16


def test_the_hull_of_what_was_predicted_visible_knows_no_more(make_scene):
    """Of a complete square behind another one, half of the corner is left; of two things of a layer, each has a hull."""
    layers = np.zeros((2, 16, 16), bool)
    layers[0, :8, :8], layers[1, 4:11, 4:11], layers[1, 12:16, 12:16] = True, True, True
    hull = predicted_hull_layers(make_scene(layers))
    corner = np.zeros((16, 16), bool)
    corner[4:8, 4:8] = True
    assert (hull[0] == layers[0]).all()
    assert not (hull[1] & ~layers[1]).any()
    assert (hull[1] >= layers[1] & ~layers[0]).all()
    assert 6 <= (hull[1] & corner).sum() <= 10  # of 16
    one_of_three = np.repeat(layers[:, None], 3, axis=1)
    one_of_three[1, 1:] = False  # then it makes no objects
    scene = make_scene(layers, hypotheses=one_of_three)
    assert {obj.layer for obj in scene.objects} == {1} and (predicted_hull_layers(scene) == hull).all()


def test_baselines_of_a_bare_scene(make_scene):
    bare = Scene(np.zeros((16, 16, 3), np.uint8), np.zeros((0, 16, 16), bool), np.zeros((0, 0), bool))
    assert visible_layers(bare).shape == hull_layers(bare).shape == (0, 16, 16)
    assert predicted_hull_layers(make_scene(np.zeros((0, 16, 16), bool))).shape == (0, 16, 16)

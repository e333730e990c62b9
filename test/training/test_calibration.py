# SPDX-License-Identifier: Apache-2.0
"""The calibration error of cases counted by hand, and the temperature that mends it."""

from dataclasses import asdict

import numpy as np
import pytest

from seqamodal_ros import LayeredScene
from seqamodal_ros.scene.geometry import Geometry
from training.calibration import TEMPERATURES, draw, reliabilities, reliability
from training.figures import calibration


def test_the_error_is_the_mean_distance_over_all_pixels():
    found = reliability(np.array([0.95, 0.95, 0.95, 0.95, 0.05, 1.0]), np.array([True, True, False, False, False, True]))
    assert found.pixels == [1, 5]
    assert found.frequency == pytest.approx([0, 0.6]) and found.probability == pytest.approx([0.05, 0.96])
    assert found.error == pytest.approx((5 * 0.36 + 1 * 0.05) / 6)


def test_what_is_background_for_sure_does_not_hide_an_error_of_the_rest():
    found = reliability(np.array([0.01] * 96 + [0.6] * 4), np.array([False] * 97 + [True] * 3))
    assert found.error == pytest.approx(0.96 * 0.01 + 0.04 * 0.15)
    assert found.error_likely == pytest.approx(0.15)
    assert reliability(np.array([0.01]), np.array([False])).error_likely is None
    two_bins = reliability(np.array([0.6] * 4 + [0.9]), np.array([True] * 4 + [False]))
    assert two_bins.error_likely == pytest.approx((4 * 0.4 + 0.9) / 5)  # of pixels, not of bins
    assert reliability(np.array([0.15]), np.array([False])).error_likely == pytest.approx(0.15)
    assert "15.0 % of what gets 0.1 or more there" in calibration({"hidden": asdict(found)})[0]


def test_probabilities_that_mean_what_they_say_need_no_temperature():
    probability = np.repeat([0.1, 0.3, 0.7, 0.9], 1000)
    true = np.concatenate([np.arange(1000) < 1000 * p for p in (0.1, 0.3, 0.7, 0.9)])
    found = reliability(probability, true)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.temperature == TEMPERATURES[np.abs(TEMPERATURES - 1).argmin()]


def test_the_temperature_of_one_that_is_too_sure():
    odds = np.array([1 / 9, 9.0])
    probability, said = odds / (1 + odds), odds**3 / (1 + odds**3)  # three times the log-odds
    true = np.concatenate([np.arange(1000) < 1000 * p for p in probability])
    assert reliability(np.repeat(said, 1000), true).temperature == pytest.approx(3, rel=0.05)


def scene(amodal, probability) -> LayeredScene:
    return LayeredScene.assemble(amodal, probability, amodal[:, None], Geometry.letterbox(4, 4), area_min=1)


def test_pixels_with_a_layer_in_front_are_hidden_and_layers_too_many_are_wrong(tmp_path):
    amodal = np.zeros((2, 4, 4), bool)
    amodal[0, :, :2] = amodal[1, :2] = True
    predicted = [scene(amodal, np.where(amodal, 1, 0).astype(np.float32))]
    found = reliabilities(predicted, [amodal])
    assert sum(found["seen"].pixels) == 16 + 8 and sum(found["hidden"].pixels) == 8
    assert found["seen"].error == found["hidden"].error == 0
    one_too_many = reliabilities(predicted, [amodal[:1]])
    assert one_too_many["hidden"].error == pytest.approx(0.5) and one_too_many["seen"].error == pytest.approx(4 / 24)
    draw({name: asdict(each) for name, each in one_too_many.items()}, tmp_path / "diagram.png")
    assert (tmp_path / "diagram.png").stat().st_size > 1000


def test_padding_does_not_count():
    amodal = np.ones((1, 4, 4), bool)
    wide = LayeredScene.assemble(amodal, amodal.astype(np.float32), amodal[:, None], Geometry.letterbox(8, 4), area_min=1)
    assert reliabilities([wide], [amodal])["seen"].pixels == [8]


def test_nothing_predicted_is_nothing_said():
    nothing = scene(np.zeros((0, 4, 4), bool), np.zeros((0, 4, 4), np.float32))
    assert reliabilities([nothing], [np.ones((1, 4, 4), bool)]) == {"seen": None, "hidden": None}
    assert calibration({"seen": None, "hidden": None}) == []

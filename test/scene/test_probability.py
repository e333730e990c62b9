# SPDX-License-Identifier: Apache-2.0
"""Probabilities are made less sure where the model says so, and most where something lies in front."""

import numpy as np
import pytest

from seqamodal_ros.scene.probability import calibrated


def test_log_odds_are_divided_by_the_temperature_of_the_place():
    amodal = np.zeros((2, 1, 4), bool)
    amodal[0, 0, :2] = True
    probability = np.full((2, 1, 4), 0.9, np.float32)
    found = calibrated(probability, amodal, (1.0, 2.0))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], probability[0])  # nothing lies in front of the first layer
    np.testing.assert_allclose(found[1], [[0.75, 0.75, 0.9, 0.9]], rtol=1e-6)  # odds of 9 become odds of 3


def test_certainty_has_an_end_and_order_stays():
    amodal = np.ones((2, 1, 3), bool)
    probability = np.array([[[0.0, 0.5, 1.0]]] * 2, np.float32)
    found = calibrated(probability, amodal, (1.5, 4.0))
    assert (np.diff(found) > 0).all() and found[1, 0, 0] == pytest.approx(1 / 11, rel=1e-3) and found[1, 0, 1] == 0.5


def test_a_temperature_of_one_changes_nothing():
    probability = np.array([[[0.0, 1.0]]], np.float32)
    assert calibrated(probability, probability > 0, (1.0, 1.0)) is probability


def test_a_scene_without_layers():
    assert calibrated(np.zeros((0, 4, 4), np.float32), np.zeros((0, 4, 4), bool), (2.0, 3.0)).shape == (0, 4, 4)

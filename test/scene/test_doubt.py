# SPDX-License-Identifier: Apache-2.0
"""A covered lens, a blinded sensor and a model that is not sure are told from an empty place."""

import numpy as np
import pytest

from seqamodal_ros.scene.doubt import why_in_doubt


def picture(level: int, share: float) -> np.ndarray:
    """uint8 [64, 64, 3]: of one grey level, but for a share of its rows, which are grey."""
    image = np.full((64, 64, 3), level, np.uint8)
    image[: round(64 * share)] = 128
    return image


EVERYWHERE = np.ones((64, 64), bool)


@pytest.mark.parametrize(("level", "word"), [(0, "black"), (19, "black"), (231, "white"), (255, "white")])
def test_an_image_that_is_all_black_or_white_is_in_doubt(level, word):
    assert f"100% of the image is {word}" in why_in_doubt(picture(level, 0.0), EVERYWHERE)
    assert f"97% of the image is {word}" in why_in_doubt(picture(level, 0.03), EVERYWHERE)
    assert why_in_doubt(picture(level, 0.1), EVERYWHERE) == ""


@pytest.mark.parametrize("level", [20, 60, 128, 230])
def test_an_even_image_that_is_neither_is_not(level):
    assert why_in_doubt(picture(level, 0.0), EVERYWHERE) == ""


@pytest.mark.parametrize(("level", "word"), [(16, "black"), (235, "white")])
def test_a_noisy_sensor_s_black_and_white_are_so_too(level, word):
    noisy = np.random.default_rng(0).normal(level, 1.0, (64, 64, 3)).round().astype(np.uint8)
    assert word in why_in_doubt(noisy, EVERYWHERE)


def test_a_first_layer_that_was_left_out_is_in_doubt():
    assert why_in_doubt(picture(128, 0.0), EVERYWHERE, 0.667) == "of what may lie in front no pixel is surer than 0.67"
    assert "black" in why_in_doubt(picture(0, 0.0), EVERYWHERE, 0.667)


def test_a_strong_colour_is_neither():
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 2] = 255
    assert why_in_doubt(image, EVERYWHERE) == ""


def test_padding_does_not_count():
    image, inside = picture(0, 0.5), EVERYWHERE.copy()
    inside[:32] = False
    assert "black" in why_in_doubt(image, inside)

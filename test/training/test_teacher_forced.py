# SPDX-License-Identifier: Apache-2.0
"""Layers from the true cumulative masks."""

import numpy as np
import torch

from seqamodal_ros import Perceiver
from training.predictions import teacher_forced

SAMPLES = 3


def test_each_layer_is_drawn_over_the_true_ones_in_front_and_padding_is_blank(small_model, rectangles):
    perceiver = Perceiver.load(str(small_model), "cpu", sampling_steps=1)
    network, size = perceiver.network, perceiver.model.settings.network.mask_size
    asked = []

    def denoise(x_t, t, cumulative_mask, image_features, hypothesis=None):
        asked.append((cumulative_mask, x_t))
        return torch.ones_like(x_t)

    network.denoise = denoise
    one, two, three = rectangles((2, 10, 8, 14), (6, 12, 20, 18), (4, 9, 22, 20))
    truth = [np.stack([one, two, three]), np.zeros((0, size, size), bool), np.stack([two])]
    wide, square = np.zeros((20, 40, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)
    predicted = teacher_forced(perceiver, [wide, square, square], truth, SAMPLES, seed=5)

    (three_rows, noise), (one_row, other_noise) = asked
    in_front = np.stack([np.zeros_like(one), one, one | two]).repeat(SAMPLES, 0)
    assert np.array_equal(three_rows[:, 0].numpy() > 0, in_front)
    assert not (one_row > 0).any() and len(one_row) == SAMPLES
    generator = torch.Generator().manual_seed(5)  # of image 0; image 2 has 7
    assert torch.equal(noise[:SAMPLES], torch.randn(SAMPLES, 1, size, size, generator=generator))
    assert torch.equal(other_noise, torch.randn(SAMPLES, 1, size, size, generator=torch.Generator().manual_seed(7)))
    quarter = size // 4
    inside = np.zeros((size, size), bool)
    inside[quarter:-quarter] = True  # a letterbox
    assert len(predicted[0]) == 3 and (predicted[0] == inside).all()
    assert predicted[1].shape == (0, size, size)
    assert predicted[2].all() and len(predicted[2]) == 1


def test_of_numbered_hypotheses_number_0_draws_the_layer(numbered_model, rectangles):
    perceiver = Perceiver.load(str(numbered_model), "cpu", runtime="torch", sampling_steps=1)
    height = torch.tensor([1.0, -1.0, -1.0])[:, None, None, None]
    perceiver.network.denoise = lambda x_t, t, cumulative_mask, image_features, hypothesis=None: height[hypothesis].expand_as(x_t)
    image = np.zeros((40, 40, 3), np.uint8)
    truth = [np.stack([rectangles((2, 10, 8, 14))[0]])]
    assert teacher_forced(perceiver, [image], truth, SAMPLES, seed=0)[0].all()
    height.neg_()
    assert not teacher_forced(perceiver, [image], truth, SAMPLES, seed=0)[0].any()

# SPDX-License-Identifier: Apache-2.0
"""Networks that predict x0 and networks that predict epsilon look alike behind the adapter."""

import pytest
import torch

from seqamodal_ros.diffusion.adapter import conditioned, rescaled, signed
from seqamodal_ros.diffusion.schedule import Schedule


class Scripted:
    """A network that answers the same, and remembers what it was asked."""

    def __init__(self, prediction: str, answer):
        self.prediction, self.answer = prediction, answer
        self.asked: list[tuple] = []

    def encode(self, image):
        return (image,)

    def denoise(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
        self.asked.append((x_t, t, cumulative_mask, image_features))
        return self.answer


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    schedule = Schedule.linear()
    x0 = torch.rand(3, 1, 8, 8, generator=generator) * 2 - 1
    epsilon = torch.randn(3, 1, 8, 8, generator=generator)
    t = torch.tensor([5, 400, 700])
    return schedule, x0, epsilon, t, schedule.add_noise(x0, epsilon, t)


@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
def test_both_kinds_give_the_same_x0_and_epsilon(case, prediction):
    schedule, x0, epsilon, t, x_t = case
    network = Scripted(prediction, x0 if prediction == "x0" else epsilon)
    got_x0, got_epsilon, variance = conditioned(network, schedule, torch.zeros_like(x0), ())(x_t, t)
    assert torch.allclose(got_x0, x0, atol=1e-4)
    assert torch.allclose(got_epsilon, epsilon, atol=1e-3)
    assert variance is None


@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
def test_x0_is_clipped_and_epsilon_belongs_to_the_clipped_one(case, prediction):
    schedule, _, _, t, x_t = case
    got_x0, got_epsilon, _ = conditioned(Scripted(prediction, torch.full_like(x_t, -7.0)), schedule, x_t, ())(x_t, t)
    assert got_x0.min() >= -1
    assert got_x0.max() <= 1
    signal, sigma = schedule.coefficients(t)
    assert torch.allclose(signal * got_x0 + sigma * got_epsilon, x_t, atol=1e-4)


def test_the_network_is_given_mask_and_features(case):
    schedule, x0, _, t, x_t = case
    network = Scripted("x0", x0)
    cumulative, features = signed(x0 > 0), (torch.ones(3, 2),)
    conditioned(network, schedule, cumulative, features)(x_t, t)
    (asked,) = network.asked
    assert asked[0] is x_t
    assert asked[1] is t
    assert asked[2] is cumulative
    assert asked[3] is features


def test_a_second_channel_is_the_variances(case):
    schedule, x0, epsilon, t, x_t = case
    network = Scripted("epsilon", torch.cat([epsilon, 0.5 * x0], dim=1))
    got = conditioned(network, schedule, torch.zeros_like(x0), ())(x_t, t)
    assert torch.allclose(got.x0, x0, atol=1e-4)
    assert torch.equal(got.variance, 0.5 * x0)


def test_another_prediction_is_an_error(case):
    schedule, x0, *_ = case
    with pytest.raises(ValueError, match="'x0' or 'epsilon', not 'velocity'"):
        conditioned(Scripted("velocity", x0), schedule, x0, ())


def test_signed_masks_are_at_plus_and_minus_one():
    assert signed(torch.tensor([True, False])).tolist() == [1.0, -1.0]
    assert signed(torch.tensor([True])).dtype == torch.float32


def test_masks_of_any_scale_come_to_plus_and_minus_one():
    assert rescaled(torch.tensor([0.0, 0.5, 1.0, -0.3]), 0).tolist() == [-1.0, 0.0, 1.0, -1.0]
    soft = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(rescaled(soft, -1), soft)

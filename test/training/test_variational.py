# SPDX-License-Identifier: Apache-2.0
"""The term of the variational bound against torch.distributions, at its ends, and in its last step."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from seqamodal_ros.diffusion.posterior import posterior
from seqamodal_ros.diffusion.schedule import Schedule
from training.variational import gaussian_divergence, level_log_likelihood, variational_term

SCHEDULE = Schedule.linear()


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    x0 = torch.sign(torch.randn(4, 1, 8, 8, generator=generator))
    noise = torch.randn(4, 1, 8, 8, generator=generator)
    t = torch.tensor([0, 1, 500, 999])
    return x0, SCHEDULE.add_noise(x0, noise, t), t, noise


def test_the_divergence_of_gaussians():
    generator = torch.Generator().manual_seed(0)
    mean, log_variance, other_mean, other_log_variance = torch.randn(4, 100, generator=generator)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(other_mean, (other_log_variance / 2).exp()))
    found = gaussian_divergence(mean, log_variance, other_mean, other_log_variance)
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_the_likelihoods_of_all_levels_sum_to_one():
    levels = torch.arange(256) / 127.5 - 1
    for mean, deviation in [(0.0, 0.3), (-1.0, 0.01), (0.9, 2.0)]:
        likelihood = level_log_likelihood(levels, torch.tensor(mean), torch.tensor(deviation).log() * 2).exp()
        assert likelihood.sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("x0", [-1.0, 0.0, 1.0])
def test_the_likelihood_against_the_cumulative_distribution(x0):
    mean, log_variance = torch.tensor([-1.0, 0.0, 0.3, 1.01]), torch.tensor([-6.0, -2.0, 0.0, -9.0])
    normal = Normal(mean.double(), (log_variance.double() / 2).exp())
    upper = normal.cdf(torch.tensor(x0 + 1 / 255).double()) if x0 < 1 else 1
    lower = normal.cdf(torch.tensor(x0 - 1 / 255).double()) if x0 > -1 else 0
    expected = (upper - lower).clamp(min=1e-12).log()
    found = level_log_likelihood(torch.full_like(mean, x0), mean, log_variance)
    assert torch.allclose(found.double(), expected, atol=1e-2)  # a tail near the least share has few digits
    assert torch.allclose(found.double().exp(), expected.exp(), atol=1e-6)


def test_the_true_noise_and_the_posteriors_variance_leave_nothing_to_learn(case):
    x0, x_t, t, noise = case
    term = variational_term(SCHEDULE, x0, x_t, t, noise, torch.full_like(x0, -1.0))
    assert term.shape == (4,)
    assert term[1:].abs().max() < 1e-4
    assert 0 <= term[0] < 1  # the last step's likelihood is of a level, not of a point


def test_the_last_step_is_a_likelihood_and_the_others_are_divergences(case):
    x0, x_t, t, noise = case
    variance = torch.full_like(x0, 0.5)
    term = variational_term(SCHEDULE, x0, x_t, t, noise, variance)
    step = posterior(SCHEDULE, t, t - 1)
    likelihood = level_log_likelihood(x0, step.mean(x0, x_t), step.log_variance(variance)).mean(dim=(1, 2, 3)) / math.log(2)
    assert term[0].item() == pytest.approx(-likelihood[0].item(), rel=1e-3)
    wider = (step.log_variance(variance) - step.log_small)[1:].flatten(1).mean(dim=1)
    assert term[1:].tolist() == pytest.approx((0.5 * (wider + (-wider).exp() - 1) / math.log(2)).tolist(), abs=1e-5)


@pytest.mark.parametrize("off", [100.0, -100.0])
def test_far_off_predictions_stay_finite(case, off):
    x0, x_t, t, noise = case
    variance = torch.zeros_like(x0, requires_grad=True)
    variational_term(SCHEDULE, x0, x_t, t, noise + off, variance).sum().backward()
    assert torch.isfinite(variance.grad).all()

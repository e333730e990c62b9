# SPDX-License-Identifier: Apache-2.0
"""The posterior against Bayes' rule and Eq. 9, its variance between its two bounds."""

import pytest
import torch

from seqamodal_ros.diffusion.posterior import posterior
from seqamodal_ros.diffusion.schedule import Schedule

SCHEDULE = Schedule.linear()
ALPHA_BAR = SCHEDULE.alpha_bar


def at(t: int, s: int):
    return posterior(SCHEDULE, torch.tensor([t]), torch.tensor([s]))


@pytest.mark.parametrize(("t", "s"), [(999, 998), (500, 499), (1, 0), (999, 749), (300, 10)])
def test_it_is_bayes_rule(t, s):
    """q(x_s | x_t, x_0) from the two Gaussians that it is a product of: q(x_s | x_0) and q(x_t | x_s)."""
    alpha = ALPHA_BAR[t] / ALPHA_BAR[s]
    prior, likelihood = 1 / (1 - ALPHA_BAR[s]), alpha / (1 - alpha)
    variance = 1 / (prior + likelihood)
    found = at(t, s)
    assert found.log_small.item() == pytest.approx(variance.log().item(), abs=1e-5)
    assert found.log_large.item() == pytest.approx((1 - alpha).log().item(), abs=1e-5)
    assert found.of_x0.item() == pytest.approx((variance * prior * ALPHA_BAR[s].sqrt()).item(), rel=1e-5)
    assert found.of_x_t.item() == pytest.approx((variance * likelihood / alpha.sqrt()).item(), rel=1e-5)


@pytest.mark.parametrize("t", [999, 500, 20])
def test_its_mean_is_that_of_eq_9(t):
    """With 1/sqrt(alpha_t); the paper prints a bar over it, which would not be the mean of any step."""
    generator = torch.Generator().manual_seed(t)
    x_t, epsilon = torch.randn(2, 1, 1, 4, 4, generator=generator).double()
    alpha = ALPHA_BAR[t] / ALPHA_BAR[t - 1]
    eq_9 = (x_t - (1 - alpha) / (1 - ALPHA_BAR[t]).sqrt() * epsilon) / alpha.sqrt()
    x0 = (x_t - (1 - ALPHA_BAR[t]).sqrt() * epsilon) / ALPHA_BAR[t].sqrt()
    assert torch.allclose(at(t, t - 1).mean(x0, x_t), eq_9, atol=1e-5)
    printed = (x_t - (1 - alpha) / (1 - ALPHA_BAR[t]).sqrt() * epsilon) / ALPHA_BAR[t].sqrt()
    assert not torch.allclose(printed, eq_9, atol=1e-4)


@pytest.mark.parametrize("t", [0, 249, 999])
def test_the_step_to_the_clean_mask_leads_to_x0(t):
    x0, x_t = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 7.0)
    found = at(t, -1)
    assert torch.allclose(found.mean(x0, x_t), x0, atol=1e-6)
    assert torch.isfinite(found.log_small).all()


def test_the_last_step_lends_the_variance_of_the_one_before():
    """beta_tilde is zero there, and its logarithm is needed by the variational bound alone."""
    assert at(0, -1).log_small.item() == at(1, 0).log_small.item()


def test_each_mask_takes_its_own_timestep():
    found = posterior(SCHEDULE, torch.tensor([999, 1]), torch.tensor([998, 0]))
    assert found.log_large.shape == (2, 1, 1, 1)
    assert found.log_large.flatten().tolist() == [at(999, 998).log_large.item(), at(1, 0).log_large.item()]


def test_the_variance_lies_between_its_bounds():
    found = at(500, 499)
    assert found.log_variance(None) is found.log_small
    channel = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 1, 3)
    small, large = found.log_small.item(), found.log_large.item()
    assert small < large
    assert found.log_variance(channel).flatten().tolist() == pytest.approx([small, (small + large) / 2, large])

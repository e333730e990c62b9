# SPDX-License-Identifier: Apache-2.0
"""The linear schedule against numpy, the forward process by its statistics, trailing timesteps."""

import numpy as np
import pytest
import torch

from seqamodal_ros.diffusion.schedule import Schedule


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return Schedule.linear()


def test_alpha_bar_is_the_product_of_one_minus_beta(schedule):
    beta = 1e-4 + (0.02 - 1e-4) * np.arange(1000) / 999
    expected = np.exp(np.cumsum(np.log1p(-beta)))
    assert schedule.steps == 1000
    assert np.allclose(schedule.alpha_bar.numpy(), expected, rtol=1e-12)
    assert schedule.alpha_bar[0] == pytest.approx(0.9999)
    assert schedule.alpha_bar[-1] == pytest.approx(4.0358e-5, rel=1e-4)


def test_coefficients_are_of_unit_power_and_broadcast(schedule):
    signal, sigma = schedule.coefficients(torch.tensor([0, 500, 999]))
    assert signal.shape == sigma.shape == (3, 1, 1, 1)
    assert signal.dtype == sigma.dtype == torch.float32
    assert torch.allclose(signal**2 + sigma**2, torch.ones(3, 1, 1, 1))
    assert signal.flatten().tolist() == pytest.approx(schedule.alpha_bar[[0, 500, 999]].sqrt().tolist())


@pytest.mark.parametrize("timestep", [0, 300, 999])
def test_forward_process_has_the_mean_and_spread_of_eq_4(schedule, timestep):
    generator = torch.Generator().manual_seed(0)
    x0 = torch.ones(1, 1, 400, 500)
    x_t = schedule.add_noise(x0, torch.randn(x0.shape, generator=generator), torch.tensor([timestep]))
    alpha_bar = float(schedule.alpha_bar[timestep])
    assert x_t.mean().item() == pytest.approx(alpha_bar**0.5, abs=0.01)
    assert x_t.std().item() == pytest.approx((1 - alpha_bar) ** 0.5, abs=0.01)


def test_each_mask_takes_its_own_timestep(schedule):
    x0, noise = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    x_t = schedule.add_noise(x0, noise, torch.tensor([0, 999]))
    assert x_t[:, 0, 0, 0].tolist() == pytest.approx([0.9999**0.5, 4.0358e-5**0.5], rel=1e-3)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [999]), (2, [999, 499]), (3, [999, 666, 332]), (4, [999, 749, 499, 249]), (5, [999, 799, 599, 399, 199])],
)
def test_trailing_timesteps(schedule, count, expected):
    assert schedule.trailing(count) == expected


@pytest.mark.parametrize("count", [3, 7, 250, 999, 1000])
def test_trailing_timesteps_fall_from_the_last(schedule, count):
    timesteps = schedule.trailing(count)
    assert len(timesteps) == count
    assert timesteps[0] == 999
    assert timesteps[-1] >= 0
    assert (np.diff(timesteps) < 0).all()
    assert np.ptp(np.diff(timesteps)) <= 1 if count > 1 else True


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_a_number_of_steps_out_of_range(schedule, count):
    with pytest.raises(ValueError, match=rf"1\.\.1000, not {count}"):
        schedule.trailing(count)

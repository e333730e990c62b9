# SPDX-License-Identifier: Apache-2.0
"""DDIM: an oracle's x0 comes out, the steps are those of the papers, a raise ends it."""

import pytest
import torch

from seqamodal_ros.diffusion.samplers import ddim
from seqamodal_ros.diffusion.schedule import Schedule

SCHEDULE = Schedule.linear()


def oracle(x0):
    """A denoiser that knows x0, and records the timesteps and the x_t it was given."""
    seen = []

    def denoise(x_t, t):
        seen.append((t.clone(), x_t.clone()))
        signal, sigma = SCHEDULE.coefficients(t)
        return x0, (x_t - signal * x0) / sigma

    return denoise, seen


@pytest.fixture
def x0_and_noise():
    generator = torch.Generator().manual_seed(1)
    x0 = torch.where(torch.rand(2, 1, 8, 8, generator=generator) > 0.5, 1.0, -1.0)
    return x0, torch.randn(2, 1, 8, 8, generator=generator)


@pytest.mark.parametrize("steps", [1, 2, 4, 50])
def test_an_oracles_x0_comes_out_exactly(x0_and_noise, steps):
    x0, noise = x0_and_noise
    denoise, seen = oracle(x0)
    assert torch.equal(ddim(denoise, noise, SCHEDULE, steps), x0)
    assert [int(t[0]) for t, _ in seen] == SCHEDULE.trailing(steps)
    assert all(t.shape == (2,) for t, _ in seen)


def test_it_starts_from_the_noise_and_keeps_the_direction_of_epsilon(x0_and_noise):
    """With x0 known, eta = 0 keeps epsilon: each x_t is the forward process of x0 with the first epsilon."""
    x0, noise = x0_and_noise
    denoise, seen = oracle(x0)
    ddim(denoise, noise, SCHEDULE, 4)
    assert torch.equal(seen[0][1], noise)
    signal, sigma = SCHEDULE.coefficients(torch.tensor([999, 999]))
    epsilon = (noise - signal * x0) / sigma
    for t, x_t in seen[1:]:
        assert torch.allclose(x_t, SCHEDULE.add_noise(x0, epsilon, t), atol=1e-4)


def test_an_intermediate_step_against_the_formula(x0_and_noise):
    """Two steps with a denoiser that says x0 = x_t / 4, worked out by hand."""
    _, noise = x0_and_noise

    def denoise(x_t, t):
        signal, sigma = SCHEDULE.coefficients(t)
        x0 = x_t / 4
        return x0, (x_t - signal * x0) / sigma

    a_999, a_499 = SCHEDULE.alpha_bar[999].item(), SCHEDULE.alpha_bar[499].item()
    epsilon = (noise - a_999**0.5 * noise / 4) / (1 - a_999) ** 0.5
    x_499 = a_499**0.5 * noise / 4 + (1 - a_499) ** 0.5 * epsilon
    assert torch.allclose(ddim(denoise, noise, SCHEDULE, 2), x_499 / 4, atol=1e-5)


def test_before_call_runs_before_each_network_call(x0_and_noise):
    x0, noise = x0_and_noise
    denoise, seen = oracle(x0)
    calls = []
    ddim(denoise, noise, SCHEDULE, 5, lambda: calls.append(len(seen)))
    assert calls == [0, 1, 2, 3, 4]


def test_what_before_call_raises_ends_the_sampling(x0_and_noise):
    x0, noise = x0_and_noise
    denoise, seen = oracle(x0)

    def stop():
        if len(seen) == 2:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        ddim(denoise, noise, SCHEDULE, 5, stop)
    assert len(seen) == 2


def test_no_step_is_an_error(x0_and_noise):
    x0, noise = x0_and_noise
    with pytest.raises(ValueError, match="sampling steps"):
        ddim(oracle(x0)[0], noise, SCHEDULE, 0)


def test_it_leaves_the_noise_alone(x0_and_noise):
    x0, noise = x0_and_noise
    before = noise.clone()
    ddim(oracle(x0)[0], noise, SCHEDULE, 3)
    assert torch.equal(noise, before)


def test_the_same_as_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: nothing to compare with")
    scheduler = diffusers.DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", timestep_spacing="trailing", prediction_type="sample"
    )
    scheduler.set_timesteps(4)
    x_t = noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        x_t = scheduler.step(torch.tanh(x_t), timestep, x_t).prev_sample

    def denoise(x, t):
        signal, sigma = SCHEDULE.coefficients(t)
        return torch.tanh(x), (x - signal * torch.tanh(x)) / sigma

    assert torch.allclose(ddim(denoise, noise, SCHEDULE, 4), x_t, atol=1e-4)

# SPDX-License-Identifier: Apache-2.0
"""Schedule, samplers and the variational term against diffusers, to 1e-5.

``python -m pytest test/diffusion/test_parity.py -q -s`` prints the largest differences; docs/method.md has them.
"""

import itertools
import math

import pytest
import torch

pytest.importorskip("diffusers", reason="compares with diffusers: pip install -r requirements/test.txt")

from diffusers.schedulers import scheduling_ddpm
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from seqamodal_ros.diffusion.adapter import Denoised, conditioned
from seqamodal_ros.diffusion.posterior import posterior
from seqamodal_ros.diffusion.samplers import ancestral, ddim
from seqamodal_ros.diffusion.schedule import Schedule
from training.variational import variational_term

SCHEDULE = Schedule.linear()
LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
TRAILING = {**LINEAR, "timestep_spacing": "trailing", "clip_sample": True, "clip_sample_range": 1.0}
TIMESTEPS = (999, 998, 500, 100, 10, 1)


def agree(what: str, ours: Tensor, theirs: Tensor) -> None:
    """Print the largest difference, and fail where it exceeds 1e-5."""
    difference = (ours.double() - theirs.double()).abs().max().item()
    print(f"\n{what}: {difference:.1e}")
    assert difference < 1e-5


def exact(scheduler):
    """The scheduler with its tables in float64: in float32, 1 - alpha_bar has lost half its digits at small t."""
    scheduler.betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    return scheduler


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*(shape or (2, 1, 8, 8)), generator=torch.Generator().manual_seed(seed))


class Scripted:
    """A network that predicts a function of what it is given: epsilon, and the variance's channel where it learns one."""

    prediction, blank = "epsilon", -1.0

    def __init__(self, learned: bool):
        self.learned = learned

    def denoise(self, x_t, *_):
        epsilon = torch.sin(3 * x_t) + 0.2 * x_t
        return torch.cat([epsilon, torch.cos(5 * x_t)], dim=1) if self.learned else epsilon


def test_betas_and_alphas_cumprod():
    scheduler = DDPMScheduler(**LINEAR)
    t = torch.arange(1000)
    agree("beta", posterior(SCHEDULE, t, t - 1).log_large.exp().flatten(), scheduler.betas)
    agree("alpha_bar", SCHEDULE.alpha_bar, scheduler.alphas_cumprod)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 10, 1000])
def test_trailing_timesteps(steps):
    scheduler = DDIMScheduler(**TRAILING)
    scheduler.set_timesteps(steps)
    assert SCHEDULE.trailing(steps) == scheduler.timesteps.tolist()


def chain(sampler, learned: bool, steps: int) -> list[Tensor]:
    """Every x_t that our sampler comes to, and x0 at the end; noise k is ``random(k)``, that of x_T the first."""
    visited: list[Tensor] = []
    denoise = conditioned(Scripted(learned), SCHEDULE, torch.zeros(2, 1, 8, 8), ())

    def recorded(x_t: Tensor, t: Tensor) -> Denoised:
        visited.append(x_t)
        return denoise(x_t, t)

    x0 = sampler(recorded, map(random, itertools.count()).__next__, SCHEDULE, steps)
    return [*visited, x0]


@pytest.mark.parametrize("steps", [2, 4, 10])
def test_ddim(steps):
    """Each step of a chain, from the x_t that our own sampler came to."""
    scheduler = exact(DDIMScheduler(**TRAILING))
    scheduler.set_timesteps(steps)
    ours = chain(ddim, False, steps)
    theirs = [
        scheduler.step(Scripted(False).denoise(x_t), t, x_t, use_clipped_model_output=True).prev_sample
        for t, x_t in zip(scheduler.timesteps, ours[:-1], strict=True)
    ]
    agree(f"DDIM, each of {steps} steps", torch.stack(ours[1:]), torch.stack(theirs))


@pytest.mark.parametrize("variance_type", ["fixed_small", "learned_range"])
@pytest.mark.parametrize("steps", [4, 1000])
def test_ancestral(monkeypatch, variance_type, steps):
    """Steps of a chain, from the x_t that our own sampler came to, with the same noise."""
    learned = variance_type == "learned_range"
    scheduler = exact(DDPMScheduler(**TRAILING, variance_type=variance_type))
    scheduler.set_timesteps(steps)
    visited = chain(ancestral, learned, steps)
    # with a learned variance diffusers adds noise at the last of few steps too, where ours has come to the mask
    checked = range(0, steps - (learned and steps < 1000), max(1, steps // 27))
    noises = (random(index + 1) for index in checked)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(noises))
    theirs = [
        scheduler.step(Scripted(learned).denoise(visited[index]), scheduler.timesteps[index], visited[index]).prev_sample
        for index in checked
    ]
    ours = [visited[index + 1] for index in checked]
    agree(f"ancestral, {variance_type}, {len(checked)} of {steps} steps", torch.stack(ours), torch.stack(theirs))


def test_the_variational_term(monkeypatch):
    """KL between the scheduler's posterior of the true x0 and that of the predicted one, by torch.distributions."""
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: torch.zeros(2, 1, 8, 8))  # prev_sample is the mean
    true = exact(DDPMScheduler(**LINEAR, variance_type="fixed_small", prediction_type="sample", clip_sample=False))
    learned = exact(DDPMScheduler(**LINEAR, variance_type="learned_range", clip_sample=False))
    x0, noise = torch.sign(random(1)), random(2)
    epsilon, variance = noise + 0.3 * random(3), random(4).clamp(-1, 1)
    ours, theirs = [], []
    for timestep in TIMESTEPS:
        t = torch.tensor([timestep, timestep])
        x_t = SCHEDULE.add_noise(x0, noise, t)
        ours.append(variational_term(SCHEDULE, x0, x_t, t, epsilon, variance))
        deviation = true._get_variance(timestep).sqrt()
        log_variance = learned._get_variance(timestep, predicted_variance=variance)
        p = Normal(learned.step(torch.cat([epsilon, variance], 1), timestep, x_t).prev_sample, (log_variance / 2).exp())
        q = Normal(true.step(x0, timestep, x_t).prev_sample, deviation)
        theirs.append(kl_divergence(q, p).mean(dim=(1, 2, 3)) / math.log(2))
    assert torch.stack(theirs).max() > 0.01  # there is something to agree on
    agree("variational term, bits per pixel", torch.stack(ours), torch.stack(theirs))

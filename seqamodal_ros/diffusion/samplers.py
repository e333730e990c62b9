# SPDX-License-Identifier: Apache-2.0
"""Samplers: free functions that share one signature, from noise to the mask x0 of one layer."""

from collections.abc import Callable

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import Denoise, ImageFeatures, Network, conditioned, rescaled
from seqamodal_ros.diffusion.posterior import posterior
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.shared_start import SharedStart, shares_start

# () -> standard normal noise, float [B, 1, h, w], new at each call
Draw = Callable[[], Tensor]


@torch.no_grad()
def ddim(denoise: Denoise, draw: Draw, schedule: Schedule, steps: int, before_call: Callable[[], None] = lambda: None) -> Tensor:
    """Deterministic DDIM (eta = 0) over trailing timesteps (T-1 first).

    Args:
        denoise: of one layer, see `adapter.conditioned`.
        draw: gives standard normal noise, float [B, 1, h, w]; called once, for x_T.
        schedule: the schedule that the network was trained with.
        steps: network calls, 1..T.
        before_call: runs before each network call; what it raises ends the sampling.

    Returns:
        x0, float [B, 1, h, w] in [-1, 1].
    """
    timesteps = schedule.trailing(steps)
    x_t = draw()
    for index, timestep in enumerate(timesteps):
        before_call()
        x0, epsilon, _ = denoise(x_t, torch.full((len(x_t),), timestep, device=x_t.device))
        if index + 1 < steps:
            signal, sigma = schedule.coefficients(torch.full((1,), timesteps[index + 1], device=x_t.device))
            x_t = signal * x0 + sigma * epsilon
    return x0


@torch.no_grad()
def ancestral(
    denoise: Denoise, draw: Draw, schedule: Schedule, steps: int, before_call: Callable[[], None] = lambda: None
) -> Tensor:
    """Ancestral sampling (Eq. 5 and 9) over trailing timesteps; with T steps the chain of the paper.

    The mean is the posterior's, of the clipped x0, as the authors' code has it; without the clipping it is Eq. 9 with
    1/sqrt(alpha_t), where the paper prints a bar. The variance is learned where the network gives one, and beta_tilde elsewhere.
    The last step adds no noise, and its mean is x0 itself.

    Args, returns: as of `ddim`; `draw` is called for x_T, and for z of Eq. 9 at each step but the last.
    """
    timesteps = schedule.trailing(steps)
    x_t = draw()
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        before_call()
        t = torch.full((len(x_t),), timestep, device=x_t.device)
        x0, _, variance = denoise(x_t, t)
        if following is not None:
            step = posterior(schedule, t, torch.full_like(t, following))
            x_t = step.mean(x0, x_t) + (step.log_variance(variance) / 2).exp() * draw()
    return x0


SAMPLERS = {"ddim": ddim, "ancestral": ancestral}


def generate(
    network: Network,
    schedule: Schedule,
    cumulative_mask: Tensor,
    features: ImageFeatures,
    draw: Draw,
    sampler: str,
    steps: int,
    before_call: Callable[[], None] = lambda: None,
    samples: int = 1,
) -> Tensor:
    """f of Eq. 11: proposals for one layer of each image, from noise, image and cumulative mask.

    Args:
        network, schedule, cumulative_mask, features: see `adapter.conditioned`.
        sampler: a name in `SAMPLERS`.
        draw, steps, before_call: see `ddim`.
        samples: K, the hypotheses of each image, one after the other in the batch; k has the number k modulo those that the
            network tells apart. Of a network that predicts x0, those of one number share the first of several steps, see
            `SharedStart`; after a single one they would be the same.

    Returns:
        Soft masks, float [B, 1, h, w] in [-1, 1], whatever the scale of the network's own.
    """
    if shares_start(network, steps):
        network = SharedStart(network, samples)
    number = torch.arange(samples, device=cumulative_mask.device) % network.hypotheses
    hypothesis = number.repeat(len(cumulative_mask) // samples)
    denoise = conditioned(network, schedule, cumulative_mask, features, hypothesis)
    return rescaled(SAMPLERS[sampler](denoise, draw, schedule, steps, before_call), network.blank)

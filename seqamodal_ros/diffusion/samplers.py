# SPDX-License-Identifier: Apache-2.0
"""Samplers: free functions that share one signature, from noise to the mask x0 of one layer."""

from collections.abc import Callable

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import Denoise
from seqamodal_ros.diffusion.schedule import Schedule


@torch.no_grad()
def ddim(
    denoise: Denoise, noise: Tensor, schedule: Schedule, steps: int, before_call: Callable[[], None] = lambda: None
) -> Tensor:
    """Deterministic DDIM (eta = 0) over trailing timesteps (T-1 first).

    Args:
        denoise: of one layer, see `adapter.conditioned`.
        noise: float [B, 1, h, w], standard normal: x_T.
        schedule: the schedule that the network was trained with.
        steps: network calls, 1..T.
        before_call: runs before each network call; what it raises ends the sampling.

    Returns:
        x0, float [B, 1, h, w] in [-1, 1].
    """
    timesteps = schedule.trailing(steps)
    x_t = noise
    for index, timestep in enumerate(timesteps):
        before_call()
        x0, epsilon = denoise(x_t, torch.full((len(x_t),), timestep, device=x_t.device))
        if index + 1 < steps:
            signal, sigma = schedule.coefficients(torch.tensor([timesteps[index + 1]], device=x_t.device))
            x_t = signal * x0 + sigma * epsilon
    return x0

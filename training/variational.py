# SPDX-License-Identifier: Apache-2.0
"""One term of the variational bound: how far a step back by the network is from the true one, in bits per pixel."""

import math

import torch
from torch import Tensor

from seqamodal_ros.diffusion.posterior import posterior
from seqamodal_ros.diffusion.schedule import Schedule

HALF_BIN = 1 / 255  # of masks taken for images of 256 levels in [-1, 1]
LEAST = 1e-12  # of a probability, so that its logarithm is finite


def variational_term(schedule: Schedule, x0: Tensor, x_t: Tensor, t: Tensor, epsilon: Tensor, variance: Tensor) -> Tensor:
    """L_t of the bound (Ho et al., 2020, Eq. 5), the mean over the pixels of each mask: float [B], bits.

    For t > 0 it is KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at t = 0 it is -log p(x_0 | x_1), of a Gaussian that is cut
    into 256 levels. The mean is that of Eq. 9, nothing is clipped.

    Args:
        schedule: of T timesteps.
        x0: float [B, 1, h, w], clean masks.
        x_t: float [B, 1, h, w], their noisy ones.
        t: int64 [B], timesteps in 0..T-1.
        epsilon: float [B, 1, h, w], the predicted noise; detached, where only the variance is to learn from this.
        variance: float [B, 1, h, w], the network's second channel, see `Posterior.log_variance`.
    """
    true = posterior(schedule, t, t - 1)
    signal, sigma = schedule.coefficients(t)
    mean = true.mean((x_t - sigma * epsilon) / signal, x_t)
    log_variance = true.log_variance(variance)
    divergence = gaussian_divergence(true.mean(x0, x_t), true.log_small, mean, log_variance)
    surprise = -level_log_likelihood(x0, mean, log_variance)
    nats = torch.where((t == 0)[:, None, None, None], surprise, divergence)
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def gaussian_divergence(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(other_mean, other_variance)) of each pixel, nats."""
    spread = (log_variance - other_log_variance).exp() + (mean - other_mean) ** 2 * (-other_log_variance).exp()
    return 0.5 * (other_log_variance - log_variance + spread - 1)


def level_log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log of the share of N(mean, variance) that lies in x0's level, of each pixel, nats (Ho et al., 2020, Eq. 13).

    The levels at -1 and 1 reach to infinity.
    """
    precision = (-log_variance / 2).exp()
    below_upper_edge = torch.special.ndtr((x0 + HALF_BIN - mean) * precision)
    below_lower_edge = torch.special.ndtr((x0 - HALF_BIN - mean) * precision)
    # above the lower edge is not one minus below it: near one, float32 has no digits left
    above_lower_edge = torch.special.ndtr((mean - x0 + HALF_BIN) * precision)
    share = below_upper_edge - below_lower_edge
    share = torch.where(x0 > 1 - HALF_BIN, above_lower_edge, share)
    share = torch.where(x0 < HALF_BIN - 1, below_upper_edge, share)
    return share.clamp(min=LEAST).log()

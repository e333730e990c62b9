# SPDX-License-Identifier: Apache-2.0
"""The Gaussian of one step back: the forward process's posterior, with its variance fixed or learned."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seqamodal_ros.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Posterior:
    """q(x_s | x_t, x_0) of an earlier timestep s (Ho et al., 2020, Eq. 6 and 7), by the coefficients of its mean.

    Attributes, each float32 [B, 1, 1, 1]:
        of_x0, of_x_t: weights of x_0 and x_t in the mean.
        log_small: log beta_tilde, the posterior's own variance: the least that the reverse step can have.
        log_large: log beta, the most that it can have.
    """

    of_x0: Tensor
    of_x_t: Tensor
    log_small: Tensor
    log_large: Tensor

    def mean(self, x0: Tensor, x_t: Tensor) -> Tensor:
        """float [B, 1, h, w]. With x0 = (x_t - sqrt(1 - alpha_bar_t) epsilon) / sqrt(alpha_bar_t) it is the mean in Eq. 9."""
        return self.of_x0 * x0 + self.of_x_t * x_t

    def log_variance(self, learned: Tensor | None) -> Tensor:
        """log of Sigma in Eq. 5: v log beta + (1 - v) log beta_tilde (Nichol and Dhariwal, 2021, Eq. 15).

        Args:
            learned: float [B, 1, h, w], the network's second channel, 2 v - 1: -1 stands for beta_tilde, 1 for beta. None for a
                network that has none; the variance is beta_tilde then, which is right where x_0 is all but known, as masks are.
        """
        if learned is None:
            return self.log_small
        v = (learned + 1) / 2
        return v * self.log_large + (1 - v) * self.log_small


def posterior(schedule: Schedule, t: Tensor, s: Tensor) -> Posterior:
    """The posterior of a step from t back to s, in a chain that may leave out timesteps between them.

    Args:
        schedule: of T timesteps.
        t: int64 [B], in 0..T-1.
        s: int64 [B], below t; -1 stands for the clean mask, alpha_bar = 1.
    """
    alpha_bar_t, alpha_bar_s = _alpha_bar(schedule, t), _alpha_bar(schedule, s)
    alpha = alpha_bar_t / alpha_bar_s
    beta = 1 - alpha
    of_x0 = alpha_bar_s.sqrt() * beta / (1 - alpha_bar_t)
    of_x_t = alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    # beta_tilde of the last step is zero and has no logarithm: the step before it lends its own, as in Nichol and Dhariwal's code
    near, far = _alpha_bar(schedule, s.clamp(min=0)), _alpha_bar(schedule, t.clamp(min=1))
    small = (1 - far / near) * (1 - near) / (1 - far)
    return Posterior(of_x0.float(), of_x_t.float(), small.log().float(), beta.log().float())


def _alpha_bar(schedule: Schedule, t: Tensor) -> Tensor:
    """float64 [B, 1, 1, 1]; 1 at -1."""
    alpha_bar = schedule.on(t.device)[t.clamp(min=0)]
    return torch.where(t < 0, 1.0, alpha_bar).view(-1, 1, 1, 1)

# SPDX-License-Identifier: Apache-2.0
"""The linear noise schedule and the forward process (Eq. 4, closed form; Section 5.2)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """Noise schedule of T steps.

    Attributes:
        alpha_bar: float64 [T], the product of alpha_1..alpha_t, at index t in 0..T-1.
    """

    alpha_bar: Tensor
    _on: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def linear(cls, steps: int = 1000, beta_first: float = 1e-4, beta_last: float = 0.02) -> "Schedule":
        """beta rises linearly from `beta_first` to `beta_last` (Section 5.2: T = 1000, linear)."""
        # on the CPU whatever the default device: on "meta" it would have no values, and bring in PyTorch's compiler
        beta = torch.linspace(beta_first, beta_last, steps, dtype=torch.float64, device="cpu")
        return cls(torch.cumprod(1 - beta, 0))

    @property
    def steps(self) -> int:
        """T, the number of training timesteps."""
        return len(self.alpha_bar)

    def on(self, device: torch.device) -> Tensor:
        """`alpha_bar` on a device, copied there once: to copy it in each step, a GPU would have to be waited for."""
        if device == self.alpha_bar.device:
            return self.alpha_bar
        if device not in self._on:
            self._on[device] = self.alpha_bar.to(device)
        return self._on[device]

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), float32 [B, 1, 1, 1], of timesteps int64 [B] in 0..T-1."""
        alpha_bar = self.on(t.device)[t].view(-1, 1, 1, 1)
        return alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Forward process: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Eq. 4 in closed form).

        Args:
            x0: float [B, 1, h, w], masks at +-1.
            noise: float [B, 1, h, w], standard normal.
            t: int64 [B], timesteps in 0..T-1.
        """
        signal, sigma = self.coefficients(t)
        return signal * x0 + sigma * noise

    def trailing(self, count: int) -> list[int]:
        """`count` timesteps from T-1 downwards, evenly spaced and always starting at T-1 ("trailing").

        Raises:
            ValueError: `count` is not in 1..T.
        """
        if not 1 <= count <= self.steps:
            raise ValueError(f"the number of sampling steps must be in 1..{self.steps}, not {count}")
        return [round(self.steps * (count - k) / count) - 1 for k in range(count)]

# SPDX-License-Identifier: Apache-2.0
"""One face for networks that predict x0 and networks that predict epsilon, so that samplers never ask which it is."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from seqamodal_ros.diffusion.schedule import Schedule

ImageFeatures = tuple[Tensor, ...]
# (x_t [B, 1, h, w], t int64 [B]) -> (x0 clipped to [-1, 1], the epsilon that belongs to it)
Denoise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Network(Protocol):
    """What a network must offer; `prediction` is "x0" or "epsilon"."""

    prediction: str

    def encode(self, image: Tensor) -> ImageFeatures: ...

    def denoise(self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor: ...


def conditioned(network: Network, schedule: Schedule, cumulative_mask: Tensor, features: ImageFeatures) -> Denoise:
    """A denoiser of one layer: the network with its image and cumulative mask filled in (X of Eq. 9).

    Args:
        network: see `Network`.
        schedule: gives alpha_bar_t, which turns epsilon into x0 and back.
        cumulative_mask: float [B, 1, h, w] at +-1.
        features: what ``network.encode`` returned, of batch B.

    Raises:
        ValueError: the network predicts neither "x0" nor "epsilon".
    """
    if network.prediction not in ("x0", "epsilon"):
        raise ValueError(f"a network must predict 'x0' or 'epsilon', not {network.prediction!r}")

    def denoise(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        predicted = network.denoise(x_t, t, cumulative_mask, features)
        signal, sigma = schedule.coefficients(t)
        x0 = predicted if network.prediction == "x0" else (x_t - sigma * predicted) / signal
        x0 = x0.clamp(-1, 1)
        return x0, (x_t - signal * x0) / sigma

    return denoise


def signed(mask: Tensor) -> Tensor:
    """bool -> float32 at +-1, as the networks take masks."""
    return mask.to(torch.float32) * 2 - 1

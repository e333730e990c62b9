# SPDX-License-Identifier: Apache-2.0
"""One face for networks that predict x0 and networks that predict epsilon, so that samplers need not ask which it is."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from seqamodal_ros.diffusion.schedule import Schedule

ImageFeatures = tuple[Tensor, ...]


class Traits(Protocol):
    """What a network says of itself.

    Attributes:
        prediction: "x0" or "epsilon".
        blank: a blank pixel of the masks that it diffuses, -1 or 0; a covered one is 1. Cumulative masks are at +-1 for all.
        conditions: how many of the features, from the first, `denoise` looks at; the others are for `to_centres`.
        hypotheses: how many hypotheses of a layer it tells apart by their number; 1 where they differ by their noise alone.
    """

    @property
    def prediction(self) -> str: ...
    @property
    def blank(self) -> float: ...
    @property
    def conditions(self) -> int: ...
    @property
    def hypotheses(self) -> int: ...


class WithTraitsOf:
    """Base of what stands for a network, or computes one that was exported: it has the `Traits` of that."""

    def __init__(self, other: Traits):
        self.prediction, self.blank = other.prediction, other.blank
        self.conditions, self.hypotheses = other.conditions, other.hypotheses


class Network(Traits, Protocol):
    """What a network must offer."""

    def encode(self, image: Tensor) -> ImageFeatures:
        """Features of images float [B, 3, S, S] in [-1, 1]; a tuple of tensors whose first axis is B."""
        ...

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """The prediction, float [B, 1, h, w]; or [B, 2, h, w] with a learned variance, see `Posterior.log_variance`.

        Of the features, the first `conditions` will do. `hypothesis` is int64 [B], each row's number in 0..hypotheses-1; None is
        0 for all.
        """
        ...


class CentredNetwork(Network, Protocol):
    """One that tells objects of a layer apart, too."""

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """From each pixel of a layer the way to its object's centre, float [B, 2, h, w]; see `FastNetwork.to_centres`.

        Of the features, it takes those after the first `conditions`.
        """
        ...


class Denoised(NamedTuple):
    """What one network call says of a layer; each float [B, 1, h, w].

    Attributes:
        x0: the mask, clipped to [-1, 1].
        epsilon: the noise that belongs to that x0.
        variance: the network's second channel, see `Posterior.log_variance`; None if it has none.
    """

    x0: Tensor
    epsilon: Tensor
    variance: Tensor | None = None


# (x_t [B, 1, h, w], t int64 [B]) -> what the network says
Denoise = Callable[[Tensor, Tensor], Denoised]


def conditioned(
    network: Network, schedule: Schedule, cumulative_mask: Tensor, features: ImageFeatures, hypothesis: Tensor | None = None
) -> Denoise:
    """A denoiser of one layer: the network with its image and cumulative mask filled in (X of Eq. 9).

    Args:
        network: see `Network`.
        schedule: gives alpha_bar_t, which turns epsilon into x0 and back.
        cumulative_mask: float [B, 1, h, w] at +-1.
        features: what ``network.encode`` returned, of batch B, or the first ``network.conditions`` of it.
        hypothesis: int64 [B], see `Network.denoise`.

    Raises:
        ValueError: the network predicts neither "x0" nor "epsilon".
    """
    if network.prediction not in ("x0", "epsilon"):
        raise ValueError(f"a network must predict 'x0' or 'epsilon', not {network.prediction!r}")

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        answer = network.denoise(x_t, t, cumulative_mask, features, hypothesis)
        predicted, variance = answer[:, : x_t.shape[1]], answer[:, x_t.shape[1] :]
        signal, sigma = schedule.coefficients(t)
        x0 = predicted if network.prediction == "x0" else (x_t - sigma * predicted) / signal
        x0 = x0.clamp(-1, 1)
        return Denoised(x0, (x_t - signal * x0) / sigma, variance if variance.shape[1] else None)

    return denoise


def signed(mask: Tensor) -> Tensor:
    """bool -> float32 at +-1, as the networks take masks."""
    return mask.to(torch.float32) * 2 - 1


def normalised(image: Tensor) -> Tensor:
    """uint8 RGB -> float32 in [-1, 1], as the networks take images."""
    return image.float() / 127.5 - 1


def rescaled(x0: Tensor, blank: float) -> Tensor:
    """Masks of a network whose blank pixels are `blank` -> float in [-1, 1]; those at +-1 stay as they are, bit for bit."""
    return ((x0 - (1 + blank) / 2) * (2 / (1 - blank))).clamp(-1, 1)

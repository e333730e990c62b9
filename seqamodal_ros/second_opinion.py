# SPDX-License-Identifier: Apache-2.0
"""Where the denoiser sees no further layer, the encoder, which draws all at once, may: it is asked before Algorithm 2 stops."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from seqamodal_ros.diffusion.sequence import Second
from seqamodal_ros.scene.components import components

if TYPE_CHECKING:
    from torch import Tensor


def second_opinions(network: object, drawn: Tensor, inside: Sequence[np.ndarray], area_min: int) -> Sequence[Second | None]:
    """For each image, what `sequence` asks where it would stop; None of a network whose encoder draws no layers.

    Args:
        network: whose features they are.
        drawn: the last of the features; where the encoder draws layers, their log-odds float [B, layers, h, w].
        inside: bool [h, w] of each image, what is no padding.
        area_min: see `SequenceSettings`.
    """
    from seqamodal_ros.diffusion.fast import draws_layers

    if not draws_layers(network):
        return [None] * len(inside)
    every = zip(drawn.float().cpu().numpy(), inside, strict=True)
    return [partial(_layer, np.where(within, log_odds, -np.inf), area_min) for log_odds, within in every]


def _layer(log_odds: np.ndarray, area_min: int, number: int, cumulative: np.ndarray) -> np.ndarray:
    """Layer `number` as it was drawn, without parts of which fewer than `area_min` pixels show: float32 [h, w] in [-1, 1].

    What lies in the cumulative mask was taken for something of the layers before.
    """
    x0 = np.full(cumulative.shape, -1.0, np.float32)
    if number <= len(log_odds):
        layer = log_odds[number - 1]
        for part in components(layer >= 0, area_min):
            if (part & ~cumulative).sum() >= area_min:
                x0[part] = np.tanh(layer[part] / 2)
    return x0

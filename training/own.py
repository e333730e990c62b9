# SPDX-License-Identifier: Apache-2.0
"""Layers as the `fast` network draws them itself, free-running, and which objects it has drawn then."""

from typing import Protocol

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import signed
from seqamodal_ros.diffusion.schedule import Schedule
from training.data.batches import Batch


class TrainableNetwork(Protocol):
    """What training asks of a network that predicts x0; see `adapter.Network`."""

    conditions: int
    hypotheses: int

    def encode(self, image: Tensor) -> tuple[Tensor, ...]: ...

    def logits(
        self,
        x_t: Tensor,
        t: Tensor,
        cumulative_mask: Tensor,
        image_features: tuple[Tensor, ...],
        hypothesis: Tensor | None = None,
    ) -> Tensor: ...

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: tuple[Tensor, ...]) -> Tensor: ...


@torch.no_grad()
def own_layers(network: TrainableNetwork, features: tuple[Tensor, ...], schedule: Schedule, size: int, depth: int) -> Tensor:
    """The first `depth` layers of images with these features, one sampling step each: bool [B, depth, size, size].

    It goes on behind a blank one.
    """
    b, device = len(features[0]), features[0].device
    cumulative = torch.zeros(b, 1, size, size, dtype=torch.bool, device=device)
    t = torch.full((b,), schedule.steps - 1, device=device)
    layers = []
    for _ in range(depth):
        logits = network.logits(torch.randn(b, 1, size, size, device=device), t, signed(cumulative), features)
        layers.append(logits > 0)
        cumulative = cumulative | layers[-1]
    return torch.cat(layers, dim=1)


def drawn_objects(batch: Batch, cumulative_mask: Tensor) -> Tensor:
    """Objects that a cumulative mask bool [B, 1, h, w] claims: most of their visible pixels lie in it. bool [B, O]."""
    in_front = torch.cumsum(batch.amodal, dim=1) - batch.amodal.long() > 0  # objects come nearest first
    visible = batch.amodal & ~in_front
    claimed = (visible & cumulative_mask).sum(dim=(2, 3))
    return 2 * claimed >= visible.sum(dim=(2, 3))

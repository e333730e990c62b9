# SPDX-License-Identifier: Apache-2.0
"""Hypotheses that a denoiser tells apart by number: a row teaches the one that comes nearest to its target, so they part.

Where an image can be read in two ways, a network that learns from every row draws what lies between; of several that share
the rows each can have one way for itself (Guzman-Rivera et al., 2012: multiple choice learning).
"""

import torch
from torch import Tensor

from training.losses import row_losses
from training.own import TrainableNetwork

TO_MEAN = 0.3  # share of rows that teach number 0, whatever their target: the mean of all, which draws cumulative masks
TO_ANY = 0.1  # of the others, share that teach any, or one that never came nearest would never learn (Rupprecht et al., 2017)


@torch.no_grad()
def to_teach(
    network: TrainableNetwork,
    x_t: Tensor,
    t: Tensor,
    cumulative_mask: Tensor,
    image_features: tuple[Tensor, ...],
    target: Tensor,
    dice: float,
    zero: bool = True,
) -> Tensor | None:
    """The hypothesis that each row teaches: int64 [R]; None of a network that tells none apart.

    Args:
        network, x_t, t, cumulative_mask, image_features: see `FastNetwork.denoise`.
        target: float [R, 1, h, w], 1 where the layer is.
        dice: weight of Dice beside binary cross-entropy.
        zero: whether a share of the rows teaches number 0, which has no vector of its own to learn.
    """
    if network.hypotheses == 1:
        return None
    rows, device = len(x_t), x_t.device
    others = range(1, network.hypotheses)
    losses = torch.stack(
        [
            row_losses(network.logits(x_t, t, cumulative_mask, image_features, torch.full_like(t, number)).float(), target, dice)
            for number in others
        ]
    )
    nearest = 1 + losses.argmin(dim=0)
    any_of_them = torch.randint(1, network.hypotheses, (rows,), device=device)
    taught = torch.where(torch.rand(rows, device=device) < TO_ANY, any_of_them, nearest)
    return torch.where(torch.rand(rows, device=device) < (TO_MEAN if zero else 0), 0, taught)

# SPDX-License-Identifier: Apache-2.0
"""Binary cross-entropy and Dice of masks that are drawn as log-odds."""

import torch.nn.functional as F
from torch import Tensor

SMOOTH = 8.0  # pixels, in Dice: a blank target has a slope towards blank


def mask_losses(logits: Tensor, target: Tensor, dice: float) -> dict[str, Tensor]:
    """Binary cross-entropy and Dice of masks float [R, C, h, w], scalars, and their sum, "loss"; `dice` weighs the latter."""
    bce = F.binary_cross_entropy_with_logits(logits, target)
    overlap = dice_losses(logits.sigmoid().flatten(0, 1)[:, None], target.flatten(0, 1)[:, None]).mean()
    return {"loss": bce + dice * overlap, "bce": bce, "dice": overlap}


def row_losses(logits: Tensor, target: Tensor, dice: float) -> Tensor:
    """Binary cross-entropy, and Dice weighed by `dice`, of each mask of float [R, 1, h, w]: float [R]."""
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2, 3))
    return bce + dice * dice_losses(logits.sigmoid(), target)


def dice_losses(probability: Tensor, target: Tensor) -> Tensor:
    """1 - Dice of masks [R, 1, h, w], smoothed by `SMOOTH`: float [R]."""
    overlap = (probability * target).sum(dim=(1, 2, 3))
    total = (probability + target).sum(dim=(1, 2, 3))
    return 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)

# SPDX-License-Identifier: Apache-2.0
"""What both networks are built of."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def numbers(hypothesis: Tensor | None, t: Tensor) -> Tensor:
    """Each row's number as `Network.denoise` takes it, int64 [B] as its timesteps `t`: 0 for all where it is None."""
    return torch.zeros_like(t) if hypothesis is None else hypothesis


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """Sinusoidal embedding float32 [B, channels] of timesteps int64 [B]."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(channels // 2, device=t.device) / (channels // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Attention(nn.Module):
    """Self-attention over all positions of a small grid."""

    def __init__(self, channels: int, groups: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).transpose(3, 4).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.transpose(2, 3).reshape(b, c, h, w))

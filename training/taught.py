# SPDX-License-Identifier: Apache-2.0
"""The `fast` network with heads on its encoder that training alone knows: what they learn, its features have to tell."""

import torch.nn.functional as F
from torch import Tensor, nn

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings

WIDTH = 32  # channels of the head that draws all layers


class TaughtNetwork(FastNetwork):
    """See `FastNetwork`; the heads are left out of what is exported.

    Attributes:
        edges: finest features -> both sides of occlusion edges, see training.edges; None without that task.
        all_layers: features -> every layer at once; None without that task.
    """

    HEADS = ("edges.", "all_layers.")  # how the names of their weights begin

    def __init__(self, settings: FastSettings, edges: bool, layers: int):
        super().__init__(settings)
        self.edges = nn.Conv2d(settings.encoder_channels[0], 2, 1) if edges else None
        self.all_layers = LayersHead(settings.encoder_channels, layers) if layers else None


class LayersHead(nn.Module):
    """All the encoder's features, summed from coarse to fine -> log-odds of each layer, float [B, layers, h, w].

    A row of Algorithm 1 tells of one layer of an image; this tells of all of them, in each step.
    """

    def __init__(self, channels: tuple[int, int, int, int], layers: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, WIDTH, 1) for each in channels)
        self.out = nn.Sequential(
            nn.SiLU(), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.SiLU(), nn.Conv2d(WIDTH, layers, 3, padding=1)
        )

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        *finer, h = (lateral(each) for lateral, each in zip(self.lateral, features, strict=True))
        for each in reversed(finer):
            h = each + F.interpolate(h, scale_factor=2)
        return self.out(h)


def without_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the `fast` network alone."""
    return {name: value for name, value in state.items() if not name.startswith(TaughtNetwork.HEADS)}

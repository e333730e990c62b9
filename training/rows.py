# SPDX-License-Identifier: Apache-2.0
"""What the objectives of both networks draw alike: the noise introduction of Eq. 12, and the rows of models of one layer each."""

import torch
from torch import Tensor

from training.data.batches import Batch, union


def next_layers(batch: Batch) -> tuple[Tensor, Tensor]:
    """The layers that may come next in each image, once 0, 1, ... layers are drawn.

    Returns:
        there: bool [B, n]; that many layers can have been drawn, as the image has them.
        layer: int64 [B, n], the layer that comes next, from 1; 0 is the blank one behind all of them.
    """
    depth = batch.layers.amax(dim=1, keepdim=True)
    before = torch.arange(int(depth.max()) + 1, device=depth.device).expand(len(depth), -1)
    return before <= depth, torch.where(before == depth, 0, before + 1)


def omitted_layers(layer: Tensor, share: float) -> Tensor:
    """i_rand of Eq. 12 for each target layer i int64 [B], uniform in 2..i-1: int64 [B]; 0 where nothing is omitted.

    A `share` of the rows with i >= 3 omit a layer; those with i < 3 have none to omit.
    """
    choices = layer - 2
    omitted = 2 + (torch.rand(len(layer), device=layer.device) * choices).long()
    chosen = torch.rand(len(layer), device=layer.device) < share
    return torch.where((choices > 0) & chosen, omitted, 0)


def independent_rows(batch: Batch, layer: int) -> Tensor:
    """Rows of a model that draws one layer alone (the baseline without cumulative learning, Section 5.5): int64 [B], of images.

    Every other row is of an image that has the layer, the others are of images whose target is blank, as far as the batch has
    both; deep layers are rare, and a model of one would learn to draw nothing.
    """
    depth = batch.layers.amax(dim=1)
    having, lacking = (depth >= layer).nonzero()[:, 0], (depth < layer).nonzero()[:, 0]
    pools = [pool for pool in (having, lacking) if len(pool)]
    drawn = [pool[torch.randint(len(pool), (len(depth),), device=depth.device)] for pool in pools]
    return torch.where(torch.arange(len(depth), device=depth.device) % 2 == 0, drawn[0], drawn[-1])


def layer_alone(batch: Batch, layer: int, image: Tensor) -> tuple[Tensor, Tensor]:
    """The blank cumulative mask and the target of such rows, bool [R, 1, h, w] each, of images int64 [R]."""
    target = union(batch.amodal, batch.layers == layer)[image]
    return torch.zeros_like(target), target


def check_rows(noise_introduction: float, only_layer: int) -> None:
    """Raise ValueError where an objective's settings of these names are out of range."""
    if not 0 <= noise_introduction <= 1:
        raise ValueError(f"noise_introduction is a share and must be in 0..1, not {noise_introduction}")
    if only_layer < 0:
        raise ValueError(f"only_layer is a layer, from 1, or 0 for all, not {only_layer}")

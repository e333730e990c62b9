# SPDX-License-Identifier: Apache-2.0
"""Who lies on top, told at the edges: an extra task of the encoder, in training alone.

An object's layer is told by its neighbours, and which of two is in front shows where they meet and nowhere else. Masks say it
too, but of whole objects: a head that marks the two sides of each such edge teaches the features where to look.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings

REACH = 2  # mask pixels from the edge


class EdgeTaughtNetwork(FastNetwork):
    """The `fast` network with a head on its finest features; the head is left out of what is exported."""

    HEAD = "edges."  # how the names of its weights begin

    def __init__(self, settings: FastSettings):
        super().__init__(settings)
        self.edges = nn.Conv2d(settings.encoder_channels[0], 2, 1)


def occlusion_edges(amodal: Tensor, occluded_by: Tensor) -> Tensor:
    """The two sides of the edges between objects that occlude one another: bool [B, 2, h, w].

    Channel 0 are the visible pixels of a thing within `REACH` of one that it occludes, channel 1 those of the thing behind.

    Args:
        amodal: bool [B, O, h, w].
        occluded_by: bool [B, O, O], Z of Eq. 1.
    """
    masks, above = amodal.flatten(2).float(), occluded_by.float()
    covered = (above @ masks > 0).view_as(amodal)
    visible = amodal & ~covered
    behind = (above.transpose(1, 2) @ visible.flatten(2).float() > 0).view_as(amodal)
    sides = [(visible & _near(other)).any(dim=1) for other in (behind, covered)]
    return torch.stack(sides, dim=1)


def _near(masks: Tensor) -> Tensor:
    """Pixels within `REACH` of masks bool [B, O, h, w]."""
    return F.max_pool2d(masks.float(), 2 * REACH + 1, stride=1, padding=REACH) > 0

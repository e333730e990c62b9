# SPDX-License-Identifier: Apache-2.0
"""Who lies on top, told at the edges: an extra task of the encoder, in training alone.

An object's layer is told by its neighbours, and which of two is in front shows where they meet and nowhere else. Masks say it
too, but of whole objects: a head that marks the two sides of each such edge teaches the features where to look.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 2  # mask pixels from the edge


def occlusion_edges(amodal: Tensor, occluded_by: Tensor) -> Tensor:
    """The two sides of the edges between objects that occlude one another: bool [B, 2, h, w].

    Channel 0 are the visible pixels of a thing within `REACH` of one that it occludes, channel 1 those of the thing behind.

    Args:
        amodal: bool [B, O, h, w].
        occluded_by: bool [B, O, O], Z of Eq. 1.
    """
    above = occluded_by.float()
    visible = amodal & ~_union_of(above, amodal)
    behind, in_front = _union_of(above.transpose(1, 2), visible), _union_of(above, visible)
    return torch.stack([(visible & _near(others)).any(dim=1) for others in (behind, in_front)], dim=1)


def _union_of(related: Tensor, masks: Tensor) -> Tensor:
    """For each object the union of those that it is related to: float [B, O, O] and bool [B, O, h, w] -> bool [B, O, h, w]."""
    return (related @ masks.flatten(2).float() > 0).view_as(masks)


def _near(masks: Tensor) -> Tensor:
    """Pixels within `REACH` of masks bool [B, O, h, w]."""
    return F.max_pool2d(masks.float(), 2 * REACH + 1, stride=1, padding=REACH) > 0

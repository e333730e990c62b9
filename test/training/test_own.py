# SPDX-License-Identifier: Apache-2.0
"""Layers as the network draws them itself, and the objects that it has drawn then."""

import torch

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.schedule import Schedule
from training.data.batches import Batch, union
from training.own import drawn_objects, own_layers


def chain() -> Batch:
    """One scene of 8 x 8 pixels: three objects in a row, each half under the one before; the fourth is padding."""
    amodal = torch.zeros(1, 4, 8, 8, dtype=torch.bool)
    for k in range(3):
        amodal[0, k, :, 2 * k : 2 * k + 4] = True
    occluded_by = torch.zeros(1, 4, 4, dtype=torch.bool)
    occluded_by[0, 1, 0] = occluded_by[0, 2, 1] = True
    return Batch(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), amodal, occluded_by, torch.tensor([[1, 2, 3, 0]]))


def test_exact_cumulative_masks_claim_exactly_what_they_are_made_of():
    batch = chain()
    for depth in range(4):
        row = batch.layers <= depth
        assert torch.equal(drawn_objects(batch, union(batch.amodal, row)), row)


def test_most_of_the_visible_pixels_decide():
    batch = chain()
    cumulative = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    cumulative[..., 4:6] = True  # what is seen of the second object
    cumulative[0, 0, :4, 5] = False
    assert drawn_objects(batch, cumulative)[0].tolist() == [False, True, False, True]
    cumulative[0, 0, :5, 4] = False  # fewer than half of it
    assert not drawn_objects(batch, cumulative)[0, 1]


def test_each_layer_is_told_of_those_before():
    network = FastNetwork(FastSettings(64, 16, (8, 8, 16, 16), (8, 16, 16)))
    told: list[torch.Tensor] = []

    def logits(x_t, t, cumulative_mask, features, hypothesis=None):
        told.append(cumulative_mask > 0)
        assert (t == 999).all() and (cumulative_mask.abs() == 1).all()
        return torch.randn(2, 1, 16, 16)

    network.logits = logits
    torch.manual_seed(0)
    layers = own_layers(network, network.encode(torch.randn(2, 3, 64, 64)), Schedule.linear(), 16, 4)
    assert layers.shape == (2, 4, 16, 16) and layers.dtype == torch.bool and not layers.requires_grad
    assert len(told) == 4 and not told[0].any()
    for number, before in enumerate(told):
        assert torch.equal(before, layers[:, :number].any(dim=1, keepdim=True))

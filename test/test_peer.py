# SPDX-License-Identifier: Apache-2.0
"""The paper's network and its sampling against diffusers', with the same weights and the same noise."""

import pytest
import torch

from benchmarks import peer
from seqamodal_ros.diffusion.adapter import conditioned, normalised
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.samplers import ancestral
from seqamodal_ros.diffusion.schedule import Schedule


def made(*sizes):
    torch.manual_seed(5)
    network = PaperNetwork(PaperSettings(*sizes)).eval().requires_grad_(False)
    for weight in network.parameters():  # those that begin at zero, too, must tell
        weight += 0.05 * torch.randn_like(weight)
    return network


@pytest.mark.parametrize("sizes", [(16, 32, (1,)), (32, 32, (1, 2)), (64, 32, (1, 2, 3))], ids=str)
def test_the_whole_network(sizes):
    network = made(*sizes)
    theirs, side = peer.with_weights_of(network), network.settings.mask_size
    x, t = torch.randn(3, 5, side, side), torch.tensor([0, 371, 999])
    torch.testing.assert_close(network.unet(x, t), theirs(x, t).sample, rtol=1e-5, atol=1e-5)


def test_steps_of_the_sampler_with_the_same_noise():
    """After 60 of 1000 steps; the last step is in test_parity.py."""
    network = made(16, 32, (1,))
    theirs, side = peer.with_weights_of(network), network.settings.mask_size
    image = torch.randint(256, (2, 3, side, side), dtype=torch.uint8)
    features, cumulative = network.encode(normalised(image)), torch.randn(2, 1, side, side).sign()
    schedule, generator, met = Schedule.linear(), torch.Generator().manual_seed(6), []
    denoise = conditioned(network, schedule, cumulative, features)

    def remembered(x_t, t):
        met.append(x_t)
        return denoise(x_t, t)

    def draw():
        return torch.randn(2, 1, side, side, generator=generator)

    def before_call():
        if len(met) == 61:
            raise StopIteration

    with pytest.raises(StopIteration):
        ancestral(remembered, draw, schedule, peer.STEPS, before_call)
    condition = torch.cat([*features, cumulative], dim=1)
    for calls in (0, 1, 60):
        answer = peer.sample(theirs, condition, torch.Generator().manual_seed(6), calls)
        torch.testing.assert_close(met[calls], answer, rtol=1e-4, atol=1e-4)


def test_the_papers_size():
    assert sum(each.numel() for each in peer.unet().parameters()) == 82_960_130

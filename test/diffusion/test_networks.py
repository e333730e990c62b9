# SPDX-License-Identifier: Apache-2.0
"""What holds for both networks: images of a batch know nothing of one another, and every input has a say."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.networks import build_network
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings

FAST = FastSettings(image_size=64, mask_size=16, encoder_channels=(8, 8, 16, 16), denoiser_channels=(8, 16, 16))
PAPER = PaperSettings(mask_size=16, channels=32, multipliers=(1, 2))


@dataclass
class Case:
    """A small network without a parameter that is zero, which would leave the rest without a say; and three of its inputs."""

    network: FastNetwork | PaperNetwork
    tolerance: float
    image: Tensor
    x_t: Tensor
    t: Tensor
    cumulative: Tensor

    @torch.no_grad()
    def denoise(self, rows: slice = slice(None)) -> Tensor:
        features = self.network.encode(self.image[rows])
        return self.network.denoise(self.x_t[rows], self.t[rows], self.cumulative[rows], features)


@pytest.fixture(params=[(FAST, 0.2, 1e-5), (PAPER, 0.05, 1e-4)], ids=["fast", "paper"])
def case(request) -> Case:
    settings, spread, tolerance = request.param
    torch.manual_seed(0)
    network = build_network(settings).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=spread)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, 3, settings.image_size, settings.image_size, generator=generator) * 2 - 1
    x_t = torch.randn(3, 1, 16, 16, generator=generator)
    cumulative = torch.where(torch.rand(3, 1, 16, 16, generator=generator) > 0.5, 1.0, -1.0)
    return Case(network, tolerance, image, x_t, torch.tensor([999, 500, 0]), cumulative)


def test_a_batch_equals_one_by_one(case):
    together = case.denoise()
    assert together.shape == (3, 1 if case.network.prediction == "x0" else 2, 16, 16)
    for k in range(3):
        one = slice(k, k + 1)
        assert torch.allclose(together[one], case.denoise(one), atol=case.tolerance)


@pytest.mark.parametrize("changed", ["image", "noise", "timestep", "cumulative mask"])
def test_every_input_has_a_say(case, changed):
    before = case.denoise()
    if changed == "image":
        case.image = -case.image
    elif changed == "noise":
        case.x_t = -case.x_t
    elif changed == "timestep":
        case.t = 999 - case.t - 1
    else:
        case.cumulative = -case.cumulative
    # of each row, on x0, or on epsilon and on the variance
    assert ((case.denoise() - before).abs().amax(dim=(2, 3)) > 1e-4).all()

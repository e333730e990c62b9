# SPDX-License-Identifier: Apache-2.0
"""The `paper` network: its size to the parameter, shapes, scalings; what it shares with the other is in test_networks.py."""

import pytest
import torch

from seqamodal_ros.diffusion.blocks import Attention
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings

TINY = PaperSettings(mask_size=16, channels=32, multipliers=(1, 2))


def tiny(settings: PaperSettings = TINY) -> PaperNetwork:
    torch.manual_seed(0)
    network = PaperNetwork(settings).eval()
    with torch.no_grad():  # what starts as zero would leave the rest without a say
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return network


@pytest.fixture(scope="module")
def network() -> PaperNetwork:
    return tiny()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, 3, 16, 16, generator=generator) * 2 - 1
    x_t = torch.randn(3, 1, 16, 16, generator=generator)
    cumulative = torch.where(torch.rand(3, 1, 16, 16, generator=generator) > 0.5, 1.0, -1.0)
    return image, x_t, torch.tensor([999, 500, 0]), cumulative


def test_it_is_the_papers_network_to_the_parameter():
    with torch.device("meta"):  # sizes without numbers
        network = PaperNetwork(PaperSettings())
    assert sum(parameter.numel() for parameter in network.parameters()) == 82_960_130


@torch.no_grad()
def test_all_four_levels_go_down_and_up_again():
    network = PaperNetwork(PaperSettings(channels=32))
    features = network.encode(torch.zeros(1, 3, 64, 64))
    predicted = network.denoise(torch.zeros(1, 1, 64, 64), torch.tensor([7]), torch.ones(1, 1, 64, 64), features)
    assert predicted.shape == (1, 2, 64, 64)
    assert [len(level.blocks) for level in (*network.unet.down, *network.unet.up)] == [2] * 4 + [3] * 4
    attending = [name for name, module in network.unet.named_modules() if isinstance(module, Attention)]
    assert {name.split(".blocks")[0] for name in attending} == {"down.2", "middle.0.attention", "up.1"}  # at 16x16, and below


@torch.no_grad()
def test_it_begins_with_no_prediction(inputs):
    image, x_t, t, cumulative = inputs
    fresh = PaperNetwork(TINY)
    assert not fresh.denoise(x_t, t, cumulative, fresh.encode(image)).any()


@torch.no_grad()
def test_a_larger_image_is_averaged_by_area(network, inputs):
    image, *_ = inputs
    (features,) = network.encode(image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    assert torch.allclose(features, image, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    ("scaling", "blank", "image_range"), [("ours", -1.0, (-1.0, 1.0)), ("authors", 0.0, (0.0, 255.0))], ids=["ours", "authors"]
)
def test_scalings(inputs, scaling, blank, image_range):
    """What reaches the U-Net: RGB, cumulative mask, noisy mask, in this order (Eq. 7)."""
    _, x_t, t, cumulative = inputs
    network = tiny(PaperSettings(mask_size=16, channels=32, multipliers=(1, 2), scaling=scaling))
    reached = []
    network.unet.register_forward_pre_hook(lambda _, arguments: reached.append(arguments[0]))
    image = torch.linspace(-1, 1, 256).view(1, 1, 16, 16).expand(3, 3, 16, 16)
    network.denoise(x_t, t, cumulative, network.encode(image))
    (x,) = reached
    assert x.shape == (3, 5, 16, 16)
    assert (x[:, :3].min().item(), x[:, :3].max().item()) == pytest.approx(image_range)
    assert torch.equal(x[:, 3:4], torch.where(cumulative > 0, 1.0, blank))
    assert torch.equal(x[:, 4:], x_t)
    assert network.blank == blank


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 48}, "channels must be a multiple of 32, not 48"),
        ({"multipliers": ()}, "multipliers must be one positive number for each level"),
        ({"multipliers": (1, 0)}, "multipliers must be one positive number"),
        ({"mask_size": 60}, "mask_size must be a multiple of 8 that halves to 16, .* within 4 levels, not 60"),
        ({"mask_size": 256}, "not 256"),
        ({"scaling": "none"}, "scaling must be one of ours, authors, not 'none'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        PaperSettings(**settings)

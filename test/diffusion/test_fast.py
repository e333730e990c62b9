# SPDX-License-Identifier: Apache-2.0
"""The `fast` network: shapes and size; what it shares with the other is in test_networks.py."""

from dataclasses import replace

import pytest
import torch

from seqamodal_ros.diffusion.blocks import timestep_embedding
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings, on_masks

SMALL = FastSettings(image_size=64, mask_size=16, encoder_channels=(8, 8, 16, 16), denoiser_channels=(8, 16, 16))


@pytest.fixture(scope="module")
def network() -> FastNetwork:
    torch.manual_seed(0)
    network = FastNetwork(SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return network


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, 3, 64, 64, generator=generator) * 2 - 1
    x_t = torch.randn(3, 1, 16, 16, generator=generator)
    cumulative = torch.where(torch.rand(3, 1, 16, 16, generator=generator) > 0.5, 1.0, -1.0)
    return image, x_t, torch.tensor([999, 500, 0]), cumulative


def test_the_number_of_parameters():
    """Weights of one count do not load into a network of another, so a change here is a new model."""
    assert sum(parameter.numel() for parameter in FastNetwork(FastSettings()).parameters()) == 7_688_401  # 15.4 MB as float16


@torch.no_grad()
def test_shapes_and_range(network, inputs):
    image, x_t, t, cumulative = inputs
    features = network.encode(image)
    assert [tuple(f.shape) for f in features[:4]] == [(3, 16, 16, 16), (3, 8, 8, 8), (3, 16, 4, 4), (3, 16, 2, 2)]
    assert [tuple(f.shape) for f in features[4:]] == [(3, 8, 16, 16), (3, 8, 8, 8), (3, 16, 4, 4), (3, 16, 2, 2)]
    x0 = network.denoise(x_t, t, cumulative, features)
    assert x0.shape == (3, 1, 16, 16)
    assert x0.abs().max() <= 1
    assert torch.allclose((x0 + 1) / 2, network.logits(x_t, t, cumulative, features).sigmoid(), atol=1e-5)


@torch.no_grad()
def test_an_image_of_more_than_four_times_the_masks_is_seen_on_the_same_grid(network, inputs):
    """What follows the encoder costs what it did, and each feature lies where it lay."""
    wide = FastNetwork(replace(SMALL, image_size=96)).eval()
    wide.load_state_dict(network.state_dict())
    image = inputs[0]
    features = network.encode(image)
    larger = wide.encode(torch.nn.functional.interpolate(image, size=(96, 96), mode="bilinear"))
    assert [f.shape for f in larger] == [f.shape for f in features]

    for encoder, side in ((network, 64), (wide, 96)):  # light in one corner changes what lies there, not what lies across
        dark = torch.full((1, 3, side, side), -1.0)
        light = dark.clone()
        light[..., : side // 4, : side // 4] = 1
        change = (encoder.encode(light)[4] - encoder.encode(dark)[4]).abs().mean(dim=(0, 1))
        assert change[:8, :8].sum() > change[8:, 8:].sum()


def test_features_of_each_level_stay_where_they_lie():
    """A slope stays that slope, by the places of its pixels' centres."""

    def slopes(side):
        x = ((torch.arange(side) + 0.5) / side).expand(side, side)
        return torch.stack([x, x.T])[None]

    for larger in (72, 80, 128):
        brought = on_masks(tuple(slopes(larger >> k) for k in range(4)), 64)
        for got, side in zip(brought, (64, 32, 16, 8), strict=True):
            torch.testing.assert_close(got, slopes(side))

    fitting = tuple(slopes(side) for side in (64, 32, 16, 8))
    assert all(got is each for got, each in zip(on_masks(fitting, 64), fitting, strict=True))


@pytest.mark.parametrize("size", [(96, 96), (32, 32), (64, 96), (96, 64)])
def test_an_image_of_another_size_is_refused(network, size):
    with pytest.raises(ValueError, match=f"reads images of 64x64 pixels, not {size[1]}x{size[0]}"):
        network.encode(torch.zeros(1, 3, *size))


@torch.no_grad()
@pytest.mark.parametrize("image_size", [64, 96, 128])
def test_images_from_four_to_eight_times_the_masks_are_read(image_size):
    wide = FastNetwork(replace(SMALL, image_size=image_size)).eval()
    assert wide.encode(torch.zeros(1, 3, image_size, image_size))[4].shape == (1, 8, 16, 16)


@pytest.mark.parametrize("image_size", [32, 48, 72, 160, 0, -64])
def test_images_that_do_not_fit_the_masks_are_refused(image_size):
    with pytest.raises(ValueError, match=f"image_size must be a multiple of 32 from 64 to 128.*, not {image_size}"):
        replace(SMALL, image_size=image_size)


@pytest.mark.parametrize("mask_size", [8, 24, 0, -16])
def test_masks_of_a_size_that_cannot_be_halved_are_refused(mask_size):
    with pytest.raises(ValueError, match=f"mask_size must be a multiple of 16, not {mask_size}"):
        replace(SMALL, mask_size=mask_size)


@torch.no_grad()
def test_the_denoiser_looks_at_its_conditions_alone(network, inputs):
    """So a caller may leave the others out where it repeats rows."""
    image, x_t, t, cumulative = inputs
    features = network.encode(image)
    x0 = network.denoise(x_t, t, cumulative, features)
    assert torch.equal(network.denoise(x_t, t, cumulative, features[: network.conditions]), x0)
    for k, feature in enumerate(features[: network.conditions]):
        others = (*features[:k], -feature, *features[k + 1 :])
        assert not torch.equal(network.denoise(x_t, t, cumulative, others), x0), k


def test_timestep_embeddings_tell_timesteps_apart():
    embedding = timestep_embedding(torch.arange(1000), 16)
    assert embedding.shape == (1000, 16)
    assert torch.cdist(embedding, embedding).fill_diagonal_(1).min() > 1e-3


@torch.no_grad()
def test_hypotheses_are_told_apart_by_their_number(network, inputs):
    """Number 0 is what a network draws that tells none apart."""
    image, x_t, t, cumulative = inputs
    several = FastNetwork(replace(SMALL, hypotheses=3)).eval()
    several.load_state_dict({**several.state_dict(), **network.state_dict()})
    features = network.encode(image)
    alone = network.denoise(x_t, t, cumulative, features)
    assert torch.equal(several.denoise(x_t, t, cumulative, features), alone)
    assert torch.equal(several.denoise(x_t, t, cumulative, features, torch.zeros(3, dtype=torch.int64)), alone)
    drawn = [several.denoise(x_t, t, cumulative, features, torch.full((3,), number)) for number in range(3)]
    for one, other in ((0, 1), (1, 2), (2, 0)):
        assert ((drawn[one] - drawn[other]).abs().amax(dim=(1, 2, 3)) > 1e-4).all()
    mixed = several.denoise(x_t, t, cumulative, features, torch.tensor([2, 0, 1]))
    for row, number in enumerate((2, 0, 1)):
        torch.testing.assert_close(mixed[row], drawn[number][row], atol=1e-5, rtol=0)


def test_a_number_of_hypotheses_below_one_is_refused():
    with pytest.raises(ValueError, match="hypotheses must be 1 or more, not 0"):
        replace(SMALL, hypotheses=0)

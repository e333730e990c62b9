# SPDX-License-Identifier: Apache-2.0
"""The `fast` network: shapes and size; what it shares with the other is in test_networks.py."""

import pytest
import torch

from seqamodal_ros.diffusion.blocks import timestep_embedding
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings

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

# SPDX-License-Identifier: Apache-2.0
"""The one door with the `paper` network, small and of random weights: it looks the same from outside."""

import numpy as np
import pytest

from seqamodal_ros import Perceiver

STEPS = 4


@pytest.fixture(scope="module", params=["ours", "authors"])
def model(request, tmp_path_factory) -> str:
    import torch

    from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
    from seqamodal_ros.diffusion.sequence import SequenceSettings
    from seqamodal_ros.diffusion.weights import ModelSettings, save_model

    settings = PaperSettings(mask_size=16, channels=32, multipliers=(1,), scaling=request.param)
    torch.manual_seed(0)
    network = PaperNetwork(settings)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    path = tmp_path_factory.mktemp("models") / "paper.safetensors"
    described = ModelSettings(settings, SequenceSettings(max_layers=2, area_min=3), STEPS, sampler="ancestral")
    save_model(path, network.state_dict(), described)
    return str(path)


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, 40, 3), dtype=np.uint8) for height in (40, 24)]


def test_a_scene_from_an_image(model, images):
    scene = Perceiver.load(model, "cpu")(images[0], num_samples=3)
    layers = len(scene.amodal)
    assert 1 <= layers <= 2
    assert scene.hypotheses.shape == (layers, 3, 16, 16)
    assert 0 <= scene.probability.min() < scene.probability.max() <= 1
    assert not np.array_equal(scene.hypotheses[0, 0], scene.hypotheses[0, 1])


def test_a_batch_equals_its_images_alone_and_the_same_seed_gives_the_same(model, images):
    """Noise is drawn at every step, for each image from a generator of its own."""
    perceiver = Perceiver.load(model, "cpu")
    for image, scene in zip(images, perceiver.batch(images, 2, seed=3), strict=True):
        alone = perceiver(image, 2, seed=3)
        assert np.array_equal(alone.amodal, scene.amodal)
        assert np.allclose(alone.probability, scene.probability, atol=1e-4)
    assert not np.array_equal(perceiver(images[0], 2, seed=4).probability, perceiver(images[0], 2, seed=3).probability)


def test_cancellation_is_looked_for_before_each_network_call(model, images):
    calls: list[int] = []

    def before_call() -> None:
        calls.append(1)
        if len(calls) == limit:
            raise InterruptedError

    limit = 0
    scene = Perceiver.load(model, "cpu", max_layers=1, before_call=before_call)(images[0])
    assert len(scene.amodal) == 1
    assert len(calls) == 1 + STEPS  # one to encode
    calls.clear()
    limit = 4
    with pytest.raises(InterruptedError):
        Perceiver.load(model, "cpu", before_call=before_call)(images[0])
    assert len(calls) == limit

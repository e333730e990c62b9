# SPDX-License-Identifier: Apache-2.0
"""What the tests of several rooms share: small models, scenes made by hand, the settings of hypothesis."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

# Before torch is imported: on a busy machine its threads spend their time waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.scene import LayeredScene

# What the user of this machine has exported is not for tests: masks are those of PyTorch, unless a test says otherwise.
CACHE = tempfile.TemporaryDirectory(prefix="seqamodal-test-cache-")
os.environ["XDG_CACHE_HOME"] = CACHE.name

settings.register_profile(
    "tests", deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("tests")


@pytest.fixture
def make_scene() -> Callable[..., LayeredScene]:
    """A scene of given layers bool [L, h, w]: probability 0.9 on each mask, K equal hypotheses unless given."""

    def make(amodal: np.ndarray, width: int = 0, height: int = 0, samples: int = 2, **others) -> LayeredScene:
        amodal = np.asarray(amodal, bool)
        size = amodal.shape[-1]
        return LayeredScene.assemble(
            amodal,
            others.pop("probability", np.where(amodal, 0.9, 0.1).astype(np.float32)),
            others.pop("hypotheses", np.repeat(amodal[:, None], samples, axis=1)),
            others.pop("geometry", Geometry.letterbox(width or size, height or size)),
            **others,
        )

    return make


@pytest.fixture
def rectangles() -> Callable[..., np.ndarray]:
    """bool [n, size, size] of rectangles (left, top, right, bottom), one each."""

    def draw(*boxes: tuple[int, int, int, int], size: int = 32) -> np.ndarray:
        masks = np.zeros((len(boxes), size, size), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = True
        return masks

    return draw


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """Weights of a small `fast` network with random weights (masks of 32 pixels), as training writes them."""
    import torch

    from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
    from seqamodal_ros.diffusion.sequence import SequenceSettings
    from seqamodal_ros.diffusion.weights import ModelSettings, save_model

    sizes = FastSettings(image_size=128, mask_size=32, encoder_channels=(8, 8, 16, 16), denoiser_channels=(8, 16, 16))
    torch.manual_seed(0)
    network = FastNetwork(sizes)
    with torch.no_grad():  # blocks that start as zero would leave the image without a say
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    save_model(path, network.state_dict(), ModelSettings(sizes, SequenceSettings(max_layers=3), sampling_steps=2))
    return path


@pytest.fixture(scope="session")
def centred_model(small_model, tmp_path_factory) -> Path:
    """The small model with ways to centres, of random weights, of images of five times its masks."""
    from dataclasses import replace

    import torch

    from seqamodal_ros.diffusion.fast import FastNetwork
    from seqamodal_ros.diffusion.weights import load_model, save_model

    model = load_model(str(small_model))
    torch.manual_seed(1)
    network = FastNetwork(replace(model.settings.network, image_size=160, centre_channels=(8, 8, 16)))
    path = tmp_path_factory.mktemp("models") / "centred.safetensors"
    settings = replace(model.settings, network=network.settings)
    save_model(path, {**network.state_dict(), **model.network.state_dict()}, settings)
    return path


@pytest.fixture(scope="session")
def numbered_model(small_model, tmp_path_factory) -> Path:
    """The small model with three hypotheses that it tells apart by number, all layers and ways to centres, of images of five
    times its masks: with all that `fast-base` has."""
    from dataclasses import replace

    import torch

    from seqamodal_ros.diffusion.fast import FastNetwork
    from seqamodal_ros.diffusion.weights import load_model, save_model

    model = load_model(str(small_model))
    torch.manual_seed(2)
    network = FastNetwork(replace(model.settings.network, image_size=160, layers=3, centre_channels=(8, 8, 16), hypotheses=3))
    torch.nn.init.normal_(network.denoiser.numbers.weight[1:], std=3.0)  # farther apart than any rounding
    for of_layers in (network.denoiser.layers_1, network.denoiser.layers_2):  # which begin as zero
        torch.nn.init.normal_(of_layers.weight, std=0.3)
    path = tmp_path_factory.mktemp("models") / "numbered.safetensors"
    state = {**network.state_dict(), **model.network.state_dict()}
    save_model(path, state, replace(model.settings, network=network.settings))
    return path

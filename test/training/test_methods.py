# SPDX-License-Identifier: Apache-2.0
"""The ways from images to layers: one after the other, each alone, all at once; with networks whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqamodal_ros import Perceiver
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import ModelSettings, save_model
from training.data.batches import Batch, all_layers
from training.methods import SCHEDULE, independent_layers, mean_mask, one_shot_layers, sequential_layers
from training.one_shot import OneShotNetwork, OneShotObjective, OneShotSettings, one_shot_loss

CHANNELS = {"encoder_channels": (8, 8, 8, 8), "denoiser_channels": (8, 8, 8)}
SMALL = FastSettings(image_size=128, mask_size=32, **CHANNELS)
RULES = SequenceSettings(max_layers=3, area_min=4)


class Scripted(FastNetwork):
    """Draws the rows of an image that are brighter than 3/4 first, then those brighter than 1/4; nothing else is left then."""

    def logits(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
        bright = torch.nn.functional.adaptive_avg_pool2d(image_features[0], 32)
        layer = torch.where((cumulative_mask > 0).flatten(1).any(1)[:, None, None, None], bright > -0.5, bright > 0.5)
        return 20.0 * (layer & (cumulative_mask < 0)) - 10

    def encode(self, image):
        return (image.mean(dim=1, keepdim=True),)


def image(*rows: tuple[int, int]) -> np.ndarray:
    """uint8 [S, S, 3], black but for some rows of mask pixels, each four high, at a brightness."""
    picture = np.zeros((32, 32, 3), np.uint8)
    for row, brightness in rows:
        picture[row : row + 4] = brightness
    return picture.repeat(SMALL.image_size // 32, 0).repeat(SMALL.image_size // 32, 1)


def rows_of(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(mask.any(axis=1)).tolist()


def test_one_layer_after_the_other():
    """Two images as one batch; the second has one layer. Layer 2 is disjoint from layer 1, so it is merged."""
    network = Scripted(SMALL)
    two, one = sequential_layers(network, [image((0, 255), (8, 128)), image((4, 255))], RULES, "ddim", 1, 3, 0)
    assert [rows_of(mask) for mask in two.amodal] == [[0, 1, 2, 3, 8, 9, 10, 11]]
    assert [rows_of(mask) for mask in one.amodal] == [[4, 5, 6, 7]]
    assert two.hypotheses.shape == (1, 3, 32, 32)


def test_each_layer_by_a_model_of_its_own():
    """Both draw what they draw from a blank cumulative mask; a layer that is not there is blank."""
    network = Scripted(SMALL)
    found = independent_layers([network, network], [image((0, 255)), image((8, 128))], 4, "ddim", 1, 2, 0)
    assert [[rows_of(mask) for mask in each.amodal] for each in found] == [[[0, 1, 2, 3]] * 2, [[]] * 2]
    assert found[0].hypotheses.shape == (2, 2, 32, 32)


@pytest.mark.parametrize(
    "see",
    [
        lambda network, images: sequential_layers(network, images, RULES, "ddim", 2, 3, 0),
        lambda network, images: independent_layers([network], images, 4, "ddim", 2, 3, 0),
    ],
    ids=["sequential", "independent"],
)
def test_hypotheses_of_an_image_share_the_first_step(see):
    network, rows = Scripted(SMALL), []
    logits = network.logits
    network.logits = lambda x_t, *given: rows.append(len(x_t)) or logits(x_t, *given)
    see(network, [image((0, 255)), image((8, 255))])
    assert rows[:2] == [2, 6]


def test_those_of_all_layers_at_once_do_too():
    network, rows = OneShotNetwork(OneShotSettings(image_size=128, mask_size=32, max_layers=2, **CHANNELS)), []
    network.denoiser.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    one_shot_layers(network, [image(), image()], 4, steps=3, samples=4, seed=0)
    assert rows == [2, 8, 8]


@pytest.mark.parametrize("layers", [0, 3])
def test_the_perceiver_sees_the_same(tmp_path, layers):
    """Algorithm 2 here is Algorithm 2 there, down to the noise, and to what the encoder says in the end."""
    torch.manual_seed(3)
    network = FastNetwork(replace(SMALL, layers=layers))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = tmp_path / "model.safetensors"
    save_model(path, network.state_dict(), ModelSettings(network.settings, RULES, 2))
    perceiver = Perceiver.load(str(path), "cpu")
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    picture = np.random.default_rng(0).integers(0, 256, (SMALL.image_size,) * 2 + (3,), dtype=np.uint8)
    (found,) = sequential_layers(network.eval(), [picture], RULES, "ddim", 2, 3, 5)
    seen = perceiver(picture, 3, 5)
    assert len(found.amodal)
    assert np.array_equal(found.amodal, seen.amodal)
    assert np.array_equal(found.hypotheses, seen.hypotheses)


def test_the_mean_mask_is_the_majority():
    candidates = np.zeros((3, 1, 4), bool)
    candidates[0, 0, :3] = candidates[1, 0, :2] = candidates[2, 0, :1] = True
    assert mean_mask(candidates, area_min=2).tolist() == [[True, True, False, False]]
    assert mean_mask(candidates, area_min=3).tolist() == [[True, True, False, False]]  # too little in common: the selected one
    apart = np.eye(3, dtype=bool)[:, None]
    assert mean_mask(apart, area_min=1).tolist() == apart[0].tolist()


def pair() -> Batch:
    """One scene: the upper half, which is bright, and behind it a strip that is half covered; its third object is padding."""
    amodal = torch.zeros(1, 3, 32, 32, dtype=torch.bool)
    amodal[0, 0, :16], amodal[0, 1, 8:24] = True, True
    side = SMALL.image_size
    picture = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    picture[..., : side // 2, :], picture[..., side // 2 : 3 * side // 4, :] = 250, 120
    occluded_by = torch.zeros(1, 3, 3, dtype=torch.bool)
    occluded_by[0, 1, 0] = True
    return Batch(picture, amodal, occluded_by, torch.tensor([[1, 2, 0]]))


def test_all_layers_are_the_channels():
    batch = pair()
    stack = all_layers(batch, 4)
    assert stack.shape == (1, 4, 32, 32)
    assert torch.equal(stack[0, :2], batch.amodal[0, :2])
    assert not stack[0, 2:].any()
    assert torch.equal(all_layers(batch, 1)[0], batch.amodal[0, :1])


def test_a_one_shot_network_learns_and_draws():
    torch.manual_seed(0)
    network = OneShotNetwork(OneShotSettings(image_size=128, mask_size=32, **CHANNELS, max_layers=2))
    batch = pair()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        losses = one_shot_loss(network, batch, SCHEDULE, OneShotObjective(rows=2))
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert losses["loss"] < 0.5
    (found,) = one_shot_layers(network.eval(), [batch.image[0].permute(1, 2, 0).numpy()], 4, steps=2, samples=3, seed=0)
    assert found.hypotheses.shape == (2, 3, 32, 32)
    for predicted, true in zip(found.amodal, batch.amodal[0, :2].numpy(), strict=True):
        assert (predicted & true).sum() / (predicted | true).sum() > 0.8


@pytest.mark.parametrize("samples", [1, 4])
def test_a_layer_without_candidates_is_blank(samples):
    network = Scripted(SMALL)
    (found,) = independent_layers([network], [image()], 4, "ddim", 1, samples, 0)
    assert not found.amodal.any()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"layers": 5}, "layers must be 0 of a network that draws all layers at once, not 5"),
        (
            {"centre_channels": (8, 8, 8)},
            r"centre_channels must be \(\) of a network that draws all layers at once, not \(8, 8, 8\)",
        ),
        ({"hypotheses": 3}, "hypotheses must be 1 of a network that draws all layers at once, not 3"),
    ],
)
def test_a_one_shot_network_refuses_parts_that_it_does_not_have(part, message):
    with pytest.raises(ValueError, match=message):
        OneShotSettings(**part)

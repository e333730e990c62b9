# SPDX-License-Identifier: Apache-2.0
"""What the encoder says where the denoiser sees no further layer: parts that show, of the layer that is due."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqamodal_ros import Perceiver
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import ModelSettings, save_model
from seqamodal_ros.second_opinion import second_opinions

SIDE = 16
EVERYWHERE = np.ones((SIDE, SIDE), bool)
SETTINGS = FastSettings(image_size=64, mask_size=SIDE, encoder_channels=(8, 8, 8, 8), denoiser_channels=(8, 8, 8), layers=3)


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = True
    return mask


FRONT, BEHIND, ELSEWHERE = box(2, 2, 8, 8), box(5, 5, 13, 13), box(0, 12, 4, 16)


def log_odds(*layers: np.ndarray, height: float = 2.0) -> torch.Tensor:
    return torch.from_numpy(np.where(np.stack(layers), height, -height).astype(np.float32))


def asked(layers: torch.Tensor, number: int, cumulative: np.ndarray, inside: np.ndarray = EVERYWHERE) -> np.ndarray:
    (opinion,) = second_opinions(FastNetwork(SETTINGS), layers[None], [inside], area_min=4)
    return opinion(number, cumulative)


def test_it_is_the_layer_that_is_due():
    x0 = asked(log_odds(FRONT, BEHIND | ELSEWHERE), 2, FRONT)
    assert x0.dtype == np.float32
    assert np.array_equal(x0 >= 0, BEHIND | ELSEWHERE)
    assert x0[BEHIND] == pytest.approx(np.tanh(1)) and x0.min() == -1


def test_a_part_that_hardly_shows_was_taken_for_something_before():
    layers = log_odds(FRONT, BEHIND | ELSEWHERE)
    assert np.array_equal(asked(layers, 2, FRONT | BEHIND) >= 0, ELSEWHERE)
    hardly = BEHIND & ~box(9, 9, 12, 10)  # three pixels of it show
    assert np.array_equal(asked(layers, 2, FRONT | hardly) >= 0, ELSEWHERE)
    shows = BEHIND & ~box(9, 9, 13, 10)  # four
    assert np.array_equal(asked(layers, 2, FRONT | shows) >= 0, BEHIND | ELSEWHERE)


def test_padding_and_layers_that_it_does_not_draw_are_blank():
    layers = log_odds(FRONT, BEHIND)
    assert np.array_equal(asked(layers, 2, FRONT, inside=box(0, 0, SIDE, 9)) >= 0, BEHIND & box(0, 0, SIDE, 9))
    assert (asked(layers, 3, FRONT) == -1).all()


@pytest.fixture
def scripted(tmp_path):
    """A perceiver whose denoiser sees FRONT and then nothing, and whose encoder draws the given layers."""

    def make(*layers: np.ndarray, mirror: bool = False, first: bool = True) -> Perceiver:
        path = tmp_path / "model.safetensors"
        settings = ModelSettings(SETTINGS, SequenceSettings(max_layers=3, area_min=4), 2, mirror=mirror)
        save_model(path, FastNetwork(SETTINGS).state_dict(), settings)
        perceiver = Perceiver.load(str(path), "cpu", runtime="torch")
        network = perceiver.model.network
        drawn = log_odds(*layers)

        def denoised(module, inputs, output):
            nothing_yet = (inputs[2] < 0).flatten(1).all(1)[:, None, None, None]
            front = torch.from_numpy(FRONT).expand(len(output), 1, -1, -1).clone()
            if mirror:
                front[1::2] = front[1::2].flip(-1)
            return 20.0 * (front & nothing_yet & first) - 10

        def all_layers(module, inputs, output):
            both = torch.stack([drawn, drawn.flip(-1)][: 2 if mirror else 1])
            return both.repeat(len(output) // len(both), 1, 1, 1)

        network.denoiser.register_forward_hook(denoised)
        network.all_layers.register_forward_hook(all_layers)
        return perceiver

    return make


IMAGE = np.zeros((64, 64, 3), np.uint8)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_perceiver_goes_on_with_what_the_encoder_sees(scripted, mirror):
    scene = scripted(FRONT, BEHIND, np.zeros_like(FRONT), mirror=mirror)(IMAGE)
    assert np.array_equal(scene.amodal, [FRONT, BEHIND])
    assert np.array_equal(scene.hypotheses[1], [BEHIND, np.zeros_like(BEHIND), np.zeros_like(BEHIND)])
    assert np.isnan(scene.agreement[1])  # of the hypotheses none saw it
    assert scene.probability[1][BEHIND] == pytest.approx((np.tanh(1) + 1) / 2, abs=1e-3)
    assert not scene.truncated


@pytest.mark.parametrize(("here", "mirrored", "seen"), [(2.0, -4.0, False), (-2.0, 4.0, True)])
def test_of_an_image_and_its_mirror_image_it_is_the_mean(scripted, here, mirrored, seen):
    perceiver, nothing = scripted(FRONT, mirror=True), np.zeros_like(FRONT)
    views = [log_odds(FRONT, BEHIND if height > 0 else nothing, nothing, height=abs(height)) for height in (here, mirrored)]
    both = torch.stack([views[0], views[1].flip(-1)])
    perceiver.model.network.all_layers.register_forward_hook(lambda module, inputs, output: both)
    assert np.array_equal(perceiver(IMAGE).amodal, [FRONT, BEHIND] if seen else [FRONT])


def test_each_image_of_a_batch_has_its_own(scripted):
    perceiver = scripted(FRONT, BEHIND, np.zeros_like(FRONT))
    both = torch.stack([log_odds(FRONT, BEHIND, BEHIND & FRONT), log_odds(FRONT, BEHIND.T | box(3, 7, 9, 11), FRONT)])
    perceiver.model.network.all_layers.register_forward_hook(lambda module, inputs, output: both)
    wide = np.zeros((32, 64, 3), np.uint8)  # a quarter of the square is padding above it, and below
    first, second = perceiver.batch([IMAGE, wide])
    assert np.array_equal(first.amodal, [FRONT, BEHIND])
    within = box(0, 4, SIDE, 12)
    assert np.array_equal(second.amodal, [FRONT & within, (BEHIND.T | box(3, 7, 9, 11)) & within])


def test_where_a_majority_of_null_proposals_stops_it_is_asked_too(scripted):
    perceiver = scripted(FRONT, BEHIND, np.zeros_like(FRONT))
    settings = perceiver.model.settings
    perceiver.model = replace(
        perceiver.model, settings=replace(settings, sequence=replace(settings.sequence, majority_null=True))
    )
    assert np.array_equal(perceiver(IMAGE).amodal, [FRONT, BEHIND])


def test_a_blank_first_layer_is_believed(scripted):
    assert len(scripted(FRONT, BEHIND, ELSEWHERE, first=False)(IMAGE).amodal) == 0

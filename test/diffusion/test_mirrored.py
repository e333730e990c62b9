# SPDX-License-Identifier: Apache-2.0
"""The mean of what a network says of an image and of its mirror image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from seqamodal_ros import Perceiver
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.mirrored import Mirrored
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import ModelSettings, load_model, save_model
from seqamodal_ros.runtimes.choice import network_on

SMALL = FastSettings(image_size=64, mask_size=16, encoder_channels=(8, 8, 16, 16), denoiser_channels=(8, 16, 16))


@pytest.fixture
def case():
    torch.manual_seed(0)
    network = FastNetwork(SMALL).eval()
    for parameter in network.parameters():  # no layer may be blank from the start
        torch.nn.init.normal_(parameter, std=0.1)
    b = 3
    t = torch.tensor([999, 500, 20])
    return network, torch.randn(b, 3, 64, 64), torch.randn(b, 1, 16, 16), t, torch.randn(b, 1, 16, 16).sign()


@torch.no_grad()
def test_it_is_the_mean_of_both_views(case):
    network, image, x_t, t, cumulative = case
    straight = network.denoise(x_t, t, cumulative, network.encode(image))
    mirrored = network.denoise(x_t.flip(-1), t, cumulative.flip(-1), network.encode(image.flip(-1))).flip(-1)
    assert not torch.allclose(straight, mirrored, atol=1e-3)
    both = Mirrored(network)
    assert torch.allclose(both.denoise(x_t, t, cumulative, both.encode(image)), (straight + mirrored) / 2, atol=1e-5)


@torch.no_grad()
def test_both_views_are_of_the_same_hypothesis(case):
    _, image, x_t, t, cumulative = case
    network = FastNetwork(replace(SMALL, hypotheses=3)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    both, number = Mirrored(network), torch.tensor([2, 0, 1])
    straight = network.denoise(x_t, t, cumulative, network.encode(image), number)
    mirrored = network.denoise(x_t.flip(-1), t, cumulative.flip(-1), network.encode(image.flip(-1)), number).flip(-1)
    answer = both.denoise(x_t, t, cumulative, both.encode(image), number)
    assert torch.allclose(answer, (straight + mirrored) / 2, atol=1e-5)
    assert not torch.allclose(answer, both.denoise(x_t, t, cumulative, both.encode(image)), atol=1e-3)


@torch.no_grad()
def test_a_mirrored_image_gets_the_mirrored_answer(case):
    network, image, x_t, t, cumulative = case
    both = Mirrored(network)
    answer = both.denoise(x_t, t, cumulative, both.encode(image))
    other = both.denoise(x_t.flip(-1), t, cumulative.flip(-1), both.encode(image.flip(-1))).flip(-1)
    assert torch.allclose(answer, other, atol=1e-5)


@torch.no_grad()
def test_features_are_taken_by_image_as_those_of_any_network(case):
    network, image, x_t, t, cumulative = case
    both = Mirrored(network)
    features = both.encode(image)
    assert {len(f) for f in features} == {3}
    of_image = torch.tensor([2, 0])
    some = both.denoise(x_t[of_image], t[of_image], cumulative[of_image], tuple(f[of_image] for f in features))
    assert torch.allclose(some, both.denoise(x_t, t, cumulative, features)[of_image], atol=1e-5)


@torch.no_grad()
def test_ways_to_centres_are_the_mean_of_both():
    torch.manual_seed(0)
    network = FastNetwork(replace(SMALL, centre_channels=(8, 8, 8))).eval()
    for parameter in network.centres.parameters():
        parameter.normal_(std=0.3)  # ways of hundreds of pixels, so bounds are relative
    image, layer, cumulative = torch.randn(2, 3, 64, 64), torch.randn(2, 1, 16, 16).sign(), torch.randn(2, 1, 16, 16).sign()
    both = Mirrored(network)
    said = both.to_centres(layer, cumulative, both.encode(image)[both.conditions :])

    def alone(image, layer, cumulative):
        return network.to_centres(layer, cumulative, network.encode(image)[network.conditions :])

    mirrored = alone(*(each.flip(-1) for each in (image, layer, cumulative))).flip(-1)
    mirrored[:, 0] *= -1  # what lies to the left there lies to the right here
    assert torch.allclose(said, (alone(image, layer, cumulative) + mirrored) / 2, rtol=1e-4, atol=1e-2)
    assert (said - mirrored).abs().mean() > 10
    turned = both.to_centres(layer.flip(-1), cumulative.flip(-1), both.encode(image.flip(-1))[both.conditions :]).flip(-1)
    assert torch.allclose(turned, said * torch.tensor([-1.0, 1.0])[:, None, None], rtol=1e-4, atol=1e-2)


def test_the_weights_say_whether_and_the_caller_may_say_otherwise(case, tmp_path):
    network = case[0]
    path = tmp_path / "mirrored.safetensors"
    settings = ModelSettings(SMALL, SequenceSettings(area_min=1), mirror=True)
    save_model(path, network.state_dict(), settings)
    assert load_model(str(path)).settings == settings
    assert isinstance(network_on(load_model(str(path)), "cpu", "torch")[0].network, Mirrored)
    assert Perceiver.load(str(path), "cpu").model.settings.mirror
    assert not Perceiver.load(str(path), "cpu", mirror=False).model.settings.mirror
    save_model(path, network.state_dict(), replace(settings, mirror=False))
    assert isinstance(network_on(load_model(str(path)), "cpu", "torch")[0].network, FastNetwork)


def test_a_perceiver_of_a_mirrored_model_looks_at_both(case, tmp_path):
    path = tmp_path / "mirrored.safetensors"
    save_model(path, case[0].state_dict(), ModelSettings(SMALL, SequenceSettings(area_min=1), mirror=True))
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for mirror, views in ((None, 2), (False, 1)):
        perceiver = Perceiver.load(str(path), "cpu", mirror=mirror)
        seen = []
        perceiver.model.network.encoder.register_forward_pre_hook(lambda _, images, seen=seen: seen.append(images[0]))
        perceiver(image)
        ((*views_of,),) = seen
        assert len(views_of) == views
        if views == 2:
            assert torch.equal(views_of[0].flip(-1), views_of[1])


def test_layers_can_be_teacher_forced_too(case, tmp_path):
    from training.predictions import teacher_forced

    path = tmp_path / "mirrored.safetensors"
    save_model(path, case[0].state_dict(), ModelSettings(SMALL, SequenceSettings(area_min=1), mirror=True))
    truth = np.zeros((3, 16, 16), bool)
    truth[:, 4:12, 4:12] = True
    perceiver = Perceiver.load(str(path), "cpu", sampling_steps=2)
    (predicted,) = teacher_forced(perceiver, [np.zeros((64, 64, 3), np.uint8)], [truth], 2, 0)
    assert predicted.shape == truth.shape

# SPDX-License-Identifier: Apache-2.0
"""The paper's network and its sampling against diffusers', with the same weights and the same noise."""

import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="needs diffusers: pip install -r requirements/test.txt")

import training.data.packed
from benchmarks import peer, same_weights
from seqamodal_ros.diffusion.adapter import conditioned, normalised
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.samplers import ancestral
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.weights import ModelSettings, save_model
from training.data.compositor import CompositeSettings
from training.data.scene import Scene


def made(*sizes, spread=0.05):
    torch.manual_seed(5)
    network = PaperNetwork(PaperSettings(*sizes)).eval().requires_grad_(False)
    for weight in network.parameters():  # those that begin at zero, too, must tell
        weight += spread * torch.randn_like(weight)
    return network


@pytest.mark.parametrize("sizes", [(16, 32, (1,)), (32, 32, (1, 2)), (64, 32, (1, 2, 3))], ids=str)
def test_the_whole_network(sizes):
    network = made(*sizes)
    theirs, side = peer.with_weights_of(network), network.settings.mask_size
    x, t = torch.randn(3, 5, side, side), torch.tensor([0, 371, 999])
    torch.testing.assert_close(network.unet(x, t), theirs(x, t).sample, rtol=1e-5, atol=1e-5)


def test_the_paper_s_own_network():
    """All 82,960,130 weights; the difference is printed for docs/method.md."""
    network = made(spread=0.02)  # answers of so many weights grow with it, and float32's rounding with them
    assert sum(weight.numel() for weight in network.unet.parameters()) == 82_960_130
    theirs = peer.with_weights_of(network)
    x, t = torch.randn(1, 5, 64, 64), torch.tensor([371])
    ours, answer = network.unet(x, t), theirs(x, t).sample
    print(f"answers up to {answer.abs().max():.1f}, the largest difference {(ours - answer).abs().max():.1e}")
    torch.testing.assert_close(ours, answer, rtol=1e-5, atol=1e-5)


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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Small weights of both kinds of scaling, with mirror images too, and a set of two images for testing."""
    monkeypatch.setattr(training.data.packed, "in_parallel", lambda work, count, _: map(work, range(count)))
    for name, settings in {"ours": {}, "authors": {"scaling": "authors"}, "mirrored": {}}.items():
        network = made(16, 32, (1,)) if not settings else PaperNetwork(PaperSettings(16, 32, (1,), "authors"))
        held = replace(ModelSettings(network.settings), mirror=name == "mirrored")
        save_model(tmp_path / f"{name}.safetensors", network.state_dict(), held)
    rng = np.random.default_rng(0)
    for name, side in {"set": 32, "odd": 40}.items():
        images = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(2)]
        scenes = [Scene(image, np.ones((1, 16, 16), bool), np.zeros((1, 1), bool)) for image in images]
        about = {"split": "test", "settings": asdict(CompositeSettings(image_size=side, mask_size=16))}
        training.data.packed.pack(tmp_path / name, about, lambda _, scenes=scenes: (scenes, range(2), {}), 1)
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["same_weights", "--device", "cpu", "--runtime", "torch", *map(str, arguments)])
    same_weights.main()


def test_masks_of_both_with_the_same_weights(folder, monkeypatch, capsys):
    """The first 20 of the 1000 steps, which are as good for a comparison."""
    monkeypatch.setattr(peer, "STEPS", 20)
    monkeypatch.setattr(peer.DDPMScheduler, "__init__", scheduler_of(20, peer.DDPMScheduler.__init__))
    monkeypatch.setattr(Schedule, "trailing", lambda self, count: list(range(count))[::-1])
    run(monkeypatch, "--model", folder / "ours.safetensors", "--set", folder / "set", "--out", folder / "found.json")
    assert "masks agree to an IOU of 1.0000" in capsys.readouterr().out
    found = json.loads((folder / "found.json").read_text())
    assert found["ratio"] == pytest.approx(sum(found["seconds"]["peer"]) / sum(found["seconds"]["ours"]))


def scheduler_of(steps, begin):
    """A scheduler whose steps are the last so many of a thousand."""

    def init(self, count, *arguments, **options):
        begin(self, 1000, *arguments, **options)
        self.timesteps = self.timesteps[-steps:]

    return init


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("authors", "set"), "not of the paper's network with `scaling: ours`"),
        (("mirrored", "set"), "and no mirror images"),
        (("nothing", "set"), "nothing.safetensors"),
        (("ours", "nowhere"), "no packed set in"),
        (("ours", "odd"), "no multiple of the model's 16"),
        (("ours", "set", "--images", "0"), "--images"),
        (("ours", "set", "--out", "/nowhere/found.json"), "there is no folder /nowhere"),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_what_cannot_be_compared_is_told_in_a_line(folder, monkeypatch, capsys, arguments, message):
    model, packed, *others = arguments
    with pytest.raises(SystemExit):
        run(monkeypatch, "--model", folder / f"{model}.safetensors", "--set", folder / packed, *others)
    assert message in capsys.readouterr().err

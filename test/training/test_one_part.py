# SPDX-License-Identifier: Apache-2.0
"""One part of a trained network, trained alone: what changes, what begins anew, and that images are encoded once."""

import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

import training.hypotheses
import training.objective
import training.train
from seqamodal_ros.diffusion.adapter import normalised
from seqamodal_ros.diffusion.fast import FastNetwork, ResidualBlock
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.weights import ModelSettings, load_model, save_model
from training.begin import begin
from training.data.batches import Repeated
from training.data.scene import Scene
from training.encoded import EncodedOnce
from training.loop import LoopSettings
from training.objective import PARTS, ObjectiveSettings
from training.settings import TrainSettings
from training.train import fit, method_of

from .conftest import SMALL, pair


def small_settings(objective: ObjectiveSettings, **sizes: int) -> TrainSettings:
    """Of a small network with these sizes, from random weights."""
    return TrainSettings(
        network=replace(SMALL, **sizes),
        backbone=replace(TrainSettings().backbone, imagenet=False, frozen_stages=0),
        composites=replace(TrainSettings().composites, image_size=64, mask_size=16),
        objective=objective,
        repeated=5 if objective.only else 0,
    )


def test_an_image_that_comes_again_is_encoded_once():
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    asked: list[int] = []

    def encode(inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        asked.append(len(inputs))
        return inputs[:, :1], inputs.mean(dim=(2, 3))

    encoded = EncodedOnce()
    first = encoded(encode, images)
    again = encoded(encode, torch.cat([images[[2, 0]], images[:1] // 2]))
    assert asked == [1, 1, 1, 1]
    for one, other in zip(first, again, strict=True):
        assert one.dtype == torch.float32 and len(other) == 3
        assert torch.equal(other[:2], one[[2, 0]]) and not torch.equal(other[2], one[0])


def test_what_was_encoded_comes_back_where_training_is_in_bfloat16():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        (features,) = EncodedOnce()(lambda inputs: (inputs[:, :1],), images)
    assert features.dtype == torch.float32 and features.shape == (2, 1, 8, 8)


def test_repeated_scenes_are_drawn_once_each():
    drawn: list[float] = []

    def draw(rng: np.random.Generator) -> float:
        drawn.append(rng.random())
        return drawn[-1]

    repeated = Repeated(draw, 3, seed=7)
    rng = np.random.default_rng(0)
    first = [repeated(rng) for _ in range(50)]
    assert set(first) == set(drawn) and len(drawn) == 3
    assert {Repeated(draw, 3, seed=7)(rng) for _ in range(9)} <= set(first)


def test_repeated_scenes_and_one_part_alone_go_together():
    for wrong in ({"repeated": 5}, {"objective": ObjectiveSettings(only="denoiser")}):
        with pytest.raises(ValueError, match="give both"):
            TrainSettings(network=SMALL, **wrong)
    with pytest.raises(ValueError, match="repeated is a number of scenes"):
        TrainSettings(network=SMALL, repeated=-5)
    with pytest.raises(ValueError, match="they come again already"):
        alone = ObjectiveSettings(only="denoiser")
        TrainSettings(network=SMALL, objective=alone, repeated=5, loop=LoopSettings(again=2))
    with pytest.raises(ValueError, match="tells no hypotheses apart by number"):
        TrainSettings(network=SMALL, objective=ObjectiveSettings(only="numbers"), repeated=5)


@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("part", ["centres", "denoiser", "numbers"])
def test_a_run_of_one_part_alone_encodes_each_scene_once_and_resumes(tmp_path, monkeypatch, part, side):
    encode, asked = FastNetwork.encode, []

    def counted(self: FastNetwork, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        asked.append(len(image))
        return encode(self, image)

    def draw(rng: np.random.Generator) -> Scene:
        image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        return Scene(image, pair().amodal[0, :3].numpy(), pair().occluded_by[0, :3, :3].numpy())

    monkeypatch.setattr(FastNetwork, "encode", counted)
    settings = TrainSettings(
        network=replace(SMALL, image_size=side, hypotheses=3),
        backbone=replace(TrainSettings().backbone, imagenet=False, frozen_stages=0),
        composites=replace(TrainSettings().composites, image_size=side, mask_size=16),
        objective=ObjectiveSettings(only=part, own_from=2),
        loop=LoopSettings(steps=6, batch_size=2, workers=0, sheet_every=100),
        repeated=3,
    )
    begun = begin(settings).state_dict()
    runs = []
    for folder, minutes in (("whole", [None]), ("parts", [0.0, None])):
        for limit in minutes:
            asked.clear()
            torch.manual_seed(0)
            run = fit(settings, draw, tmp_path / folder, begin(settings), limit)
        runs.append(run)
    assert [run.step for run in runs] == [6, 6]
    assert sum(asked) <= 3 + 12  # the scenes, and others that are looked at in the end
    for name, value in runs[0].network.state_dict().items():
        assert torch.equal(value, runs[1].network.state_dict()[name]), name
        assert name.startswith(f"{PARTS[part]}.") or torch.equal(value, begun[name]), name
    changed = runs[0].network.state_dict()
    learned = "denoiser.numbers.weight" if part == "numbers" else f"{part}.out.3.weight"
    assert not torch.equal(changed[learned], begun[learned])
    assert not changed["denoiser.numbers.weight"][0].any()
    other = replace(settings, objective=ObjectiveSettings(only="centres" if part == "denoiser" else "denoiser"))
    with pytest.raises(ValueError, match="of a run that trains other parts of it: give its configuration"):
        fit(other, draw, tmp_path / "whole", begin(other))


@pytest.mark.parametrize("only", ["", "centres", "denoiser", "numbers"])
def test_what_learns(only):
    objective = ObjectiveSettings(rows=2, centres=0.0 if only else 0.5, only=only)
    settings = small_settings(objective, hypotheses=3)
    network = begin(settings)
    losses = method_of(settings).losses(network, pair(), Schedule.linear(), 0)
    rows = {"loss", "bce", "dice"}
    assert set(losses) == {"": rows | {"centres"}, "centres": {"loss"}, "denoiser": rows, "numbers": rows}[only]
    losses["loss"].backward()
    learns = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    if only == "numbers":
        assert learns == {"denoiser.numbers.weight"}
    else:
        assert {name.split(".")[0] for name in learns} == ({only} if only else {"centres", "encoder", "denoiser"})


def test_numbers_alone_leave_what_number_0_draws(monkeypatch):
    monkeypatch.setattr(training.hypotheses, "TO_MEAN", 1.0)  # of rows that teach number 0 there are none
    settings = small_settings(ObjectiveSettings(only="numbers"), hypotheses=3)
    network = begin(settings)
    for block in network.denoiser.modules():
        if isinstance(block, ResidualBlock):  # blank at the start, so that no number would tell
            torch.nn.init.normal_(block.conv_2.weight, std=0.1)
    features = network.encode(normalised(pair().image))
    given = torch.randn(2, 1, 16, 16), torch.full((2,), 999), -torch.ones(2, 1, 16, 16), features

    @torch.no_grad()
    def drawn(number: int) -> torch.Tensor:
        return network.logits(*given, torch.full((2,), number))

    before = [drawn(number) for number in range(3)]
    optimiser = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], lr=10.0)
    for step in range(4):
        optimiser.zero_grad()
        method_of(settings).losses(network, pair(), Schedule.linear(), step)["loss"].backward()
        optimiser.step()
    assert torch.equal(drawn(0), before[0])
    assert not (torch.equal(drawn(1), before[1]) and torch.equal(drawn(2), before[2]))


def test_features_kept_of_images_teach_what_those_images_would():
    settings = small_settings(ObjectiveSettings(only="denoiser"), layers=5)
    network, batch = begin(settings), pair()
    learned = network.denoiser.image_1.weight  # by the features, and nothing else
    torch.nn.init.normal_(network.denoiser.out[3].weight)
    gradients = []
    for losses in (method_of(settings).losses, partial(training.objective.loss, settings=settings.objective)):
        torch.manual_seed(0)
        losses(network, batch, Schedule.linear(), step=0)["loss"].backward()
        gradients.append(learned.grad.clone())
        network.zero_grad()
    scale = gradients[1].abs().max()
    assert scale > 0
    assert (gradients[0] - gradients[1]).abs().max() < 0.02 * scale  # kept in float16


def test_one_part_alone_leaves_no_room_for_the_losses_of_others():
    with pytest.raises(ValueError, match="leave out edges, all_layers and centres"):
        ObjectiveSettings(only="denoiser", all_layers=1.0)
    with pytest.raises(ValueError, match='only is "centres", "denoiser", "numbers" or ""'):
        ObjectiveSettings(only="encoder")


def test_what_init_may_hold(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_model(path, FastNetwork(SMALL).state_dict(), ModelSettings(SMALL))
    composites = replace(TrainSettings().composites, image_size=64, mask_size=16)
    with pytest.raises(ValueError, match="--init holds"):  # the file's would be lost
        begin(TrainSettings(network=replace(SMALL, centre_channels=()), composites=composites), load_model(str(path)))
    held = load_model(str(path)).network.state_dict()
    wide, learns = replace(SMALL, centre_channels=(16, 16, 16)), ObjectiveSettings(centres=1.0)
    wider = begin(TrainSettings(network=wide, composites=composites, objective=learns), load_model(str(path))).state_dict()
    for name, value in held.items():
        assert name.startswith("centres.") or torch.equal(value, wider[name]), name
    assert not torch.equal(held["centres.out.3.weight"], wider["centres.out.3.weight"])  # of the same size, but begun anew
    without = replace(SMALL, centre_channels=())
    save_model(path, FastNetwork(without).state_dict(), ModelSettings(without))
    assert begin(TrainSettings(network=SMALL, composites=composites, objective=learns), load_model(str(path))).centres is not None
    with pytest.raises(ValueError, match="does not train them"):  # random ones would be exported
        begin(TrainSettings(network=SMALL, composites=composites), load_model(str(path)))


def test_what_begins_anew_is_trained(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_model(path, FastNetwork(SMALL).state_dict(), ModelSettings(SMALL))
    composites = replace(TrainSettings().composites, image_size=64, mask_size=16)
    wider = replace(SMALL, centre_channels=(16, 16, 16))
    with pytest.raises(ValueError, match="does not train them"):
        begin(TrainSettings(network=wider, composites=composites), load_model(str(path)))
    alone = ObjectiveSettings(only="centres")
    deeper = TrainSettings(network=replace(SMALL, layers=5), composites=composites, objective=alone, repeated=5)
    with pytest.raises(ValueError, match="--init draws 0 layers, the configuration 5"):
        begin(deeper, load_model(str(path)))
    lighter = replace(SMALL, denoiser_channels=(8, 8, 16))
    with pytest.raises(ValueError, match="denoiser_channels.*does not train them"):
        begin(TrainSettings(network=lighter, composites=composites, objective=alone, repeated=5), load_model(str(path)))


@pytest.mark.parametrize("only", ["", "denoiser", "centres"])
def test_weights_go_on_with_images_of_another_size(tmp_path, only, capsys):
    path = tmp_path / "weights.safetensors"
    save_model(path, FastNetwork(SMALL).state_dict(), ModelSettings(SMALL))
    composites = replace(TrainSettings().composites, image_size=96, mask_size=16)
    objective, larger = ObjectiveSettings(only=only), replace(SMALL, image_size=96)
    settings = TrainSettings(network=larger, composites=composites, objective=objective, repeated=5 if only else 0)
    state = begin(settings, load_model(str(path))).state_dict()
    for name, value in load_model(str(path)).network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert not capsys.readouterr().out


@pytest.mark.parametrize("only", ["", "denoiser", "numbers"])
def test_weights_that_tell_no_hypotheses_apart_begin_a_run_that_does(tmp_path, only, capsys):
    path, more = tmp_path / "weights.safetensors", replace(SMALL, hypotheses=3)
    save_model(path, FastNetwork(SMALL).state_dict(), ModelSettings(SMALL))
    composites = replace(TrainSettings().composites, image_size=64, mask_size=16)
    objective = ObjectiveSettings(only=only)
    begun = begin(
        TrainSettings(network=more, composites=composites, objective=objective, repeated=5 if only else 0), load_model(str(path))
    )
    state = begun.state_dict()
    for name, value in load_model(str(path)).network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert begun.denoiser.numbers.weight.requires_grad
    assert "begins them anew: denoiser.numbers\n" in capsys.readouterr().out
    alone = ObjectiveSettings(only="centres")
    with pytest.raises(ValueError, match="--init tells 1 hypotheses apart, the configuration 3"):
        begin(TrainSettings(network=more, composites=composites, objective=alone, repeated=5), load_model(str(path)))
    save_model(path, state, ModelSettings(more))
    for other in (SMALL, replace(SMALL, hypotheses=5)):
        with pytest.raises(ValueError, match="--init holds"):  # the file's would be lost
            begin(TrainSettings(network=other, composites=composites), load_model(str(path)))


@pytest.mark.parametrize("only", ["", "denoiser"])
def test_a_denoiser_of_another_size_begins_anew(tmp_path, only, capsys):
    path, lighter = tmp_path / "weights.safetensors", replace(SMALL, denoiser_channels=(8, 8, 16))
    save_model(path, FastNetwork(SMALL).state_dict(), ModelSettings(SMALL))
    composites = replace(TrainSettings().composites, image_size=64, mask_size=16)
    objective = ObjectiveSettings(only=only)
    begun = begin(
        TrainSettings(network=lighter, composites=composites, objective=objective, repeated=5 if only else 0),
        load_model(str(path)),
    )
    for name, value in load_model(str(path)).network.state_dict().items():
        assert name.startswith("denoiser.") or torch.equal(value, begun.state_dict()[name]), name
    assert begun.denoiser.down_8.out_channels == 16
    assert "begins them anew: denoiser\n" in capsys.readouterr().out
    assert all(parameter.requires_grad for parameter in begun.denoiser.parameters())


@pytest.mark.parametrize("only", ["centres", "denoiser", "numbers", ""])
def test_a_bias_that_export_took_off_is_given_back(tmp_path, only):
    """But of a run of centres alone, which leaves the layers as they are."""
    sizes = replace(SMALL, hypotheses=3)
    path, network = tmp_path / "weights.safetensors", FastNetwork(sizes)
    save_model(path, network.state_dict(), replace(ModelSettings(sizes), bias=0.5))
    composites = replace(TrainSettings().composites, image_size=64, mask_size=16)
    begun = begin(
        TrainSettings(
            network=sizes,
            composites=composites,
            objective=ObjectiveSettings(only=only),
            repeated=5 if only else 0,
        ),
        load_model(str(path)),
    )
    before, after = (each.denoiser.out[3].bias.item() for each in (network, begun))
    assert after - before == pytest.approx(0 if only == "centres" else 0.5, abs=1e-3)


def test_centres_alone_need_a_network_that_is_trained(tmp_path, monkeypatch, capsys):
    config = tmp_path / "centres.yaml"
    config.write_text(
        "network: {centre_channels: [8, 8, 16]}\ncomposites: {image_size: 256}\nobjective: {only: centres}\nrepeated: 5\n"
    )
    monkeypatch.setattr(sys, "argv", ["train", str(config), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        training.train.main()
    assert "give its weights by --init" in capsys.readouterr().err

# SPDX-License-Identifier: Apache-2.0
"""Tasks beside the rows, of occlusion edges and of all layers at once, and rows from a blank cumulative mask."""

import sys
from dataclasses import replace

import pytest
import torch
import yaml

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import ModelSettings, load_model, save_model
from training.begin import begin
from training.data.batches import Batch
from training.data.compositor import CompositeSettings
from training.edges import occlusion_edges
from training.objective import ObjectiveSettings, loss
from training.settings import TrainSettings
from training.taught import TaughtNetwork

SMALL = FastSettings(image_size=64, mask_size=16, encoder_channels=(8, 8, 16, 16), denoiser_channels=(8, 16, 16))


def pair() -> Batch:
    """One scene of 16 x 16 pixels: columns 0-7 in front, 4-11 behind them, and a third thing alone far to the right."""
    amodal = torch.zeros(1, 3, 16, 16, dtype=torch.bool)
    amodal[0, 0, :, :8] = amodal[0, 1, :, 4:12] = amodal[0, 2, 0:2, 15:] = True
    occluded_by = torch.zeros(1, 3, 3, dtype=torch.bool)
    occluded_by[0, 1, 0] = True
    image = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    return Batch(image, amodal, occluded_by, torch.tensor([[1, 2, 1]]))


def test_each_side_is_two_pixels_wide_and_nothing_else_is_an_edge():
    front, behind = occlusion_edges(pair().amodal, pair().occluded_by)[0]
    assert front.any(dim=0).nonzero()[:, 0].tolist() == [6, 7]
    assert behind.any(dim=0).nonzero()[:, 0].tolist() == [8, 9]
    assert front[:, 6:8].all()
    assert behind[:, 8:10].all()


def test_things_that_do_not_overlap_have_no_edge():
    batch = pair()
    assert not occlusion_edges(batch.amodal, torch.zeros_like(batch.occluded_by)).any()


def test_the_edge_of_a_thing_in_the_middle_of_a_chain_has_both_sides():
    amodal = torch.zeros(1, 3, 4, 24, dtype=torch.bool)
    for k in range(3):
        amodal[0, k, :, 6 * k : 6 * k + 10] = True
    occluded_by = torch.tensor([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]], dtype=torch.bool)
    front, behind = occlusion_edges(amodal, occluded_by)[0]
    assert front.any(dim=0).nonzero()[:, 0].tolist() == [8, 9, 14, 15]
    assert behind.any(dim=0).nonzero()[:, 0].tolist() == [10, 11, 16, 17]


def test_where_what_lies_on_top_is_hidden_itself_there_is_no_edge():
    """The second lies on the third; the first hides all of that, and merely touches the third."""
    amodal = torch.zeros(1, 3, 4, 16, dtype=torch.bool)
    amodal[0, 0, :, 4:10] = amodal[0, 1, :, 6:11] = True
    amodal[0, 2, :, 10:16] = True
    amodal[0, 0, :, 10] = False
    occluded_by = torch.tensor([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]], dtype=torch.bool)
    amodal[0, 1, :, 10] = True
    front, behind = occlusion_edges(amodal, occluded_by)[0]
    assert front.any(dim=0).nonzero()[:, 0].tolist() == [8, 9, 10]  # the first on the second, and what shows of it on the third
    assert behind.any(dim=0).nonzero()[:, 0].tolist() == [10, 11, 12]


@pytest.mark.parametrize("task", ["edges", "all_layers"])
def test_a_task_is_learnt_and_its_weight_counts(task):
    torch.manual_seed(0)
    network, batch = TaughtNetwork(SMALL) if task == "edges" else FastNetwork(replace(SMALL, layers=3)), pair()
    torch.manual_seed(1)
    light = loss(network, batch, Schedule.linear(), ObjectiveSettings(**{task: 0.5}), 0)
    torch.manual_seed(1)
    heavy = loss(network, batch, Schedule.linear(), ObjectiveSettings(**{task: 2.0}), 0)
    assert heavy[task].item() == pytest.approx(light[task].item())
    assert (heavy["loss"] - light["loss"]).item() == pytest.approx(1.5 * light[task].item(), rel=1e-4)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        losses = loss(network, batch, Schedule.linear(), ObjectiveSettings(**{task: 1.0}), 0)
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    assert losses[task] < 0.5 * light[task]


def test_a_network_without_the_head_has_no_such_loss():
    assert "edges" not in loss(FastNetwork(SMALL), pair(), Schedule.linear(), ObjectiveSettings(edges=1.0), 0)


def test_what_is_trained_with_the_head_is_exported_without_and_begun_from_again(tmp_path, data, monkeypatch, capsys):
    import training.export
    import training.train

    config, out, weights = tmp_path / "taught.yaml", tmp_path / "run", tmp_path / "taught.safetensors"
    network = {
        "image_size": 64,
        "mask_size": 16,
        "encoder_channels": [8, 8, 16, 16],
        "denoiser_channels": [8, 16, 16],
        "layers": 3,
    }
    described = {
        "network": network,
        "backbone": {"imagenet": False, "frozen_stages": 0},
        "composites": {"image_size": 64, "mask_size": 16, "area_min": 2, "max_layers": 3},
        "objective": {"edges": 0.5, "all_layers": 0.5, "first": 0.5},
        "loop": {"steps": 1, "batch_size": 2, "workers": 0, "bfloat16": False},
    }
    config.write_text(yaml.safe_dump(described))
    where = ["--data", str(data), "--sprites", str(data / "rendered")]
    monkeypatch.setattr(sys, "argv", ["train", str(config), *where, "--out", str(out)])
    training.train.main()
    ema = torch.load(out / "checkpoint.pt", weights_only=True)["ema"]
    assert any(name.startswith(TaughtNetwork.HEADS) for name in ema)

    bias = ema["denoiser.out.3.bias"].clone()
    options = ["--mirror", "--bias", "0.5", "--temperatures", "1.5", "3", "--first-sure", "0.75", "--majority-null"]
    monkeypatch.setattr(sys, "argv", ["export", str(out), str(config), "--out", str(weights), *options])
    training.export.main()
    exported = load_model(str(weights))
    assert exported.network.all_layers is not None
    assert exported.settings.mirror and exported.settings.temperatures == (1.5, 3)
    assert exported.settings.sequence == SequenceSettings(max_layers=3, area_min=2, first_sure=0.75, majority_null=True)
    assert exported.network.denoiser.out[3].bias.item() == pytest.approx(bias.item() - 0.5, abs=1e-3)

    described["composites"]["max_layers"] = described["network"]["layers"] = 2
    described["composites"]["area_min"] = 5
    config.write_text(yaml.safe_dump(described))
    monkeypatch.setattr(sys, "argv", ["train", str(config), *where, "--out", str(tmp_path / "on"), "--init", str(weights)])
    training.train.main()
    ema, again = torch.load(tmp_path / "on" / "checkpoint.pt", weights_only=True)["ema"], tmp_path / "again.safetensors"
    on = replace(
        exported.settings,
        network=replace(exported.settings.network, layers=2),
        sequence=replace(exported.settings.sequence, max_layers=2, area_min=5),  # the layers that are learned are drawn
    )
    for options, wanted in (
        ([], on),
        (["--sampling-steps", "7", "--bias", "0.25", "--no-mirror"], replace(on, sampling_steps=7, bias=0.25, mirror=False)),
        (["--bias", "0"], replace(on, bias=0.0)),
    ):
        monkeypatch.setattr(sys, "argv", ["export", str(tmp_path / "on"), str(config), "--out", str(again), *options])
        training.export.main()
        assert load_model(str(again)).settings == wanted
        taken = ema["denoiser.out.3.bias"].item() - load_model(str(again)).network.denoiser.out[3].bias.item()
        assert taken == pytest.approx(wanted.bias, abs=1e-3)  # once, from the run's own
    capsys.readouterr()


class Watching(FastNetwork):
    """Remembers the cumulative masks that it was given."""

    def logits(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
        self.given = cumulative_mask
        return super().logits(x_t, t, cumulative_mask, image_features, hypothesis)


def test_the_denoiser_sees_all_layers_as_the_encoder_draws_them():
    torch.manual_seed(0)
    network = FastNetwork(replace(SMALL, layers=4))
    *features, layers = network.encode(torch.randn(2, 3, 64, 64))[network.conditions :]
    assert layers.shape == (2, 4, 16, 16)
    rows = torch.randn(2, 1, 16, 16), torch.tensor([0, 999]), torch.ones(2, 1, 16, 16)

    def logits(layers):
        return network.logits(*rows, network.denoiser.of_image((*features, layers)))

    assert torch.equal(logits(layers), logits(-layers))  # at first it takes no notice
    torch.nn.init.normal_(network.denoiser.layers_1.weight)
    assert not torch.equal(logits(layers), logits(-layers))


def test_a_network_begins_as_the_one_that_it_is_added_to(tmp_path):
    torch.manual_seed(0)
    plain, path = FastNetwork(SMALL), tmp_path / "plain.safetensors"
    save_model(path, plain.state_dict(), ModelSettings(SMALL))
    settings = TrainSettings(
        network=replace(SMALL, layers=3),
        composites=CompositeSettings(image_size=64, mask_size=16, max_layers=3),
        objective=ObjectiveSettings(all_layers=1.0),
    )
    image, rows = torch.randn(1, 3, 64, 64), (torch.randn(1, 1, 16, 16), torch.tensor([999]), torch.ones(1, 1, 16, 16))
    held = load_model(str(path))
    both = [each.eval().denoise(*rows, each.encode(image)) for each in (held.network, begin(settings, held))]
    assert torch.allclose(*both, atol=1e-5)


@pytest.mark.parametrize(
    "network,objective,words",
    [
        (FastSettings(layers=5), ObjectiveSettings(), "give both"),
        (FastSettings(), ObjectiveSettings(all_layers=1.0), "give both"),
        (FastSettings(layers=4), ObjectiveSettings(all_layers=1.0), "draws 4 layers, the scenes have up to 5"),
    ],
)
def test_parts_that_do_not_fit_the_scenes_or_the_objective(network, objective, words):
    with pytest.raises(ValueError, match=words):
        TrainSettings(network=network, objective=objective, composites=CompositeSettings(image_size=256))


def test_less_than_no_layer():
    with pytest.raises(ValueError, match="layers must be 0 or more"):
        FastSettings(layers=-1)


@pytest.mark.parametrize("own", [0.0, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_rows_starts_from_a_blank_mask(share, own):
    torch.manual_seed(0)
    network, settings = Watching(SMALL), ObjectiveSettings(rows=64, own=own, own_from=0, first=share)
    with torch.no_grad():
        network.denoiser.out[3].bias.fill_(3.0)  # it sees something everywhere, so its own masks are not blank
        loss(network, pair(), Schedule.linear(), settings, 0)
    blank = (network.given < 0).flatten(1).all(dim=1).float().mean().item()
    if share == 1:
        assert blank == 1
    elif own:
        assert blank == pytest.approx(share, abs=0.2)
    else:
        assert blank == pytest.approx(share + (1 - share) / 3, abs=0.2)  # layer 1 of 3, the blank one included


@pytest.mark.parametrize("wrong", [{"first": 1.5}, {"first": -0.1}, {"all_layers": -1.0}, {"edges": -1.0}], ids=str)
def test_shares_and_weights_are_checked(wrong):
    with pytest.raises(ValueError, match="must be"):
        ObjectiveSettings(**wrong)

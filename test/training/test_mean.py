# SPDX-License-Identifier: Apache-2.0
"""The mean of trained weights."""

import sys
from dataclasses import replace

import pytest
import torch

import training.mean
from seqamodal_ros.diffusion.fast import FastNetwork
from seqamodal_ros.diffusion.weights import ModelSettings, load_model, save_model

from .conftest import SMALL

BIAS = "denoiser.out.3.bias"


def written(path, seed, bias=0.0, network=SMALL):
    torch.manual_seed(seed)
    state = FastNetwork(network).state_dict()
    save_model(path, state, replace(ModelSettings(network), bias=bias, mirror=seed == 1))
    return str(path)


def mean(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["mean", *map(str, args)])
    training.mean.main()


def test_it_lies_between_and_is_sampled_as_the_first(tmp_path, monkeypatch, capsys):
    one, two = written(tmp_path / "one.safetensors", 1, bias=0.5), written(tmp_path / "two.safetensors", 2)
    out = tmp_path / "mean.safetensors"
    mean(monkeypatch, one, two, "--shares", 0.75, 0.25, "--out", out)
    assert "sha256: " in capsys.readouterr().out
    first, second, both = (load_model(str(path)) for path in (one, two, out))
    assert both.settings == first.settings
    states = [model.network.state_dict() for model in (first, second, both)]
    for name, value in states[2].items():
        expected = 0.75 * states[0][name] + 0.25 * states[1][name]
        if name == BIAS:  # the first has 0.5 off already, the second nothing, and the mean the first one's 0.5
            expected = expected - 0.25 * 0.5
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-4)


def test_what_all_hold_alike_can_be_left_to_another_file(tmp_path, monkeypatch):
    """A mean of equal numbers is that number, to the bit."""
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    written(one, 1)
    state = load_model(str(one)).network.state_dict()
    state[BIAS] = state[BIAS] + 1
    save_model(two, state, ModelSettings(SMALL))
    out = tmp_path / "mean.safetensors"
    mean(monkeypatch, one, two, two, "--out", out, "--rest", one)
    assert out.stat().st_size < one.stat().st_size / 10
    mean(monkeypatch, out, two, "--out", tmp_path / "again.safetensors")  # a file that leaves a rest is read with it
    again = load_model(str(tmp_path / "again.safetensors")).network.state_dict()[BIAS]
    assert (load_model(str(two)).network.state_dict()[BIAS] - again).item() == pytest.approx(1 / 6, abs=1e-3)
    change = load_model(str(out)).network.state_dict()[BIAS] - load_model(str(one)).network.state_dict()[BIAS]
    assert change.item() == pytest.approx(2 / 3, abs=1e-3)


def test_what_is_near_to_another_file_takes_half_the_room(tmp_path, monkeypatch):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    written(one, 1)
    state = load_model(str(one)).network.state_dict()
    save_model(two, {name: value * (1 + 0.1 * torch.randn_like(value)) for name, value in state.items()}, ModelSettings(SMALL))
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    mean(monkeypatch, one, two, "--out", whole)
    mean(monkeypatch, one, two, "--out", part, "--rest", one)
    assert part.stat().st_size < 0.7 * whole.stat().st_size
    back, held = (load_model(str(file)).network.state_dict() for file in (part, one))
    for name, value in load_model(str(whole)).network.state_dict().items():
        assert (back[name] - value).norm() <= 0.02 * (held[name] - value).norm() + 1e-3 * value.norm(), name


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.5, 0.4), "for each of the 2 files, in all 1, not [0.5, 0.4]"),
        ((1.5, -0.5), "a share of 0 or more"),
        ((1.0,), "for each of the 2 files, in all 1, not [1.0]"),
    ],
)
def test_shares_that_make_no_mean_are_refused(tmp_path, monkeypatch, capsys, shares, message):
    files = [written(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2)]
    out = tmp_path / "mean.safetensors"
    with pytest.raises(SystemExit):
        mean(monkeypatch, *files, "--shares", *shares, "--out", out)
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_files_that_are_not_there_are_named(tmp_path, monkeypatch, capsys):
    one = written(tmp_path / "one.safetensors", 1)
    for words, message in (
        ((one, tmp_path / "none.safetensors", "--out", tmp_path / "mean.safetensors"), "none.safetensors is missing"),
        ((one, one, "--out", tmp_path / "none" / "mean.safetensors"), "there is no folder"),
    ):
        with pytest.raises(SystemExit):
            mean(monkeypatch, *words)
        assert message in capsys.readouterr().err


def test_other_networks_have_no_mean(tmp_path, monkeypatch, capsys):
    wider = replace(SMALL, denoiser_channels=(8, 16, 24))
    files = written(tmp_path / "one.safetensors", 1), written(tmp_path / "two.safetensors", 2, network=wider)
    with pytest.raises(SystemExit):
        mean(monkeypatch, *files, "--out", tmp_path / "mean.safetensors")
    assert "there is no mean of these" in capsys.readouterr().err

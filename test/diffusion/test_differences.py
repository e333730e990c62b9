# SPDX-License-Identifier: Apache-2.0
"""Weights kept as eight-bit differences: how near they come back, what is kept whole, and differences that are damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from seqamodal_ros.diffusion.differences import STEP, differences, restored
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.weights import ModelSettings, load_model, save_model

SMALL = FastSettings(image_size=64, mask_size=16, encoder_channels=(8, 8, 8, 8), denoiser_channels=(8, 8, 8))
KERNEL = "encoder.backbone.stem.weight"


@pytest.fixture
def held() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return {"kernel": torch.randn(6, 5, 3, 3), "shift": torch.randn(6), "other": torch.randn(4, 4), "same": torch.randn(3, 3)}


def test_what_is_near_comes_back_near(held):
    weights = {**held, "kernel": held["kernel"] + 0.1 * torch.randn(6, 5, 3, 3), "new": torch.randn(2, 2)}
    kept = differences(weights, held)
    assert kept.keys() == {"kernel", "kernel" + STEP, "new"}
    assert kept["kernel"].dtype == torch.int8 and kept["new"].dtype == torch.float16
    back = restored(kept, held)
    assert back.keys() == weights.keys()
    change = (weights["kernel"] - held["kernel"]).abs().amax((1, 2, 3), keepdim=True)
    assert ((back["kernel"] - weights["kernel"]).abs() <= 1.001 * change / 254).all()
    for name in ("shift", "other", "same"):
        assert torch.equal(back[name], held[name])


@pytest.mark.parametrize("size", [0.1, 1e-3, 1e-5])
def test_a_small_change_is_as_well_kept_as_a_large_one(held, size):
    change = size * torch.randn(6, 5, 3, 3)
    back = restored(differences({**held, "kernel": held["kernel"] + change}, held), held)["kernel"]
    kept = back - held["kernel"]
    rounded = torch.finfo(torch.float32).eps * held["kernel"].abs().max() * change.numel() ** 0.5
    assert (kept - change).norm() < 0.01 * change.norm() + rounded


def test_what_is_kept_whole(held):
    """Of another shape, of one number a channel, or further away than nought."""
    weights = {**held, "kernel": torch.randn(6, 5, 1, 1), "shift": held["shift"] + 0.01, "other": -held["other"]}
    kept = differences(weights, held)
    assert kept.keys() == {"kernel", "shift", "other"}
    for name, value in restored(kept, held).items():
        assert torch.equal(value, held[name] if name == "same" else weights[name].half().float())


def test_channels_that_are_nought_or_as_they_were(held):
    held["kernel"][1:3] = 0
    weights = {**held, "kernel": held["kernel"].clone()}
    weights["kernel"][0] += 0.1
    weights["kernel"][1, 0] = 0.5
    kept = differences(weights, held)
    assert (kept["kernel" + STEP] > 0).all()
    back = restored(kept, held)["kernel"]
    torch.testing.assert_close(back[:2], weights["kernel"][:2], rtol=0, atol=1e-6)
    assert torch.equal(back[2:], held["kernel"][2:])


@pytest.fixture
def near(tmp_path) -> Path:
    """A file whose weights are all a little apart from those of base.safetensors beside it."""
    torch.manual_seed(8)
    network = FastNetwork(SMALL)
    save_model(tmp_path / "base.safetensors", network.state_dict(), ModelSettings(SMALL))
    weights = {
        name: value + 0.03 * value.std(correction=0) * torch.randn_like(value) for name, value in network.state_dict().items()
    }
    save_model(tmp_path / "whole.safetensors", weights, ModelSettings(SMALL))
    save_model(tmp_path / "near.safetensors", weights, ModelSettings(SMALL), tmp_path / "base.safetensors")
    return tmp_path / "near.safetensors"


def test_a_file_of_differences_is_half_as_large_and_says_the_same(near):
    assert near.stat().st_size < 0.6 * near.with_name("whole.safetensors").stat().st_size
    whole, back = load_model(str(near.with_name("whole.safetensors"))), load_model(str(near))
    assert back.settings == whole.settings
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        wanted, seen = whole.network.encode(image)[0], back.network.encode(image)[0]
        base = load_model(str(near.with_name("base.safetensors"))).network.encode(image)[0]
    assert (seen - wanted).norm() < 0.05 * (base - wanted).norm()


def _without_steps(state: dict[str, torch.Tensor]) -> None:
    del state[KERNEL + STEP]


def _steps_of_another_shape(state: dict[str, torch.Tensor]) -> None:
    state[KERNEL + STEP] = state[KERNEL + STEP].flatten()


def _of_another_shape(state: dict[str, torch.Tensor]) -> None:
    state[KERNEL] = state[KERNEL][:, :1].contiguous()


def _of_integers(state: dict[str, torch.Tensor]) -> None:
    state[KERNEL + STEP] = torch.ones_like(state[KERNEL + STEP], dtype=torch.int32)


def _no_number(state: dict[str, torch.Tensor]) -> None:
    state[KERNEL + STEP][0] = torch.nan


def _of_nothing(state: dict[str, torch.Tensor]) -> None:
    state["other"] = state[KERNEL].clone()
    state["other" + STEP] = state[KERNEL + STEP].clone()


@pytest.mark.parametrize(
    "damage", [_without_steps, _steps_of_another_shape, _of_another_shape, _of_integers, _no_number, _of_nothing]
)
def test_differences_that_are_damaged(near, damage: Callable[[dict[str, torch.Tensor]], None]):
    state = load_file(near)
    damage(state)
    with safe_open(near, framework="pt") as file:
        save_file(state, near, file.metadata())
    with pytest.raises(ValueError, match=r"near.safetensors is damaged \(.* is a difference.*: get it again"):
        load_model(str(near))


@pytest.mark.parametrize("name", ["other" + STEP, "denoiser.out.3.bias" + STEP])
def test_steps_that_nothing_counts_in_do_not_fit(near, name):
    state = {**load_file(near), name: torch.ones(1)}
    with safe_open(near, framework="pt") as file:
        save_file(state, near, file.metadata())
    with pytest.raises(ValueError, match="near.safetensors does not fit the network that it names"):
        load_model(str(near))


def test_differences_without_what_they_differ_from(near):
    """A file that names no other one, but holds differences, neither loads nor is what others differ from."""
    state, weights = load_file(near), load_model(str(near)).network.state_dict()
    save_model(near, {}, ModelSettings(SMALL))
    with safe_open(near, framework="pt") as file:
        save_file(state, near, file.metadata())
    with pytest.raises(ValueError, match="near.safetensors is damaged"):
        load_model(str(near))
    with pytest.raises(ValueError, match="near.safetensors is damaged"):
        save_model(near.with_name("another.safetensors"), weights, ModelSettings(SMALL), near)

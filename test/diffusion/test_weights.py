# SPDX-License-Identifier: Apache-2.0
"""Weights files: a round trip, names of the manifest, and every way in which a file can be wrong."""

import hashlib
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import seqamodal_ros.diffusion.weights as weights
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.networks import build_network
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import METADATA_KEY, ModelSettings, load_model, save_model

SMALL = FastSettings(image_size=64, mask_size=16, encoder_channels=(8, 8, 8, 8), denoiser_channels=(8, 8, 8))
PAPER = PaperSettings(mask_size=16, channels=32, multipliers=(1,), scaling="authors")
SETTINGS = ModelSettings(SMALL, SequenceSettings(max_layers=7, area_min=4, majority_null=True), sampling_steps=3)


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """A models/ folder with one model, "small", that is the default too."""
    folder = tmp_path / "models"
    folder.mkdir()
    torch.manual_seed(0)
    sha256 = save_model(folder / "small.safetensors", FastNetwork(SMALL).state_dict(), SETTINGS)
    entry = {"file": "small.safetensors", "sha256": sha256}
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"default": "small", "models": {"small": entry}}))
    monkeypatch.setattr(weights, "share_folder", {"models": folder}.__getitem__)
    return folder


def test_round_trip(tmp_path):
    torch.manual_seed(3)
    network = FastNetwork(SMALL)
    path = tmp_path / "mine.safetensors"
    sha256 = save_model(path, network.state_dict(), SETTINGS)
    loaded = load_model(str(path))
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.model_id == f"mine@sha256:{sha256}"
    assert loaded.settings == SETTINGS
    assert not loaded.network.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value.half().float()), name
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())


@pytest.fixture
def network(models) -> FastNetwork:
    """One of another denoiser, of another size, that is else small.safetensors'."""
    torch.manual_seed(5)
    made = FastNetwork(replace(SMALL, denoiser_channels=(8, 16, 16)))
    rest = load_file(models / "small.safetensors")
    made.load_state_dict({**made.state_dict(), **{name: rest[name] for name in rest if not name.startswith("denoiser.")}})
    return made


@pytest.fixture
def part(models, network) -> Path:
    """A file of it that leaves the rest to small.safetensors."""
    path = models / "part.safetensors"
    save_model(path, network.state_dict(), replace(SETTINGS, network=network.settings), models / "small.safetensors")
    return path


def test_a_file_that_leaves_some_weights_to_another(models, part, network):
    assert {name.partition(".")[0] for name in load_file(part)} == {"denoiser"}
    before = part.read_bytes()
    save_model(part, network.state_dict(), replace(SETTINGS, network=network.settings), models / "small.safetensors")
    assert part.read_bytes() == before  # the same weights, the same sha256
    assert part.stat().st_size < (models / "small.safetensors").stat().st_size
    loaded = load_model(str(part))
    assert loaded.model_id.startswith("part@sha256:") and loaded.settings.network.denoiser_channels == (8, 16, 16)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value.half().float()), name


def test_the_rest_is_missing_or_another(models, part):
    small = models / "small.safetensors"
    data = small.read_bytes()
    small.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        ValueError, match=r"small.safetensors is not the one that has the rest .*part.safetensors.*get both again"
    ):
        load_model(str(part))
    small.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"the rest of its weights in .*small.safetensors, which is missing: get both again"
    ):
        load_model(str(part))


def rewrite_rest(part, **changes):
    with safe_open(part, framework="pt") as file:
        described = json.loads(file.metadata()[METADATA_KEY])
    rest = {**described["rest"], **changes}
    described["rest"] = {key: value for key, value in rest.items() if value is not None}
    save_file(load_file(part), part, {METADATA_KEY: json.dumps(described)})


@pytest.mark.parametrize("name", ["../small.safetensors", "", ".."])
def test_the_rest_is_looked_for_in_no_other_folder(part, name):
    rewrite_rest(part, file=name)
    with pytest.raises(ValueError, match=f"a name without a folder, not '{name}'"):
        load_model(str(part))


def test_settings_that_are_none(part):
    save_file(load_file(part), part, {METADATA_KEY: "[]"})
    with pytest.raises(ValueError, match="expected keys and values"):
        load_model(str(part))


def test_a_rest_that_is_not_described(part):
    rewrite_rest(part, sha256=None)
    with pytest.raises(ValueError, match="'sha256' is missing"):
        load_model(str(part))


def test_the_rest_leaves_nothing_to_a_third(models, part):
    third = models / "third.safetensors"
    third.write_bytes(part.read_bytes())
    rewrite_rest(third, file="part.safetensors", sha256=hashlib.sha256(part.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match=r"part.safetensors, which holds the rest .*itself leaves some to small.safetensors"):
        load_model(str(third))


def test_to_whom_weights_can_be_left(models, part, network, tmp_path):
    small, before = models / "small.safetensors", (models / "small.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"part.safetensors itself leaves weights to small.safetensors: name that one"):
        save_model(models / "more.safetensors", network.state_dict(), SETTINGS, part)
    with pytest.raises(ValueError, match=r"small.safetensors must lie in the folder of"):
        save_model(tmp_path / "more.safetensors", network.state_dict(), SETTINGS, small)
    with pytest.raises(ValueError, match=r"small.safetensors cannot leave weights to itself: give another file"):
        save_model(small, load_file(small), SETTINGS, small)
    with pytest.raises(ValueError, match=r"small.safetensors holds none of the weights, nor any that are near"):
        others = {name: value + 10 for name, value in network.state_dict().items()}
        save_model(models / "more.safetensors", others, SETTINGS, small)
    assert small.read_bytes() == before and not (models / "more.safetensors").exists()


def test_a_full_disk_keeps_the_file_of_before(tmp_path):
    """A limit on the size of files stands for the disk: the write fails half-way all the same."""
    path = tmp_path / "mine.safetensors"
    save_model(path, FastNetwork(SMALL).state_dict(), SETTINGS)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot write .*mine.safetensors: File too large; check that the folder"):
            save_model(path, FastNetwork(SMALL).state_dict(), SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_round_trip_of_the_paper_network(tmp_path):
    """The file says which network it holds, and how it is sampled."""
    settings = ModelSettings(PAPER, sampling_steps=1000, sampler="ancestral")
    network = PaperNetwork(PAPER)
    save_model(tmp_path / "paper.safetensors", network.state_dict(), settings)
    loaded = load_model(str(tmp_path / "paper.safetensors"))
    assert loaded.settings == settings
    assert isinstance(loaded.network, PaperNetwork)
    assert loaded.network.blank == 0


def test_a_file_that_names_no_network_holds_the_fast_one(models):
    """As files were written before there were two."""
    path = models / "small.safetensors"
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()[METADATA_KEY])
    assert described["network"].pop("kind") == "fast"
    assert described.pop("sampler") == "ddim"
    rewrite(path, described)
    loaded = load_model(str(path))
    assert loaded.settings == SETTINGS
    assert isinstance(loaded.network, FastNetwork)


@pytest.mark.parametrize("name", ["default", "small"])
def test_by_name(models, name):
    assert load_model(name).model_id.startswith("small@sha256:")


def test_an_unknown_name_lists_the_known_ones(models):
    with pytest.raises(ValueError, match=r"unknown model 'smal': use one of default, small, or the path of a .safetensors file"):
        load_model("smal")


def test_a_tampered_file(models):
    path = models / "small.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"small.safetensors is not the one in manifest.yaml.*get it again"):
        load_model("small")
    load_model(str(path))  # by its path it is taken as it is


@pytest.mark.parametrize("kept", [0, 5, 200, -100])
def test_a_truncated_file(models, kept):
    path = models / "small.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="not the one in manifest.yaml"):
        load_model("small")
    with pytest.raises(ValueError, match="not a complete safetensors file.*get it again"):
        load_model(str(path))


def test_a_file_that_is_too_large_for_weights_is_not_read(models, monkeypatch):
    path = models / "small.safetensors"
    monkeypatch.setattr("seqamodal_ros.diffusion.weights.LARGEST_FILE", path.stat().st_size)
    load_model(str(path))
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(ValueError, match="has 0.0 GB, and weights at most .*: name another file"):
        load_model(str(path))


def test_a_missing_file(models, tmp_path):
    (models / "small.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="is missing: get it again"):
        load_model("small")
    path = tmp_path / "none.safetensors"
    with pytest.raises(FileNotFoundError, match=f"^weights file {path} is missing: give the path of a .safetensors"):
        load_model(str(path))


def test_a_missing_manifest(models):
    (models / "manifest.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"manifest.yaml is missing: get it again"):
        load_model("default")


def test_a_foreign_safetensors_file(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds no seqamodal model: use a file that training/ wrote"):
        load_model(str(path))


def test_settings_that_are_damaged(models):
    path = models / "small.safetensors"
    save_file(load_file(path), path, metadata={METADATA_KEY: "{"})
    with pytest.raises(ValueError, match=r"the settings in .*small.safetensors are damaged .*: get it again"):
        load_model(str(path))


@pytest.mark.parametrize("changes", [{"__metadata__": None}, {"weight": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}])
def test_a_header_of_another_kind(tmp_path, changes):
    """Such as newer versions may write."""
    path = tmp_path / "other.safetensors"
    header = json.dumps(changes).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(1 if "weight" in changes else 0))
    with pytest.raises(ValueError, match=r"other.safetensors (holds no seqamodal model|is not a complete safetensors file)"):
        load_model(str(path))


def rewrite(path: Path, settings: dict, state: dict[str, torch.Tensor] | None = None) -> None:
    save_file(load_file(path) if state is None else state, path, metadata={METADATA_KEY: json.dumps(settings)})


def test_weights_that_do_not_fit_their_settings(models):
    path = models / "small.safetensors"
    rewrite(path, {"network": {"denoiser_channels": [8, 8, 16], "encoder_channels": [8, 8, 8, 8]}})
    with pytest.raises(ValueError, match="does not fit the network that it names"):
        load_model(str(path))


@pytest.mark.parametrize("channels", [10**6, 8 * 10**11, 10**20])
def test_nothing_is_allocated_for_a_network_that_the_weights_do_not_fit(models, channels):
    """Terabytes, more than there can be, and a number that no tensor can have."""
    path = models / "small.safetensors"
    rewrite(path, {"network": {"encoder_channels": [channels] * 4, "denoiser_channels": [channels] * 3}})
    with pytest.raises(ValueError, match="does not fit the network that it names"):
        load_model(str(path))


def test_no_compiler_is_brought_in():
    """PyTorch's imports with it for some operations on its "meta" device: 80 MB and a second of every start."""
    seen = "Perceiver.load('default', runtime='torch')(numpy.zeros((48, 64, 3), numpy.uint8))"
    told = "print({'sympy', 'torch._dynamo'} & {*sys.modules})"
    program = f"import sys, numpy; from seqamodal_ros import Perceiver; {seen}; {told}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("settings", [FastSettings(layers=5, centre_channels=(8, 8, 8), hypotheses=5), PAPER])
def test_what_is_loaded_is_all_there(models, settings):
    """Nothing stays on the "meta" device, where a network is outlined before its weights are known to fit."""
    path = models / "other.safetensors"
    network = build_network(settings)
    save_model(path, network.state_dict(), ModelSettings(settings))
    loaded = load_model(str(path)).network
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    side, size = settings.image_size if isinstance(settings, FastSettings) else settings.mask_size, settings.mask_size
    blank, image = torch.zeros(1, 1, size, size), torch.rand(1, 3, side, side)
    drawn = [
        each.eval().denoise(blank, torch.tensor([999]), blank, each.encode(image)[: each.conditions])
        for each in (network, loaded)
    ]
    torch.testing.assert_close(*drawn, atol=1e-2, rtol=0)  # the file is in float16


def test_masks_that_no_memory_holds(models):
    path = models / "small.safetensors"
    rewrite(path, {"network": {"mask_size": 528, "image_size": 2112}})
    with pytest.raises(ValueError, match="mask_size must be at most 512, not 528"):
        load_model(str(path))


def test_settings_of_a_newer_version_name_the_key(models):
    path = models / "small.safetensors"
    rewrite(path, {"sampling_step": 1})
    with pytest.raises(ValueError, match=r"small.safetensors: unknown key 'sampling_step'; did you mean 'sampling_steps'"):
        load_model(str(path))


def test_an_unknown_network_and_an_unknown_sampler(models):
    path = models / "small.safetensors"
    rewrite(path, {"network": {"kind": "faster"}})
    with pytest.raises(ValueError, match=r"small.safetensors.network.kind: expected fast or paper, got 'faster'"):
        load_model(str(path))
    rewrite(path, {"sampler": "euler"})
    with pytest.raises(ValueError, match="sampler must be one of ddim, ancestral, not 'euler'"):
        load_model(str(path))


def test_the_shipped_models_load():
    folder = weights.share_folder("models")
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    assert manifest["default"] in manifest["models"]
    for name, entry in manifest["models"].items():
        assert load_model(name).model_id.endswith(entry["sha256"])
        assert (folder / entry["file"]).stat().st_size <= 16e6


def test_a_temperature_that_is_none(models):
    path = models / "small.safetensors"
    rewrite(path, {"temperatures": [1, 0]})
    with pytest.raises(ValueError, match="temperatures must be finite and more than 0"):
        load_model(str(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(models, value):
    """Masks of them would be blank, and the table empty for all that one is told."""
    path = models / "small.safetensors"
    state = load_file(path)
    state["denoiser.out.3.bias"][0] = value
    rewrite(path, json.loads(safe_open(path, framework="pt").metadata()[METADATA_KEY]), state)
    with pytest.raises(ValueError, match="holds what is no number in denoiser.out.3.bias"):
        load_model(str(path))


def test_settings_that_no_machine_can_hold(models):
    path = models / "small.safetensors"
    rewrite(path, {"bias": 10**400})
    with pytest.raises(ValueError, match=r"small.safetensors.bias: a number of 401 digits is too large"):
        load_model(str(path))
    save_file(load_file(path), path, metadata={METADATA_KEY: "[" * 100_000})
    with pytest.raises(ValueError, match="the settings in .* are damaged"):
        load_model(str(path))

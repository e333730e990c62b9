# SPDX-License-Identifier: Apache-2.0
"""Weights: finds them by name or path, checks their sha256, builds the network they belong to."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.networks import NetworkSettings, build_network
from seqamodal_ros.diffusion.paper import PaperNetwork
from seqamodal_ros.diffusion.samplers import SAMPLERS
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.files import write_whole
from seqamodal_ros.settings import from_mapping
from seqamodal_ros.share import share_folder

METADATA_KEY = "seqamodal"


@dataclass(frozen=True)
class ModelSettings:
    """What a weights file says of itself.

    Attributes:
        network: which network it is, and its sizes; one that does not say which is `fast`.
        sequence: Algorithm 2's inputs, as the training data sets them.
        sampling_steps: network calls a layer.
        sampler: "ddim" or "ancestral".
        mirror: look at the mirror image too, see `Mirrored`.
        bias: what was taken from the log-odds of every pixel after training; the weights have it in them.
        temperatures: what the log-odds of published probabilities are divided by, see `calibrated`; masks do not change by it.
    """

    network: NetworkSettings = field(default_factory=FastSettings)
    sequence: SequenceSettings = field(default_factory=SequenceSettings)
    sampling_steps: int = 1
    sampler: str = "ddim"
    mirror: bool = False
    bias: float = 0.0
    temperatures: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not all(0 < temperature < float("inf") for temperature in self.temperatures):
            raise ValueError(f"temperatures must be finite and more than 0, not {self.temperatures}")
        if not math.isfinite(self.bias):
            raise ValueError(f"bias must be finite, not {self.bias}")
        if not 1 <= self.sampling_steps <= 1000:
            raise ValueError(f"sampling_steps must be in 1..1000, not {self.sampling_steps}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {self.sampler!r}")


@dataclass(frozen=True)
class Model:
    """A network ready to run.

    Attributes:
        network: in eval mode, float32, on the CPU.
        settings: see `ModelSettings`.
        model_id: "name@sha256:..." of the weights file.
    """

    network: FastNetwork | PaperNetwork
    settings: ModelSettings
    model_id: str


def load_model(model: str) -> Model:
    """Load a model by its name in ``models/manifest.yaml`` ("default" among them), or by the path of a safetensors file.

    Raises:
        ValueError: no such name; the message lists the names. Or the file is tampered with, or not ours.
        FileNotFoundError: the file is missing; the message says how to get it.
    """
    path, expected = _resolve(model)
    if not path.is_file():
        raise FileNotFoundError(f"weights file {path} is missing: get it again (`git checkout -- models`), or name another model")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected is not None and found != expected:
        raise ValueError(
            f"weights file {path} is not the one in manifest.yaml (sha256 {found[:12]}..., expected {expected[:12]}...): "
            "get it again (`git checkout -- models`), or load it by its path if you mean it"
        )
    settings, state = _read(path)
    network = build_network(settings.network)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"weights file {path} does not fit the network that it names: {reason}") from error
    network.eval().requires_grad_(False)
    return Model(network, settings, f"{path.stem}@sha256:{found}")


def save_model(path: Path, state: dict[str, torch.Tensor], settings: ModelSettings) -> str:
    """Write float16 weights with their settings; returns the file's sha256.

    Raises:
        OSError: the file cannot be written; what was there before is left as it was.
    """
    half = {name: value.detach().to(torch.float16).contiguous() for name, value in state.items()}
    described = asdict(settings)
    described["network"] = {"kind": settings.network.kind, **described["network"]}
    data = save(half, metadata={METADATA_KEY: json.dumps(described)})
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def shipped() -> dict[str, tuple[Path, str]]:
    """The models of ``models/manifest.yaml`` by name, "default" among them: file and sha256. Errors as of `load_model`."""
    folder = share_folder("models")
    listed = folder / "manifest.yaml"
    if not listed.is_file():
        raise FileNotFoundError(f"{listed} is missing: get it again (`git checkout -- models`), or name a .safetensors file")
    try:
        manifest: dict[str, Any] = yaml.safe_load(listed.read_text())
        entries = {name: (folder / entry["file"], str(entry["sha256"])) for name, entry in manifest["models"].items()}
        entries["default"] = entries[manifest["default"]]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{listed} is damaged: get it again (`git checkout -- models`)") from error
    return entries


def _resolve(model: str) -> tuple[Path, str | None]:
    """Path and expected sha256 (None for a model given by path)."""
    if model.endswith(".safetensors"):
        return Path(model).expanduser(), None
    entries = shipped()
    if model not in entries:
        known = ", ".join(sorted(entries))
        raise ValueError(f"unknown model {model!r}: use one of {known}, or the path of a .safetensors file")
    return entries[model]


def _read(path: Path) -> tuple[ModelSettings, dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get(METADATA_KEY)
            state = {name: file.get_tensor(name).float() for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}): get it again") from error
    if described is None:
        raise ValueError(f"{path} holds no seqamodal model: use a file that training/ wrote")
    return from_mapping(ModelSettings, json.loads(described), path.name), state

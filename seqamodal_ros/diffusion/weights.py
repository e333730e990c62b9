# SPDX-License-Identifier: Apache-2.0
"""Weights: finds them by name or path, checks their sha256, builds the network they belong to."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load, save

from seqamodal_ros.diffusion.differences import differences, restored
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.networks import NetworkSettings, build_network
from seqamodal_ros.diffusion.paper import PaperNetwork
from seqamodal_ros.diffusion.samplers import SAMPLERS
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.files import write_whole
from seqamodal_ros.settings import from_mapping
from seqamodal_ros.share import share_folder

METADATA_KEY = "seqamodal"
LARGEST_MASKS = 512  # pixels a side; no weight depends on it, but the memory of every call does
LARGEST_FILE = 1_000_000_000  # bytes; the paper's network has a third of it in float32
REST = "rest"  # among the settings of a file that leaves some weights to another


@dataclass(frozen=True)
class Rest:
    """A file that lies beside another one, and holds the weights that are not in that one, or that it differs from.

    Attributes:
        file: its name, without a folder.
        sha256: of all of it.
    """

    file: str
    sha256: str

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file or self.file in ("", ".."):
            raise ValueError(f"file must be a name without a folder, not {self.file!r}")


@dataclass(frozen=True)
class ModelSettings:
    """What a weights file says of itself.

    Attributes:
        network: which network it is, and its sizes; one that does not say which is `fast`.
        sequence: Algorithm 2's inputs, as the training data sets them.
        sampling_steps: network calls a layer.
        sampler: "ddim" or "ancestral".
        mirror: look at the mirror image too, see `Mirrored`.
        bias: what was taken from the denoiser's log-odds of every pixel after training; the weights have it in them.
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
        if self.network.mask_size > LARGEST_MASKS:
            raise ValueError(f"mask_size must be at most {LARGEST_MASKS}, not {self.network.mask_size}")
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
        ValueError: no such name; the message lists the names. Or the file is too large, tampered with, or not ours.
        FileNotFoundError: the file is missing, or the one that holds the rest of its weights; the message says how to get it.
    """
    path, expected = _resolve(model)
    if not path.is_file():
        how = "get it again (`git checkout -- models`)" if expected else "give the path of a .safetensors file"
        raise FileNotFoundError(f"weights file {path.absolute()} is missing: {how}, or name another model")
    data = _contents(path)  # once: what is checked is what is taken
    found = hashlib.sha256(data).hexdigest()
    if expected is not None and found != expected:
        raise ValueError(
            f"weights file {path} is not the one in manifest.yaml (sha256 {found[:12]}..., expected {expected[:12]}...): "
            "get it again (`git checkout -- models`), or load it by its path if you mean it"
        )
    settings, state, rest = _read(data, path)
    try:
        with torch.device("meta"):  # nothing is allocated for a network, of whatever size, that the weights do not fit
            network = build_network(settings.network)
        if rest is not None:
            state = _whole(state, _held_by(rest, path, network.state_dict()), path)
        network.load_state_dict(state, assign=True)
    except (RuntimeError, TypeError) as error:  # the latter of sizes that no tensor has
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"weights file {path} does not fit the network that it names: {reason}") from error
    if strange := [name for name, value in state.items() if not value.isfinite().all()]:  # masks of NaN look like an empty table
        raise ValueError(f"weights file {path} holds what is no number in {strange[0]}: get it again, or train it anew")
    network.eval().requires_grad_(False)
    return Model(network, settings, f"{path.stem}@sha256:{found}")


def described(settings: ModelSettings) -> dict[str, Any]:
    """What `from_mapping(ModelSettings, ...)` reads."""
    plain = asdict(settings)
    return {**plain, "network": {"kind": settings.network.kind, **plain["network"]}}


def save_model(path: Path, state: dict[str, torch.Tensor], settings: ModelSettings, rest: Path | None = None) -> str:
    """Write weights with their settings, in float16 where they stand alone; returns the file's sha256.

    Args:
        path: the file to be.
        state: the weights.
        settings: see `ModelSettings`.
        rest: another such file in the same folder: weights that it has, too, are left to it or kept as `differences` from it.

    Raises:
        OSError: the file cannot be written, what was there before is left as it was; or `rest` cannot be read.
        ValueError: `rest` is this very file, in another folder or damaged, has none of the weights, nor any that are near, or
            leaves some to a third one.
    """
    written = described(settings)
    held: dict[str, torch.Tensor] = {}
    if rest is not None:
        rest = rest.resolve()
        if rest == path.resolve():
            raise ValueError(f"{path} cannot leave weights to itself: give another file")
        if rest.parent != path.resolve().parent:
            raise ValueError(f"{rest} must lie in the folder of {path}: the one is looked for beside the other")
        data = _contents(rest)
        _, held, third = _read(data, rest)
        if third is not None:
            raise ValueError(f"{rest} itself leaves weights to {third.file}: name that one")
        written[REST] = asdict(Rest(rest.name, hashlib.sha256(data).hexdigest()))
    kept = differences(state, held)
    if rest is not None and kept.keys() == state.keys():
        raise ValueError(f"{rest} holds none of the weights, nor any that are near: nothing can be left to it")
    data = save(kept, metadata={METADATA_KEY: json.dumps(written)})  # one key: of several, the order is left to chance
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


def _contents(path: Path) -> bytes:
    """Of a file that can be one of weights: another one that was named by mistake may be larger than memory."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"{path} has {size / 1e9:.1f} GB, and weights at most {LARGEST_FILE / 1e9:g}: name another file")
    return path.read_bytes()


def _held_by(rest: Rest, path: Path, wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the weights of a network, those that lie in the file beside `path`."""
    beside = path.parent / rest.file
    again = "get both again (`git checkout -- models`), or put the right one beside it"
    if not beside.is_file():
        raise FileNotFoundError(f"weights file {path} has the rest of its weights in {beside}, which is missing: {again}")
    data = _contents(beside)
    found = hashlib.sha256(data).hexdigest()
    if found != rest.sha256:
        raise ValueError(
            f"{beside} is not the one that has the rest of the weights of {path} (sha256 {found[:12]}..., expected "
            f"{rest.sha256[:12]}...): {again}"
        )
    _, held, third = _read(data, beside)
    if third is not None:
        raise ValueError(f"{beside}, which holds the rest of the weights of {path}, itself leaves some to {third.file}: {again}")
    return {name: value for name, value in held.items() if name in wanted}


def _read(data: bytes, path: Path) -> tuple[ModelSettings, dict[str, torch.Tensor], Rest | None]:
    """Settings, weights, as differences where there is another file, and where that is, of a file's content."""
    try:
        state = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}  # of a header that `load` has found sound
    except (SafetensorError, KeyError) as error:  # the latter for numbers of a kind that torch or the library does not know
        raise ValueError(f"{path} is not a complete safetensors file ({error}): get it again") from error
    if METADATA_KEY not in metadata:
        raise ValueError(f"{path} holds no seqamodal model: use a file that training/ wrote")
    try:
        written = json.loads(metadata[METADATA_KEY])
    except (json.JSONDecodeError, RecursionError) as error:  # the latter of lists in lists without end
        raise ValueError(f"the settings in {path} are damaged ({error}): get it again") from error
    rest = written.pop(REST, None) if isinstance(written, dict) else None
    settings = from_mapping(ModelSettings, written, path.name)
    if rest is None:
        return settings, _whole(state, {}, path), None
    return settings, state, from_mapping(Rest, rest, path.name)


def _whole(kept: dict[str, torch.Tensor], held: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    try:
        return restored(kept, held)
    except ValueError as error:
        raise ValueError(f"weights file {path} is damaged ({error}): get it again") from error

# SPDX-License-Identifier: Apache-2.0
"""An exported model: encoder, denoiser and ways to centres as ONNX, and a card that says which weights they are of."""

import glob
import hashlib
import json
import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from seqamodal_ros import diffusion
from seqamodal_ros.diffusion.adapter import CentredNetwork, ImageFeatures, Network
from seqamodal_ros.diffusion.fast import FastNetwork, has_centres
from seqamodal_ros.diffusion.weights import Model

LOGGER = logging.getLogger(__name__)
CARD = "export.json"
ENCODER, DENOISER, CENTRES = "encoder.onnx", "denoiser.onnx", "centres.onnx"
NETWORK_CODE = ("backbone.py", "blocks.py", "fast.py", "paper.py", "schedule.py")
PARITY = 1e-4  # largest relative difference to PyTorch, both in float32
LOOSE = 0.1  # likewise on average, where one of them may compute in bfloat16
BATCH = 2  # of the example that is traced; the exported model takes any


@dataclass(frozen=True)
class Card:
    """What an export says of itself.

    Attributes:
        model_id: "name@sha256:..." of the weights.
        prediction, blank, conditions, hypotheses: the network's, see `Network`.
        centres: whether the network has ways to centres.
        sha256: of each file.
        code: `code_version` of what wrote it.
    """

    model_id: str
    prediction: str
    blank: float
    conditions: int
    hypotheses: int
    centres: bool
    sha256: dict[str, str]
    code: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """The files of encoder, denoiser and, where it has one, ways to centres."""
        return (ENCODER, DENOISER, CENTRES) if self.centres else (ENCODER, DENOISER)


def threads() -> int:
    """How many a runtime takes: as many as PyTorch would."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(wanted) if wanted.isdigit() and int(wanted) else len(os.sched_getaffinity(0))


def code_version() -> str:
    """sha256 of the networks' code: the same weights in changed code are another function."""
    folder = Path(diffusion.__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in NETWORK_CODE)).hexdigest()


def export_folder(model_id: str) -> Path:
    """Where the export of a model lies: below ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    name, _, sha256 = model_id.partition("@sha256:")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "seqamodal_ros" / f"{name}-{sha256[:12]}"


def read_card(folder: Path, model: Model, source: str = "") -> Card:
    """The card of an export that is whole and of these weights.

    Args:
        folder: see `export_folder`.
        model: the weights.
        source: the name or the file that the model was loaded by, for the command that a message gives; "": the name in its id.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of other weights, or damaged, or there is only one of other weights of that name, such as of those
            before an update; the message says how to make it anew.
    """
    model_id = model.model_id
    command = _command(source or model_id.partition("@")[0])
    if not (folder / CARD).is_file():
        if others := _of_other_weights(folder):
            held = f"{folder.parent} holds {', '.join(others)} of other weights of that name, and no export of these"
            raise ValueError(f"{held}: make it with `{command}`")
        raise FileNotFoundError(f"{folder} holds no exported model: `{command}` makes it")
    anew = f"remove that folder and make it anew with `{command}`"
    try:
        described = json.loads((folder / CARD).read_text())
        ours = described["code"] == code_version()  # first: another version's card may have other keys
        card = Card(**described) if ours else None
        files = {name: (folder / name).read_bytes() for name in card.sha256} if card else {}
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"the export in {folder} is damaged ({error}): {anew}") from error
    if card is None:
        raise ValueError(f"the export in {folder} was made by another version of this package: {anew}")
    if card.model_id != model_id:
        raise ValueError(f"the export in {folder} is of {str(card.model_id)[:40]}, not of {model_id[:40]}: {anew}")
    expected = card_of(model, {name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    if card != expected or not set(card.parts) <= set(files):
        raise ValueError(f"the export in {folder} is not what was written there: {anew}")
    return card


def card_of(model: Model, sha256: dict[str, str]) -> Card:
    """The card of a model's export, as this version writes it; `sha256` of each file."""
    network = model.network
    traits = (network.prediction, network.blank, network.conditions, network.hypotheses, has_centres(network))
    return Card(model.model_id, *traits, sha256, code_version())


def _of_other_weights(folder: Path) -> list[str]:
    """Names of the folders beside an export's that hold exports of the same name and another sha256."""
    name, _, sha256 = folder.name.rpartition("-")
    beside = folder.parent.glob(f"{glob.escape(name)}-{'[0-9a-f]' * len(sha256)}/{CARD}")
    return sorted(card.parent.name for card in beside if card.parent != folder)


def _command(source: str) -> str:
    """What makes an export, by the Python that runs this, in whatever folder: a name, or a file by its whole path."""
    if source.endswith(".safetensors"):
        source = str(Path(source).expanduser().absolute())
    return f"{shlex.quote(sys.executable)} -m seqamodal_ros export --model {shlex.quote(source)}"


def export(
    model: Model,
    folder: Path,
    check: Callable[[Path, Card], CentredNetwork],
    check_loosely: Callable[[Path, Card], CentredNetwork] | None = None,
) -> float:
    """Write an export; what was in the folder before stays until it is whole.

    Args:
        model: its weights.
        folder: for the files.
        check: loads the export in a folder, for float32; it is compared with the model.
        check_loosely: likewise for another runtime, which may compute in bfloat16; None: there is none. One that cannot load or
            compute the export is told in a warning, and the export is kept for the other.

    Returns:
        The largest difference, over all parts and two batches, of what the export and PyTorch give for the same noise, as a
        share of the largest value there is.

    Raises:
        ImportError: a package that PyTorch's exporter needs is missing.
        OSError: it cannot be written.
        ValueError: the difference is more than `PARITY`, the other's on average more than `LOOSE`, or either is no number.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    before = part.with_name(f"{part.name}-before")
    try:
        _write(model, part)
        digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(part.iterdir())}
        card = card_of(model, digests)
        (part / CARD).write_text(json.dumps(asdict(card), indent=1) + "\n")
        loaded = check(part, card)
        difference = _worst([_difference(model, loaded, batch, Tensor.max) for batch in (1, 3)])
        if not difference <= PARITY:  # nor is NaN
            raise ValueError(f"the export differs from PyTorch by {difference:.1e}, more than {PARITY:.0e}: it is not kept")
        if check_loosely is not None:
            _check_loosely(model, check_loosely, part, card)
        part.chmod(0o777 & ~_umask())  # a temporary folder is its maker's alone
        with suppress(FileNotFoundError):
            folder.rename(before)  # which takes no time, as removing it would: who loads a model meanwhile would find none
        try:
            part.rename(folder)
        except BaseException:
            with suppress(FileNotFoundError):
                before.rename(folder)
            raise
    finally:
        for rest in (part, before):
            shutil.rmtree(rest, ignore_errors=True)
    return difference


def _umask() -> int:
    """Of this process; there is no way to read it but to set it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _check_loosely(model: Model, load: Callable[[Path, Card], CentredNetwork], folder: Path, card: Card) -> None:
    """Raise ValueError where a runtime that may compute in bfloat16 differs on average by more than `LOOSE`."""
    try:
        difference = _difference(model, load(folder, card), BATCH, Tensor.mean)
    except Exception as error:  # a runtime's own are of many kinds
        LOGGER.warning("OpenVINO cannot compute the export, which is kept all the same: %s", error)
        return
    if not difference <= LOOSE:
        found = f"OpenVINO differs from PyTorch by {difference:.1e} on average, more than {LOOSE:.0e}"
        raise ValueError(f"{found}: the export is not kept")


class _Encoder(nn.Module):
    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> ImageFeatures:
        return self.network.encode(image)


class _Denoiser(nn.Module):
    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, hypothesis: Tensor, *features: Tensor) -> Tensor:
        return self.network.denoise(x_t, t, cumulative_mask, features, hypothesis)


class _Centres(nn.Module):
    def __init__(self, network: FastNetwork):
        super().__init__()
        self.network = network

    def forward(self, layer: Tensor, cumulative_mask: Tensor, *features: Tensor) -> Tensor:
        return self.network.to_centres(layer, cumulative_mask, features)


def _example(model: Model, batch: int) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    """An image; noise, timesteps and cumulative masks; and the hypotheses' numbers."""
    network, generator = model.settings.network, torch.Generator().manual_seed(0)
    side = network.image_size
    image = torch.rand(batch, 3, side, side, generator=generator) * 2 - 1
    x_t, mask = (torch.randn(batch, 1, network.mask_size, network.mask_size, generator=generator) for _ in range(2))
    return image, (x_t, torch.arange(batch) * 400 + 100, mask.sign()), torch.arange(batch) % model.network.hypotheses


@torch.no_grad()
def _write(model: Model, folder: Path) -> None:
    """Write all parts."""
    image, masks, hypothesis = _example(model, BATCH)
    features = model.network.encode(image)
    conditions, others = features[: model.network.conditions], features[model.network.conditions :]
    batch = {0: torch.export.Dim("batch")}
    names = [f"feature_{k}" for k in range(len(features))]
    options = {"dynamo": True, "external_data": False, "verbose": False}
    torch.onnx.export(
        _Encoder(model.network), (image,), folder / ENCODER, input_names=["image"], output_names=names,
        dynamic_shapes=(batch,), **options,
    )  # fmt: skip
    torch.onnx.export(
        _Denoiser(model.network), (*masks, hypothesis, *conditions), folder / DENOISER,
        input_names=["x_t", "t", "cumulative_mask", "hypothesis", *names[: len(conditions)]], output_names=["prediction"],
        dynamic_shapes=(batch, batch, batch, batch, (batch,) * len(conditions)), **options,
    )  # fmt: skip
    if has_centres(model.network):
        torch.onnx.export(
            _Centres(model.network), (-masks[2], masks[2], *others), folder / CENTRES,
            input_names=["layer", "cumulative_mask", *names[len(conditions) :]], output_names=["ways"],
            dynamic_shapes=(batch, batch, (batch,) * len(others)), **options,
        )  # fmt: skip


@torch.no_grad()
def _difference(model: Model, exported: CentredNetwork, batch: int, measure: Callable[[Tensor], Tensor]) -> float:
    """Of the parts' answers to a batch, the largest difference to PyTorch's as a share of what those are; NaN where one is NaN.

    `measure` makes one value of the sizes of a tensor's values, `Tensor.max` or `Tensor.mean`.
    """
    image, masks, hypothesis = _example(model, batch)
    features = model.network.encode(image)
    pairs = [*zip(exported.encode(image), features, strict=True)]
    pairs.append((exported.denoise(*masks, features, hypothesis), model.network.denoise(*masks, features, hypothesis)))
    if has_centres(model.network):
        given = (-masks[2], masks[2], features[model.network.conditions :])
        pairs.append((exported.to_centres(*given), model.network.to_centres(*given)))
    return _worst([_share(measure((ours - theirs).abs()), measure(theirs.abs())) for ours, theirs in pairs])


def _share(difference: Tensor, of: Tensor) -> float:
    """difference / of; 0 where nothing differs, as both may be blank."""
    return float(difference / of) if difference else 0.0


def _worst(differences: list[float]) -> float:
    """The largest; NaN where one is, which Python's `max` may pass over."""
    return float(torch.tensor(differences, dtype=torch.float64).max())

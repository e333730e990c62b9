# SPDX-License-Identifier: Apache-2.0
"""Trains a network: `python -m training.train CONFIG --data DIR --sprites DIR --out DIR`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import yaml
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.networks import NetworkSettings, build_network
from seqamodal_ros.diffusion.paper import PaperNetwork
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import Model, ModelSettings, load_model
from seqamodal_ros.settings import Settings, from_mapping
from training.bias import without_bias
from training.centres import centre_loss
from training.data.batches import Batch, Mixture, Repeated, SceneBatches, Scenes
from training.data.compositor import CompositeSettings, Compositor
from training.data.packed import PackedScenes
from training.data.scene import SceneRules
from training.data.sprites import load_material
from training.encoded import EncodedOnce
from training.hybrid import HybridSettings, hybrid_loss
from training.loop import LoopSettings, Method, Run
from training.methods import Layers, independent_layers, one_shot_layers, sequential_layers
from training.objective import ObjectiveSettings, loss
from training.one_shot import OneShotNetwork, OneShotObjective, OneShotSettings, one_shot_loss
from training.own import own_layers
from training.pretrained import BackboneSettings, filters_in_float32, freeze, imagenet_file, load_imagenet
from training.taught import TaughtNetwork

SIZES = {"denoiser": "denoiser_channels", "centres": "centre_channels"}  # of parts that may begin anew
SEE_STEPS = {"fast": 2, "one_shot": 2, "paper": 20}  # of DDIM, for a look while it trains


@dataclass(frozen=True)
class TrainSettings:
    """One YAML file of `training/configs`.

    Attributes:
        network: which network is trained, and its sizes.
        backbone: of the `fast` network, and of the one that draws all layers at once; the `paper` network has none.
        composites: the scenes.
        packed: share of the scenes that come from the sets that are given with --packed, in 0..1; the rest are composites.
        repeated: how many scenes are drawn, to come again and again; 0: each is new. For an objective of `only` one part of the
            network, whose image features are then computed once; about 0.75 MB of memory each, 0.86 where images are of 320x320,
            with one worker.
        objective: rows and losses, of the same `kind` as the network.
        loop: how long and how fast.
    """

    network: NetworkSettings | OneShotSettings = field(default_factory=FastSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    composites: CompositeSettings = field(default_factory=CompositeSettings)
    objective: ObjectiveSettings | HybridSettings | OneShotObjective = field(default_factory=ObjectiveSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    packed: float = 0.0
    repeated: int = 0

    def __post_init__(self) -> None:
        if self.repeated < 0:
            raise ValueError(f"repeated is a number of scenes, or 0, not {self.repeated}")
        if (self.repeated > 0) != bool(only_part(self.objective)):
            raise ValueError(
                "give both `repeated: 3000` and `objective: {only: centres}` (or denoiser), or none: features are kept of so many"
            )
        if self.repeated and self.loop.again > 1:
            raise ValueError("leave out `loop: {again: ...}` where scenes are `repeated`: they come again already")
        if not 0 <= self.packed <= 1:
            raise ValueError(f"packed is a share and must be in 0..1, not {self.packed}")
        network, objective = self.network.kind, self.objective.kind
        if network != objective:
            raise ValueError(
                f"the objective of kind {objective!r} does not train the network of kind {network!r}: write `kind: {network}` "
                "under `objective` too"
            )
        image, masks = self.composites.image_size, self.composites.mask_size
        fits = image % self.network.image_size == 0 if network == "paper" else image == self.network.image_size
        if isinstance(self.objective, ObjectiveSettings) and isinstance(self.network, FastSettings):
            self._check_parts(self.network, self.objective)
        if masks != self.network.mask_size or not fits:
            raise ValueError(
                f"the network takes images of {self.network.image_size} and masks of {self.network.mask_size}, "
                f"the composites have {image} and {masks}: make them agree"
            )
        if isinstance(self.network, OneShotSettings) and self.network.max_layers != self.composites.max_layers:
            deepest = self.composites.max_layers
            raise ValueError(
                f"the network draws {self.network.max_layers} layers, the scenes have up to {deepest}: make them agree"
            )

    def _check_parts(self, network: FastSettings, objective: ObjectiveSettings) -> None:
        deepest = self.composites.max_layers
        if (network.layers > 0) != (objective.all_layers > 0) and not objective.only:
            raise ValueError(
                "give both `network: {layers: 5}` and `objective: {all_layers: 1.0}`, or none: one learns by the other"
            )
        if network.layers not in (0, deepest):
            raise ValueError(f"the encoder draws {network.layers} layers, the scenes have up to {deepest}: make them agree")
        if (objective.centres > 0 or objective.only == "centres") and not network.centre_channels:
            raise ValueError("the network has no part that learns centres: give it `network: {centre_channels: [48, 32, 32]}`")


def only_part(objective: object) -> str:
    """The part of the `fast` network that an objective trains alone, or ""."""
    return objective.only if isinstance(objective, ObjectiveSettings) else ""


def read_settings(path: Path) -> TrainSettings:
    """Read a configuration; an unknown key or a wrong type is a ValueError that names it."""
    return from_yaml(TrainSettings, path)


def from_yaml(cls: type[Settings], path: Path) -> Settings:
    """Settings out of a YAML file; a ValueError names what is wrong in it."""
    try:
        return from_mapping(cls, yaml.safe_load(path.read_text()) or {}, path.name)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None


def method_of(settings: TrainSettings) -> Method:
    """Losses and, for a look while it trains, a way to layers: a few steps of DDIM and one hypothesis."""
    network, objective = settings.network, settings.objective
    area_min, steps = settings.composites.area_min, SEE_STEPS[network.kind]
    if isinstance(objective, OneShotObjective):
        return Method(
            lambda network, batch, schedule, _: one_shot_loss(network, batch, schedule, objective),
            lambda network, images: amodal(one_shot_layers(network, images, area_min, steps, samples=1, seed=0)),
        )

    encoded, masks = EncodedOnce(), settings.composites

    def losses(network: nn.Module, batch: Batch, schedule: Schedule, step: int) -> dict[str, torch.Tensor]:
        if isinstance(objective, HybridSettings):
            return hybrid_loss(network, batch, schedule, objective)
        if objective.only == "centres":

            def seen(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
                features = network.encode(images)
                own = own_layers(network, features, schedule, masks.mask_size, masks.max_layers)
                return *features[network.conditions :], own  # the rest is for `to_centres`

            *features, own = encoded(seen, batch.image)
            return {"loss": centre_loss(network.to_centres, tuple(features), batch, own > 0)}
        if objective.only == "denoiser":
            kept = encoded(lambda images: network.encode(images)[network.conditions :], batch.image)
            return loss(network, batch, schedule, objective, step, (*network.denoiser.of_image(kept), *kept))
        return loss(network, batch, schedule, objective, step)

    sequence = SequenceSettings(settings.composites.max_layers, area_min)

    def see(network: nn.Module, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        if objective.only_layer:
            return amodal(independent_layers([network], images, area_min, "ddim", steps, samples=1, seed=0))
        return amodal(sequential_layers(network, images, sequence, "ddim", steps, samples=1, seed=0))

    return Method(losses, see)


def amodal(found: Sequence[Layers]) -> list[np.ndarray]:
    """The layers alone, bool [L, h, w] each."""
    return [each.amodal for each in found]


def may_begin(held: NetworkSettings | OneShotSettings, wanted: NetworkSettings | OneShotSettings) -> bool:
    """Whether a network can begin as another one, that may lack parts of it, read images of another size, draw another number of
    layers, tell no hypotheses apart, and have a denoiser and ways to centres of other sizes, which then begin anew."""
    if not isinstance(held, FastSettings) or not isinstance(wanted, FastSettings):
        return held == wanted
    lost = held.layers and not wanted.layers or held.centre_channels and not wanted.centre_channels
    lost = lost or held.hypotheses not in (1, wanted.hypotheses)
    sizes = {name: getattr(held, name) for name in ("image_size", "layers", "hypotheses", *SIZES.values())}
    return not lost and held == replace(wanted, **sizes)


def build(settings: NetworkSettings | OneShotSettings) -> FastNetwork | PaperNetwork:
    """The network of these settings, with random weights; of `build_network`, and those that are of training alone."""
    return OneShotNetwork(settings) if isinstance(settings, OneShotSettings) else build_network(settings)


def _begun_anew(held: NetworkSettings, settings: TrainSettings) -> tuple[str, ...]:
    """What the names of those weights begin with that a file of another size, or without them, cannot give.

    Raises:
        ValueError: they would not be trained.
    """
    wanted, objective = settings.network, settings.objective
    if not isinstance(held, FastSettings) or not isinstance(wanted, FastSettings) or not isinstance(objective, ObjectiveSettings):
        return ()
    if objective.only and held.layers != wanted.layers:
        raise ValueError(
            f"only the {objective.only} would change, but --init draws {held.layers} layers, the configuration {wanted.layers}: "
            "make them agree"
        )
    if held.hypotheses != wanted.hypotheses and objective.only == "centres":
        raise ValueError(
            f"--init tells {held.hypotheses} hypotheses apart, the configuration {wanted.hypotheses}, and does not train them: "
            "make them agree"
        )
    other = [part for part, sizes in SIZES.items() if getattr(held, sizes) != getattr(wanted, sizes)]
    trained = [objective.only] if objective.only else ["denoiser", *["centres"] * (objective.centres > 0)]
    for part in other:
        if part not in trained:
            sizes = SIZES[part]
            raise ValueError(
                f"--init has `{sizes}: {list(getattr(held, sizes))}`, the configuration {list(getattr(wanted, sizes))}, and does "
                "not train them: make them agree"
            )
    return tuple(f"{part}." for part in other)


def begin(settings: TrainSettings, initial: Model | None = None) -> nn.Module:
    """The network as training begins with it: with trained weights, with the backbone's ImageNet weights, or at random.

    Raises:
        OSError: the package of the ImageNet weights is missing.
        ValueError: `initial` is another network.
    """
    torch.manual_seed(settings.loop.seed)
    network, objective = build(settings.network), settings.objective
    if isinstance(objective, ObjectiveSettings) and isinstance(settings.network, FastSettings) and objective.edges:
        network = TaughtNetwork(settings.network)
    if initial:
        if not may_begin(initial.settings.network, settings.network):
            raise ValueError(f"--init holds {initial.settings.network}, the configuration names {settings.network}")
        state = network.state_dict()
        # export takes a bias off anew, but where the layers stay as they are
        held = initial.network.state_dict() if only_part(objective) == "centres" else without_bias(initial)
        anew = _begun_anew(initial.settings.network, settings)
        # but for the number of layers
        same = {name: value for name, value in held.items() if not name.startswith(anew) and value.shape == state[name].shape}
        network.load_state_dict({**state, **same})
    if isinstance(network, FastNetwork):
        backbone = network.encoder.backbone
        if settings.backbone.imagenet and not initial:
            load_imagenet(backbone, imagenet_file())
        freeze(backbone, settings.backbone.frozen_stages)
        if part := only_part(objective):
            network.requires_grad_(False)
            getattr(network, part).requires_grad_(True)
        elif isinstance(objective, ObjectiveSettings) and network.centres is not None:
            network.centres.requires_grad_(objective.centres > 0)
        if not torch.cuda.is_available():
            filters_in_float32(backbone)
    return network


def fit(
    settings: TrainSettings,
    source: Compositor | Mixture,
    out: Path,
    network: nn.Module,
    minutes: float | None = None,
    began: ModelSettings | None = None,
) -> Run:
    """Train, or go on where the run in `out` stopped; see `Run.train` for what it raises, and `Run` for `began`."""
    s = settings.loop
    draw = Repeated(source, settings.repeated, s.seed) if settings.repeated else source
    run = Run(out, network, s, began)
    batches = SceneBatches(draw, s.batch_size // s.parts, s.steps * s.parts, s.seed)
    run.train(batches, Schedule.linear(), method_of(settings), minutes)
    return run


def scene_source(settings: TrainSettings, args: argparse.Namespace) -> Compositor | Mixture:
    """Where scenes come from: a compositor, packed sets, or both.

    Raises:
        OSError: some of the material is missing.
        ValueError: an option that the configuration needs is, or the set is of other sizes than the network.
    """
    if settings.packed < 1 and not (args.data and args.sprites):
        raise ValueError("the configuration draws composites: give --data and --sprites")
    if settings.packed > 0 and args.packed is None:
        raise ValueError(f"the configuration takes a share of {settings.packed:g} from a packed set: give --packed SET")
    if settings.packed == 0 and args.packed:
        raise ValueError("the configuration takes no share from a packed set: leave out --packed, or set `packed: 0.2` in it")
    composites = settings.composites
    compositor = None
    if settings.packed < 1:
        compositor = Compositor(load_material(args.data, args.sprites, "train"), composites)
        if args.packed is None:
            return compositor
    return Mixture(
        packed_scenes(args.packed, composites, any_depth=only_part(settings.objective) == "centres"),
        settings.packed,
        compositor,
        composites.worn,
    )


def packed_scenes(folders: Sequence[Path], rules: SceneRules, any_depth: bool = False) -> Scenes:
    """Packed sets to train on, their files compared with their sha256.

    Args:
        folders: of the sets; one that is given twice counts twice.
        rules: that they must have been made by; scenes of more layers are left out.
        any_depth: none are left out, as nothing is learnt of a layer's number.

    Raises:
        OSError: there is none.
        ValueError: one was not made for training, by other rules, or has no scene that is left.
    """
    read = {folder: _packed(folder, rules, any_depth) for folder in dict.fromkeys(folders)}
    sets = [read[folder] for folder in folders]
    return sets[0] if len(sets) == 1 else cast(Scenes, ConcatDataset(cast(list[Dataset], sets)))


def _packed(folder: Path, rules: SceneRules, any_depth: bool) -> Scenes:
    packed = PackedScenes(folder, check=True)
    if packed.meta["split"] != "train":
        raise ValueError(f"{folder} is a set for {packed.meta['split']}: train on one that was made for training")
    settings = packed.meta["settings"]
    for key in [rule.name for rule in fields(SceneRules) if rule.name != "max_layers"]:
        if settings[key] != getattr(rules, key):
            raise ValueError(
                f"{folder} was made with {key} {settings[key]}, the configuration says {getattr(rules, key)}: make them agree"
            )
    if any_depth or settings["max_layers"] <= rules.max_layers:
        return packed
    shallow = packed.not_deeper(rules.max_layers)
    if not shallow:
        raise ValueError(f"every scene of {folder} has more than {rules.max_layers} layers")
    if len(shallow) < len(packed):
        print(
            f"{len(packed) - len(shallow)} of {len(packed)} scenes of {folder} are left out: more than {rules.max_layers} layers"
        )
    return cast(Scenes, Subset(cast(Dataset, packed), shallow))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("config", type=Path, help="a YAML file of training/configs")
    parser.add_argument("--data", type=Path, help="for composites: folder with fruits/, objects/ and textures/")
    parser.add_argument("--sprites", type=Path, help="for composites: folder that training.prepare sprites filled")
    parser.add_argument(
        "--packed", type=Path, nargs="+", help="sets of training.prepare or training.synthesize, for the share `packed`"
    )
    parser.add_argument("--seed", type=int, help="of weights, rows, noise and scenes (default: the configuration's)")
    parser.add_argument("--minutes", type=float, help="end after so many, with a checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, where there is one")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--init", type=Path, help="a .safetensors file to begin a new run from (default: the configuration's backbone)"
    )
    args = parser.parse_args()
    try:
        settings = read_settings(args.config)
        if args.seed is not None:
            settings = replace(settings, loop=replace(settings.loop, seed=args.seed))
        begun = (args.out / "checkpoint.pt").is_file()
        if begun and not args.resume:
            raise ValueError(f"{args.out} holds a run: go on with it by --resume, or give another --out")
        if only_part(settings.objective) and not (begun or args.init):
            raise ValueError("`only` trains a part of a network whose others are trained: give its weights by --init")
        initial = load_model(str(args.init)) if args.init else None
        began = initial.settings if initial else None
        network = begin(settings, initial)  # before the scenes, whose reading takes longer
        del initial  # else it keeps its memory as long as training takes
        source = scene_source(settings, args)
    except (OSError, ImportError, ValueError) as error:
        parser.error(str(error))
    try:
        run = fit(settings, source, args.out, network, args.minutes, began)
    except (FloatingPointError, OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted at once; --resume goes on from the last checkpoint, if there is one\n")
    if run.step < settings.loop.steps:
        run.accelerator.print("--resume goes on there")
    run.accelerator.wait_for_everyone()
    run.accelerator.end_training()  # a process that ends with its group open may be aborted


if __name__ == "__main__":
    main()

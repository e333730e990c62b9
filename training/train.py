# SPDX-License-Identifier: Apache-2.0
"""Trains a network: ``python -m training.train CONFIG --data DIR --sprites DIR --out DIR``."""

import argparse
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import yaml

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.networks import NetworkSettings, build_network
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.weights import load_model
from seqamodal_ros.settings import from_mapping
from training.data.batches import Mixture, SceneBatches
from training.data.compositor import CompositeSettings, Compositor
from training.data.packed import PackedScenes
from training.data.scene import SceneRules
from training.data.sprites import load_material
from training.hybrid import HybridSettings, hybrid_loss
from training.loop import LoopSettings, Objective, Run
from training.objective import ObjectiveSettings, loss
from training.pretrained import BackboneSettings, freeze, imagenet_file, load_imagenet


@dataclass(frozen=True)
class TrainSettings:
    """One YAML file of `training/configs`.

    Attributes:
        network: which network is trained, and its sizes.
        backbone: of the `fast` network; the `paper` network has none.
        composites: the scenes.
        packed: share of the scenes that come from the set that is given with --packed, in 0..1; the rest are composites.
        objective: rows and losses, of the same `kind` as the network.
        loop: how long and how fast.
    """

    network: NetworkSettings = field(default_factory=FastSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    composites: CompositeSettings = field(default_factory=CompositeSettings)
    objective: ObjectiveSettings | HybridSettings = field(default_factory=ObjectiveSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    packed: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.packed <= 1:
            raise ValueError(f"packed is a share and must be in 0..1, not {self.packed}")
        network, objective = self.network.kind, self.objective.kind
        if network != objective:
            raise ValueError(
                f"the objective of kind {objective!r} does not train the network of kind {network!r}: write `kind: {network}` "
                "under `objective` too"
            )


def read_settings(path: Path) -> TrainSettings:
    """Read a configuration; an unknown key or a wrong type is a ValueError that names it."""
    return from_mapping(TrainSettings, yaml.safe_load(path.read_text()) or {}, path.name)


def objective_of(settings: ObjectiveSettings | HybridSettings) -> Objective:
    """The losses that these settings describe."""
    if isinstance(settings, HybridSettings):
        return lambda network, batch, schedule, _: hybrid_loss(network, batch, schedule, settings)
    return lambda network, batch, schedule, step: loss(network, batch, schedule, settings, step)


def scene_source(settings: TrainSettings, args: argparse.Namespace) -> Compositor | Mixture:
    """Where scenes come from: a compositor, a packed set, or both.

    Raises:
        OSError: some of the material is missing.
        ValueError: an option that the configuration needs is, or the set is of other sizes than the network.
    """
    if settings.packed < 1 and not (args.data and args.sprites):
        raise ValueError("the configuration draws composites: give --data and --sprites")
    if (args.packed is None) != (settings.packed == 0):
        raise ValueError(f"the configuration takes a share of {settings.packed} from --packed: give both, or neither")
    composites = settings.composites
    compositor = None
    if settings.packed < 1:
        compositor = Compositor(load_material(args.data, args.sprites, "train"), composites)
        if args.packed is None:
            return compositor
    packed = PackedScenes(args.packed, check=True)
    if packed.meta["split"] != "train":
        raise ValueError(f"{args.packed} is a set for {packed.meta['split']}: train on one that was made for training")
    for key in [rule.name for rule in fields(SceneRules)]:
        made, wanted = packed.meta["settings"][key], getattr(composites, key)
        if made != wanted:
            raise ValueError(f"{args.packed} was made with {key} {made}, the configuration says {wanted}: make them agree")
    return Mixture(packed, settings.packed, compositor)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("config", type=Path, help="a YAML file of training/configs")
    parser.add_argument("--data", type=Path, help="for composites: folder with fruits/, objects/ and textures/")
    parser.add_argument("--sprites", type=Path, help="for composites: folder that training.prepare sprites filled")
    parser.add_argument("--packed", type=Path, help="a set of training.prepare or training.synthesize, for the share `packed`")
    parser.add_argument("--minutes", type=float, help="end after so many, with a checkpoint; the same command goes on there")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; resumed where it holds a checkpoint")
    parser.add_argument(
        "--init", type=Path, help="a .safetensors file to begin a new run from (default: the configuration's backbone)"
    )
    args = parser.parse_args()
    try:
        settings = read_settings(args.config)
        loop = settings.loop
        batches = SceneBatches(scene_source(settings, args), loop.batch_size, loop.steps, loop.seed)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    torch.manual_seed(loop.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(settings.network)
    if args.init:
        initial = load_model(str(args.init))
        if initial.settings.network.kind != settings.network.kind:
            parser.error(f"--init is a {initial.settings.network.kind} network, the configuration {settings.network.kind}")
        network.load_state_dict(initial.network.state_dict())
    elif isinstance(network, FastNetwork) and settings.backbone.imagenet:
        load_imagenet(network.encoder.backbone, imagenet_file())
    if isinstance(network, FastNetwork):
        freeze(network.encoder.backbone, settings.backbone.frozen_stages)
    network.to(device, memory_format=torch.channels_last)
    try:
        Run(args.out, network, loop).train(batches, Schedule.linear(), objective_of(settings.objective), args.minutes)
    except (FloatingPointError, OSError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

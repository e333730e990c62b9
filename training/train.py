# SPDX-License-Identifier: Apache-2.0
"""Trains a network on composites: ``python -m training.train CONFIG --data DIR --sprites DIR --out DIR``."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.networks import NetworkSettings, build_network
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.weights import load_model
from seqamodal_ros.settings import from_mapping
from training.data.batches import CompositeBatches
from training.data.compositor import CompositeSettings, Compositor
from training.data.packed import PackedScenes
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
        renders: share of the scenes that come from the rendered set that is given with --renders, in 0..1.
        objective: rows and losses, of the same `kind` as the network.
        loop: how long and how fast.
    """

    network: NetworkSettings = field(default_factory=FastSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    composites: CompositeSettings = field(default_factory=CompositeSettings)
    objective: ObjectiveSettings | HybridSettings = field(default_factory=ObjectiveSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    renders: float = 0.0

    def __post_init__(self) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("config", type=Path, help="a YAML file of training/configs")
    parser.add_argument("--data", type=Path, required=True, help="folder with fruits/, objects/ and textures/")
    parser.add_argument("--sprites", type=Path, required=True, help="folder that training.prepare sprites filled")
    parser.add_argument("--renders", type=Path, help="a set that training.synthesize render made, to be mixed in")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; resumed where it holds a checkpoint")
    parser.add_argument(
        "--init", type=Path, help="a .safetensors file to begin a new run from (default: the configuration's backbone)"
    )
    args = parser.parse_args()
    settings = read_settings(args.config)
    compositor = Compositor(load_material(args.data, args.sprites, "train"), settings.composites)
    if (args.renders is None) != (settings.renders == 0):
        parser.error(f"{args.config.name} takes a share of {settings.renders} from --renders: give both, or neither")
    renders = () if args.renders is None else PackedScenes(args.renders)
    loop = settings.loop
    batches = CompositeBatches(compositor, loop.batch_size, loop.steps, loop.seed, renders, settings.renders)
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
    Run(args.out, network, loop).train(batches, Schedule.linear(), objective_of(settings.objective))


if __name__ == "__main__":
    main()

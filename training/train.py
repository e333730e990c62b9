# SPDX-License-Identifier: Apache-2.0
"""Trains a network on composites: ``python -m training.train CONFIG --data DIR --sprites DIR --out DIR``."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.weights import load_model
from seqamodal_ros.settings import from_mapping
from training.data.batches import CompositeBatches
from training.data.compositor import CompositeSettings, Compositor
from training.data.sprites import load_material
from training.loop import LoopSettings, Run
from training.objective import ObjectiveSettings


@dataclass(frozen=True)
class TrainSettings:
    """One YAML file of `training/configs`."""

    network: FastSettings = field(default_factory=FastSettings)
    composites: CompositeSettings = field(default_factory=CompositeSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)


def read_settings(path: Path) -> TrainSettings:
    """Read a configuration; an unknown key or a wrong type is a ValueError that names it."""
    return from_mapping(TrainSettings, yaml.safe_load(path.read_text()) or {}, path.name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("config", type=Path, help="a YAML file of training/configs")
    parser.add_argument("--data", type=Path, required=True, help="folder with fruits/, objects/ and textures/")
    parser.add_argument("--sprites", type=Path, required=True, help="folder that training.prepare filled")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; resumed where it holds a checkpoint")
    parser.add_argument("--init", type=Path, help="a .safetensors file to begin a new run from (default: random weights)")
    args = parser.parse_args()
    settings = read_settings(args.config)
    compositor = Compositor(load_material(args.data, args.sprites, "train"), settings.composites)
    batches = CompositeBatches(compositor, settings.loop.batch_size, settings.loop.steps, settings.loop.seed)
    torch.manual_seed(settings.loop.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = FastNetwork(settings.network)
    if args.init:
        network.load_state_dict(load_model(str(args.init)).network.state_dict())
    network.to(device, memory_format=torch.channels_last)
    Run(args.out, network, settings.loop).train(batches, Schedule.linear(), settings.objective)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Trains a network: `python -m training.train CONFIG --data DIR --sprites DIR --out DIR`."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from seqamodal_ros.commands.arguments import one_line
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import ModelSettings, load_model
from training.begin import begin
from training.centres import centre_loss
from training.data.batches import Batch, Mixture, Repeated, SceneBatches
from training.data.compositor import Compositor
from training.encoded import EncodedOnce
from training.hybrid import HybridSettings, hybrid_loss
from training.loop import Method, Run
from training.methods import Layers, independent_layers, one_shot_layers, sequential_layers
from training.objective import loss
from training.one_shot import OneShotObjective, one_shot_loss
from training.own import own_layers
from training.settings import TrainSettings, only_part, read_settings
from training.sources import LEAVE_OUT, scene_source

SEE_STEPS = {"fast": 2, "one_shot": 2, "paper": 20}  # of DDIM, for a look while it trains


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
        if objective.only in ("denoiser", "numbers"):
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("config", type=Path, help="a YAML file of training/configs")
    parser.add_argument("--data", type=Path, help="for composites: folder with fruits/, objects/ and textures/")
    parser.add_argument("--sprites", type=Path, help="for composites: folder that training.prepare sprites filled")
    parser.add_argument(
        "--packed", type=Path, nargs="+", help="sets of training.prepare or training.synthesize, for the share `packed`"
    )
    parser.add_argument(LEAVE_OUT, action="store_true", help="scenes of packed sets that have more layers than the configuration")
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
    except KeyboardInterrupt:
        parser.exit(130, "interrupted before it began\n")
    try:
        run = fit(settings, source, args.out, network, args.minutes, began)
    except (FloatingPointError, OSError, ValueError, torch.OutOfMemoryError) as error:
        parser.exit(1, f"{one_line(error)}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted at once; --resume goes on from the last checkpoint, if there is one\n")
    if run.step < settings.loop.steps:
        run.accelerator.print("--resume goes on there")
    run.accelerator.wait_for_everyone()
    run.accelerator.end_training()  # a process that ends with its group open may be aborted


if __name__ == "__main__":
    main()

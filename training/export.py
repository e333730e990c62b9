# SPDX-License-Identifier: Apache-2.0
"""Writes a run's moving-average weights as safetensors: `python -m training.export RUN CONFIG --out FILE`.

What is not given is as in the weights that the run began with (`training.train --init`), but for the number of layers and
`area_min`, which are the configuration's (but of `only: centres`); choose bias and temperatures of a denoiser that began anew.
"""

import argparse
from pathlib import Path
from typing import Any

from seqamodal_ros.diffusion.fast import FastSettings
from seqamodal_ros.diffusion.samplers import SAMPLERS
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import ModelSettings, build_network, save_model
from seqamodal_ros.settings import from_mapping, overridden
from training.bias import take_off
from training.endings import need_folder, tell_weights
from training.loop import read_checkpoint
from training.one_shot import OneShotSettings
from training.settings import TrainSettings, only_part, read_settings
from training.taught import without_heads


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("config", type=Path, help="the configuration it was trained with")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--sampling-steps", type=int, help="network calls a layer (of a run from nothing: fast 2, paper 1000)")
    parser.add_argument("--sampler", choices=list(SAMPLERS), help="of a run from nothing: fast ddim, paper ancestral")
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="look at the mirror image of each image too, at twice the cost (of a run from nothing: not)",
    )
    parser.add_argument(
        "--bias",
        type=float,
        help="of the fast network: taken from its denoiser's log-odds of every pixel, so that layers take in less and more "
        "layers follow; chosen on val (of a run from nothing: 0)",
    )
    parser.add_argument(
        "--temperatures",
        type=float,
        nargs=2,
        metavar=("SEEN", "HIDDEN"),
        help="for probabilities that mean what they say, as training.evaluate prints them on val (of a run from nothing: 1 1)",
    )
    parser.add_argument(
        "--first-sure",
        type=float,
        help="probability, before temperatures, that some pixel of the first layer must reach, or there is none and an answer is "
        "LOW_CONFIDENCE, cannot tell; chosen on val, bare backgrounds among it (of a run from nothing: 0)",
    )
    parser.add_argument(
        "--majority-null",
        action=argparse.BooleanOptionalAction,
        help="take all hypotheses of a layer for null where most are; moot for a network that numbers them, where number 0 alone "
        "says (of a run from nothing: not)",
    )
    parser.add_argument(
        "--rest",
        type=Path,
        help="a .safetensors file in the folder of --out: keep what differs from it alone, and in eight bits what is near to it; "
        "both are needed then",
    )
    args = parser.parse_args()
    need_folder(parser, args.out, "--out")
    try:
        settings = _configuration(args)
        state = read_checkpoint(args.run / "checkpoint.pt")
        model, bias = _settings(args, settings, state.get("began"))
        weights = without_heads(state["ema"])
        try:
            build_network(model.network).load_state_dict(weights)
        except RuntimeError:
            raise ValueError(f"{args.run} is of another network than {args.config}: give what it was trained with") from None
        take_off(weights, bias)
        sha256 = save_model(args.out, weights, model, args.rest)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    tell_weights(args.out, sha256, f"step {state['step']}", f"trained {state['seconds'] / 60:.0f} min")


def _configuration(args: argparse.Namespace) -> TrainSettings:
    """The run's; a ValueError where what it trains cannot be exported, or not with these options."""
    settings = read_settings(args.config)
    if isinstance(settings.network, OneShotSettings):
        raise ValueError("a network that draws all layers at once is a baseline, which no Perceiver runs")
    if args.bias and not isinstance(settings.network, FastSettings):
        raise ValueError("--bias is of the fast network: this one draws no log-odds")
    return settings


def _settings(args: argparse.Namespace, settings: TrainSettings, began: dict[str, Any] | None) -> tuple[ModelSettings, float]:
    """Those of the weights that the run began with, the configuration, and what was given; and the bias that is to be taken from
    the run's log-odds yet."""
    network, composites = settings.network, settings.composites
    alone = only_part(settings.objective) == "centres"
    if began is not None:
        before = from_mapping(ModelSettings, began, f"what {args.run} began with")
    elif alone:
        raise ValueError(
            f"{args.run} does not say what it began with: go on with it by `training.train --resume --init`, a step or more"
        )
    else:
        before = ModelSettings(network, SequenceSettings(), network.sampling_steps, network.sampler)
    given = {name: getattr(args, name) for name in ("sampling_steps", "sampler", "mirror", "temperatures")}
    held, default = (before.bias, 0.0) if alone else (0.0, before.bias)  # training gave it back where it changed more
    bias = default if args.bias is None else args.bias
    stops = {name: getattr(args, name) for name in ("first_sure", "majority_null")}
    trained = {} if alone else {"max_layers": composites.max_layers, "area_min": composites.area_min}
    sequence = overridden(before.sequence, **trained, **stops)
    return overridden(before, network=network, sequence=sequence, bias=held + bias, **given), bias


if __name__ == "__main__":
    main()

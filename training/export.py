# SPDX-License-Identifier: Apache-2.0
"""Writes a run's moving-average weights as safetensors: `python -m training.export RUN CONFIG --out FILE`."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch

from seqamodal_ros.diffusion.fast import FastSettings
from seqamodal_ros.diffusion.samplers import SAMPLERS
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import ModelSettings, build_network, load_model, save_model
from seqamodal_ros.settings import overridden
from training.bias import take_off
from training.one_shot import OneShotSettings
from training.taught import without_heads
from training.train import only_part, read_settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("config", type=Path, help="the configuration it was trained with")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--sampling-steps", type=int, help="network calls a layer (default: fast 2, paper 1000)")
    parser.add_argument("--sampler", choices=list(SAMPLERS), help="default: fast ddim, paper ancestral")
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="look at the mirror image of each image too, at twice the cost (default: as --like does, else not)",
    )
    parser.add_argument(
        "--bias",
        type=float,
        help="of the fast network: taken from its denoiser's log-odds of every pixel, so that layers take in less and more "
        "layers follow; chosen on val (default: as --like does, else 0)",
    )
    parser.add_argument(
        "--temperatures",
        type=float,
        nargs=2,
        metavar=("SEEN", "HIDDEN"),
        help="for probabilities that mean what they say, as training.evaluate prints them on val (default: 1 1)",
    )
    parser.add_argument(
        "--first-sure",
        type=float,
        help="probability, before temperatures, that some pixel of the first layer must reach, or there is none and an answer is "
        "LOW_CONFIDENCE, cannot tell; chosen on val, bare backgrounds among it (default: as --like does, else 0)",
    )
    parser.add_argument(
        "--majority-null",
        action=argparse.BooleanOptionalAction,
        help="take all hypotheses of a layer for null where most are, as a network needs whose hypotheses are told apart "
        "(default: as --like does, else not)",
    )
    parser.add_argument(
        "--like",
        type=Path,
        help="take over the settings of this .safetensors file, but for those given here, and max_layers and area_min, which "
        "are the configuration's; for a run of `only: centres`, whose --init it is, this must be given",
    )
    parser.add_argument(
        "--rest",
        type=Path,
        help="a .safetensors file in the folder of --out: leave to it what it holds to the bit; both are needed then",
    )
    args = parser.parse_args()
    if not args.out.parent.is_dir():
        parser.error(f"there is no folder {args.out.parent} for --out")
    try:
        model, bias = _settings(args)
        state = _checkpoint(args.run / "checkpoint.pt")
        weights = without_heads(state["ema"])
        try:
            build_network(model.network).load_state_dict(weights)
        except RuntimeError:
            raise ValueError(f"{args.run} is of another network than {args.config}: give what it was trained with") from None
        take_off(weights, bias)
        sha256 = save_model(args.out, weights, model, args.rest)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    size = args.out.stat().st_size / 1e6
    print(f"{args.out}: step {state['step']}, {size:.1f} MB, trained {state['seconds'] / 60:.0f} min\nsha256: {sha256}")


def _settings(args: argparse.Namespace) -> tuple[ModelSettings, float]:
    """Those of the configuration, or of the file that the weights are to be like, and what was given beside; and the bias that is
    to be taken from the run's log-odds yet."""
    settings = read_settings(args.config)
    network, composites = settings.network, settings.composites
    if isinstance(network, OneShotSettings):
        raise ValueError("a network that draws all layers at once is a baseline, which no Perceiver runs")
    if args.bias and not isinstance(network, FastSettings):
        raise ValueError("--bias is of the fast network: this one draws no log-odds")
    alone = only_part(settings.objective) == "centres"
    if alone and not args.like:
        raise ValueError("the run changed ways to centres alone: give the weights that it began with by --like")
    if args.like:
        like = load_model(str(args.like)).settings
        if like.network.kind != network.kind:
            raise ValueError(f"--like holds a network of kind {like.network.kind!r}, the run is of {network.kind!r}")
    else:
        like = ModelSettings(network, SequenceSettings(), network.sampling_steps, network.sampler)
    given = {name: getattr(args, name) for name in ("sampling_steps", "sampler", "mirror", "temperatures")}
    held, default = (like.bias, 0.0) if alone else (0.0, like.bias)  # training gave it back where it changed more
    bias = default if args.bias is None else args.bias
    stops = {name: getattr(args, name) for name in ("first_sure", "majority_null")}
    trained = {} if alone else {"max_layers": composites.max_layers, "area_min": composites.area_min}
    sequence = overridden(like.sequence, **trained, **stops)
    return overridden(like, network=network, sequence=sequence, bias=held + bias, **given), bias


def _checkpoint(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())[:80]}): it is damaged") from None
    if not isinstance(state, dict) or not {"ema", "step", "seconds"} <= state.keys():
        raise ValueError(f"{path} is no checkpoint of a run of training.train")
    return state


if __name__ == "__main__":
    main()

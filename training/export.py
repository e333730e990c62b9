# SPDX-License-Identifier: Apache-2.0
"""Writes a run's moving-average weights as safetensors: ``python -m training.export RUN CONFIG --out FILE``."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from seqamodal_ros.diffusion.fast import FastSettings
from seqamodal_ros.diffusion.samplers import SAMPLERS
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import ModelSettings, load_model, save_model
from training.one_shot import OneShotSettings
from training.taught import without_heads
from training.train import read_settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("config", type=Path, help="the configuration it was trained with")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--sampling-steps", type=int, help="network calls a layer (default: fast 1, paper 1000)")
    parser.add_argument("--sampler", choices=list(SAMPLERS), help="default: fast ddim, paper ancestral")
    parser.add_argument("--mirror", action="store_true", help="look at the mirror image of each image too, at twice the cost")
    parser.add_argument(
        "--bias",
        type=float,
        default=0.0,
        help="of the fast network: taken from the log-odds of every pixel, so that layers take in less and more layers follow; "
        "chosen on val (default: %(default)s)",
    )
    parser.add_argument(
        "--temperatures",
        type=float,
        nargs=2,
        metavar=("SEEN", "HIDDEN"),
        help="for probabilities that mean what they say, as training.evaluate prints them on val (default: 1 1)",
    )
    parser.add_argument(
        "--like",
        type=Path,
        help="take over the settings of this .safetensors file, but for those given here, for a run that changed centres alone",
    )
    args = parser.parse_args()
    settings = read_settings(args.config)
    if isinstance(settings.network, OneShotSettings):
        parser.error("a network that draws all layers at once is a baseline, which no Perceiver runs")
    network, composites = settings.network, settings.composites
    if args.bias and not isinstance(network, FastSettings):
        parser.error("--bias is of the fast network: this one draws no log-odds")
    state = torch.load(args.run / "checkpoint.pt", map_location="cpu", weights_only=True)
    if args.like:
        like = load_model(str(args.like)).settings
    else:
        sequence = SequenceSettings(max_layers=composites.max_layers, area_min=composites.area_min)
        like = ModelSettings(network, sequence, network.sampling_steps, network.sampler)
    given = {name: getattr(args, name) for name in ("sampling_steps", "sampler", "mirror", "temperatures") if getattr(args, name)}
    try:
        model = replace(like, network=network, bias=like.bias + args.bias, **given)
    except ValueError as error:
        parser.error(str(error))
    weights = without_heads(state["ema"])
    if args.bias:
        weights["denoiser.out.3.bias"] -= args.bias
    sha256 = save_model(args.out, weights, model)
    size = args.out.stat().st_size / 1e6
    print(f"{args.out}: step {state['step']}, {size:.1f} MB, trained {state['seconds'] / 60:.0f} min\nsha256: {sha256}")


if __name__ == "__main__":
    main()

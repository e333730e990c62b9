# SPDX-License-Identifier: Apache-2.0
"""Writes the mean of weights, often better than each (Wortsman et al., 2022): `python -m training.mean FILE FILE --out FILE`."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from seqamodal_ros.diffusion.weights import Model, load_model, save_model
from training.bias import take_off, without_bias
from training.endings import need_folder, tell_weights


def mean_weights(models: Sequence[Model], shares: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of weights of one shape, whatever the size of the images, the bias of none of them taken off: float32.

    Args:
        models: of which the first says how the mean is sampled.
        shares: one for each model, none below 0; they sum to 1.

    Raises:
        ValueError: the networks are not alike, or the shares are not as many, below 0, or do not sum to 1.
    """
    if len(shares) != len(models) or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f"give a share of 0 or more for each of the {len(models)} files, in all 1, not {[*shares]}")
    states = [without_bias(model) for model in models]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    for model, each in zip(models, shapes, strict=True):
        if each != shapes[0]:
            raise ValueError(
                f"{model.model_id} holds {model.settings.network}, the first file {models[0].settings.network}: "
                "there is no mean of these"
            )
    return {
        name: torch.stack([share * state[name] for share, state in zip(shares, states, strict=True)]).sum(dim=0)
        for name in states[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.mean", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE", help="names in models/manifest.yaml or .safetensors files")
    parser.add_argument("--shares", type=float, nargs="+", help="one for each file, in all 1 (default: equal ones)")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write, with the settings of the first")
    parser.add_argument("--rest", type=Path, help="as of training.export")
    args = parser.parse_args()
    need_folder(parser, args.out, "--out")
    try:
        models = [load_model(file) for file in args.files]
        settings = models[0].settings
        weights = mean_weights(models, args.shares or [1 / len(models)] * len(models))
        take_off(weights, settings.bias)
        sha256 = save_model(args.out, weights, settings, args.rest)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    tell_weights(args.out, sha256)


if __name__ == "__main__":
    main()

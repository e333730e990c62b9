# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks' arguments share."""

import argparse

import torch


def device(text: str) -> str:
    """An argument's type: "cpu", or "cuda" where torch sees one."""
    if text not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu or cuda, not {text!r}")
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("torch sees no CUDA device here: use cpu")
    return text


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`, by default the GPU where there is one."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=default, help="cpu or cuda (default: %(default)s)")

# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks' arguments share."""

import argparse
from pathlib import Path

import torch

from seqamodal_ros.commands.arguments import whole_number


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


def add_repeats(parser: argparse.ArgumentParser, default: int) -> None:
    """Add `--repeats`."""
    parser.add_argument("--repeats", type=whole_number(1, 1000), default=default, help="default: %(default)s")


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add `--out`, for the result."""
    parser.add_argument("--out", type=Path, required=True, help="file for the result, JSON")

# SPDX-License-Identifier: Apache-2.0
"""What the commands share: arguments whose errors are one line, and an end that is one, too."""

import argparse
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

from seqamodal_ros.scene.geometry import LARGEST_SIDE

INTERRUPTED = 130  # exit code, as of a shell's command that Ctrl-C ended
P = ParamSpec("P")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """One line, without argparse's usage above it."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def interruptible(said: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Has a command return 130 after Ctrl-C, wherever it is, and say a line."""

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @wraps(main)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return main(*args, **kwargs)
            except KeyboardInterrupt:
                print(said, file=sys.stderr)
                return INTERRUPTED

        return run

    return decorate


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argument's type: a whole number in low..high."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number in {low}..{high}, not {text!r}")
        return value

    return parse


def add_region(parser: argparse.ArgumentParser) -> None:
    """Add `--region X Y WIDTH HEIGHT`, which `region_of` reads."""
    parser.add_argument(
        "--region",
        nargs=4,
        type=whole_number(0, LARGEST_SIDE),
        default=(0, 0, 0, 0),
        metavar=("X", "Y", "WIDTH", "HEIGHT"),
        help="look at this part of each image alone, such as a table: pixels (default, and zeros: all of it)",
    )


def region_of(arguments: argparse.Namespace) -> tuple[int, int, int, int] | None:
    """x, y, width, height; None for all of an image."""
    x, y, width, height = arguments.region
    return (x, y, width, height) if any(arguments.region) else None


def one_line(error: Exception) -> str:
    """An error's text without its line breaks."""
    return " ".join(str(error).split())

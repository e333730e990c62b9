# SPDX-License-Identifier: Apache-2.0
"""What the commands share: arguments whose errors are one line, and an end that is one, too."""

import argparse
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TextIO

from seqamodal_ros.perceiver import DEVICES, LARGEST_NUM_SAMPLES
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
                complain(said)
                return INTERRUPTED

        return run

    return decorate


def say(text: str, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print a line at once, to stdout unless another stream is given, whatever its characters.

    Where it cannot be written, as nobody reads any more (`| head`) or the disk of a log is full, the work goes on.
    """
    stream = sys.stdout if stream is None else stream
    try:
        try:
            print(text, end=end, file=stream, flush=True)
        except UnicodeEncodeError:
            print(text.encode("ascii", "backslashreplace").decode(), end=end, file=stream, flush=True)
    except OSError:
        print_nowhere(stream)


def complain(text: str) -> None:
    """`say` a line on stderr."""
    say(text, sys.stderr)


def print_nowhere(stream: TextIO) -> None:
    """What is printed to a stream from now on goes nowhere: Python itself would fail at the end for what is not written yet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add `--model`, `--device`, `--num-samples` and `--seed`."""
    add, number = parser.add_argument, whole_number
    add("--model", default="default", help="a name in models/manifest.yaml, or a .safetensors file (default: %(default)s)")
    add("--device", default="auto", choices=DEVICES, help="where the network runs (default: %(default)s)")
    add("--num-samples", type=number(1, LARGEST_NUM_SAMPLES), default=3, metavar="K",
        help="hypotheses of each layer (default: %(default)s)")  # fmt: skip
    add("--seed", type=number(0, 2**64 - 1), default=0, metavar="N", help="of the noise (default: %(default)s)")


def add_region(parser: argparse.ArgumentParser) -> None:
    """Add `--region X Y WIDTH HEIGHT`: four whole numbers, or None where it is not given, or zeros."""
    parser.add_argument(
        "--region",
        nargs=4,
        type=whole_number(0, LARGEST_SIDE),
        action=_Region,
        metavar=("X", "Y", "WIDTH", "HEIGHT"),
        help="look at this part of each image alone, such as a table: pixels (default, and zeros: all of it)",
    )


class _Region(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        if any(values) and not all(values[2:]):
            parser.error(f"argument --region: width and height must be 1 or more, not {values[2]} and {values[3]}")
        setattr(namespace, self.dest, tuple(values) if any(values) else None)


def one_line(error: Exception) -> str:
    """An error's text without its line breaks."""
    return " ".join(str(error).split())

# SPDX-License-Identifier: Apache-2.0
"""What the commands share: arguments whose errors are one line."""

import argparse
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """One line, without argparse's usage above it."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


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


def one_line(error: Exception) -> str:
    """An error's text without its line breaks."""
    return " ".join(str(error).split())

# SPDX-License-Identifier: Apache-2.0
"""How the commands of training begin and end alike: folders that have to be there, errors told in a line, weights told of."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from seqamodal_ros.commands.arguments import INTERRUPTED, one_line


def need_folder(parser: argparse.ArgumentParser, path: Path | None, option: str) -> None:
    """End the command where a file cannot be written for want of its folder, before anything is worked out for it."""
    if path is not None and not path.parent.is_dir():
        parser.error(f"there is no folder {path.parent} for {option}")


@contextmanager
def told(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End the command with a line, not a traceback: where files, options or the device's memory do not do, or after Ctrl-C."""
    try:
        yield
    except (ImportError, OSError, ValueError, torch.OutOfMemoryError) as error:
        parser.error(one_line(error))
    except KeyboardInterrupt:
        parser.exit(INTERRUPTED, f"{parser.prog}: interrupted\n")


def tell_weights(path: Path, sha256: str, *about: str) -> None:
    """Print the size and the sha256 of weights that were written, and what else there is to say of them."""
    print(f"{path}: {', '.join((f'{path.stat().st_size / 1e6:.1f} MB', *about))}\nsha256: {sha256}")

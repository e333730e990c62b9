# SPDX-License-Identifier: Apache-2.0
"""Renders the scanned objects into sprites, once, before training: ``python -m training.prepare --data DIR --out DIR``."""

import argparse
from pathlib import Path

from training.data.sprites import render_objects


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.prepare", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with fruits/, objects/ and textures/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rendered sprites, <object>.npz each")
    parser.add_argument("--views", type=int, default=64, help="views of each object (default: %(default)s)")
    parser.add_argument("--side", type=int, default=112, help="side of a sprite in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of orientations and lights (default: %(default)s)")
    args = parser.parse_args()
    written = render_objects(args.data / "objects", args.out, args.views, args.side, args.seed)
    print(f"{len(written)} objects rendered into {args.out}")


if __name__ == "__main__":
    main()

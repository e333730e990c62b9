# SPDX-License-Identifier: Apache-2.0
"""Makes scenes and tells how hard they are: ``python -m training.synthesize samples | render | stats --help``."""

import argparse
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.data.catalogue import Catalogue
from training.data.compositor import draw_composites
from training.data.furniture import furniture_models, read_furniture
from training.data.objects import read_scan, read_split
from training.data.packed import PackedScenes, Packer
from training.data.piles import Pile, Recipe, make_pile
from training.data.renders import RenderSettings, render_table
from training.data.samples import write_samples
from training.data.sprites import compact_furniture, read_textures
from training.data.stage import Rejected
from training.data.statistics import describe

TRIES = 400

SAMPLES = (
    Recipe(("can", "can", "can", "lemon", "milk carton"), "wood", tilt=(15, 30), layers=(3, 4)),
    Recipe(("plastic cup", "plastic cup", "plastic cup", "plastic cup", "tetra pak"), "speckle", tilt=(20, 35), layers=(3, 4)),
    Recipe(("bread loaf", "cereal box", "bottle", "can", "lemon", "lemon"), "cloth", tilt=(10, 25), layers=(3, 4)),
    Recipe(("teddy bear", "basketball", "wooden toy", "rocking horse"), "tray", tilt=(25, 40), layers=(3, 4)),
    Recipe(("yogurt bottle", "yogurt bottle", "yogurt bottle", "lemon", "lemon"), "felt", tilt=(0, 15), layers=(3, 4)),
    Recipe(("cactus", "biplane", "fire extinguisher"), "linen", tilt=(30, 40), layers=(1, 2), spread=0.07, loose=3),
    Recipe(
        ("house puzzle", "slipper", "slipper", "cereal box", "hot dog", "exit sign", "bootie"),
        "mat",
        tilt=(10, 35),
        layers=(5, 6),
        spread=0.02,
    ),
    Recipe(("rock", "barrel", "crate", "wooden case", "barrel"), "blue_tray", tilt=(25, 40), layers=(3, 4)),
    Recipe(("shipping container", "shipping container", "spring bike", "locker"), "cardboard", tilt=(20, 35), layers=(2, 4)),
    Recipe(("bottle", "bottle", "bottle", "bread loaf", "tetra pak", "hot dog"), "dark_wood", tilt=(5, 20), layers=(3, 4)),
    Recipe(("cereal box", "cereal box", "cereal box", "milk carton", "can"), "tray", tilt=(15, 35), layers=(3, 4)),
    Recipe(
        ("teddy bear", "plastic cup", "cosmetics pot", "baby bottle", "bootie", "basketball"),
        "speckle",
        tilt=(15, 30),
        layers=(3, 4),
    ),
)


def make_samples(catalogue: Catalogue, seed: int) -> tuple[list[Pile], Counter[str]]:
    """A pile for each of `SAMPLES`, and how many were dropped for what.

    Raises:
        RuntimeError: a recipe gave no good pile in `TRIES` tries.
    """
    piles, dropped = [], Counter[str]()
    for index, recipe in enumerate(tqdm(SAMPLES, desc="frames", disable=None)):
        for attempt in range(TRIES):
            try:
                piles.append(make_pile(catalogue, recipe, np.random.default_rng([seed, index, attempt])))
                break
            except Rejected as rule:
                dropped[str(rule)] += 1
        else:
            raise RuntimeError(f"recipe {index + 1} gave no good pile in {TRIES} tries: relax it, or take another --seed")
    return piles, dropped


def make_renders(data: Path, sprites: Path, furniture: Path, out: Path, tables: int, seed: int) -> PackedScenes:
    """Render the training objects and compact furniture on tables, into a packed set."""
    sources = furniture_models(furniture)
    scanned = [name for name, split in read_split(data / "objects").items() if split == "train"]
    families = {
        "furniture": {name: partial(read_furniture, *sources[name]) for name in compact_furniture(furniture, sprites)},
        "objects": {name: partial(read_scan, data / "objects" / f"{name}.npz") for name in scanned},
    }
    settings = RenderSettings()
    packer = Packer(out, {"split": "train", "tables": tables, "seed": seed, "settings": asdict(settings)})
    packer.fill(partial(render_table, families, read_textures(data / "textures" / "train"), settings, seed), tables)
    return packer.finish()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.synthesize", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    samples = commands.add_parser("samples", help="the dozen frames of the demo, with their truth and attribution")
    samples.add_argument("--out", type=Path, required=True, help="folder for the frames; files of the same name are replaced")
    samples.add_argument("--furniture", type=Path, required=True, help="BlendSwap-CC-0.sh3f of Debian's sweethome3d-furniture")
    samples.add_argument("--robosuite", type=Path, required=True, help="folder of the installed Python package robosuite")
    samples.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default: %(default)s)")
    render = commands.add_parser("render", help="scenes for training: objects that fell on tables, several views of each")
    render.add_argument("--data", type=Path, required=True, help="folder with objects/ and textures/")
    render.add_argument("--sprites", type=Path, required=True, help="folder of training.prepare sprites, --furniture included")
    render.add_argument("--furniture", type=Path, required=True, help="folder of Debian's sweethome3d-furniture")
    render.add_argument("--out", type=Path, required=True, help="folder for the set; one that was interrupted goes on")
    render.add_argument("--tables", type=int, default=50, help="tables, of about 45 views each (default: %(default)s)")
    render.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    stats = commands.add_parser("stats", help="how hard the composites of a split are, beside the papers' sets")
    stats.add_argument("--data", type=Path, required=True, help="folder with fruits/, objects/ and textures/")
    stats.add_argument("--sprites", type=Path, required=True, help="folder that training.prepare sprites filled")
    stats.add_argument("--split", default="test", help="train, val, test or unseen (default: %(default)s)")
    stats.add_argument("--count", type=int, default=500, help="composites (default: %(default)s)")
    stats.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    if args.command == "stats":
        composites = draw_composites(args.data, args.sprites, args.split, args.count, args.seed)
        print(describe(composites))
        return
    if args.command == "render":
        print(describe(make_renders(args.data, args.sprites, args.furniture, args.out, args.tables, args.seed)))
        return
    try:
        catalogue = Catalogue(args.furniture, args.robosuite)
    except FileNotFoundError as error:
        parser.error(str(error))
    piles, dropped = make_samples(catalogue, args.seed)
    write_samples(args.out, piles, catalogue, args.seed, dropped)
    print(f"{len(piles)} frames in {args.out}; dropped: {dict(sorted(dropped.items()))}")


if __name__ == "__main__":
    main()

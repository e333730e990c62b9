# SPDX-License-Identifier: Apache-2.0
"""Makes scenes and tells how hard they are: ``python -m training.synthesize samples | composite | render | stats --help``."""

import argparse
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from training.data.catalogue import Catalogue
from training.data.composites import PER_SHARD, composite_shard
from training.data.compositor import SET_COMPOSITES, Compositor, draw_composites
from training.data.furniture import read_furniture
from training.data.meshes import Model
from training.data.objects import read_scan, read_split
from training.data.packed import PackedScenes, fingerprint, pack
from training.data.piles import Pile, Recipe, make_pile
from training.data.renders import MUVA, RenderSettings, render_table
from training.data.samples import write_samples
from training.data.scene import SPLITS, Rejected
from training.data.sheets import contact_sheet
from training.data.sprites import Material, compact_furniture, load_material, read_cutouts, read_textures
from training.data.statistics import TARGETS, describe

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


def make_renders(args: argparse.Namespace) -> PackedScenes:
    """Render the scanned objects of a split, and compact furniture for training, into a packed set."""
    scanned = [name for name, split in read_split(args.data / "objects").items() if split == args.split]
    families: dict[str, dict[str, Callable[[], Model]]] = {
        "objects": {name: partial(read_scan, args.data / "objects" / f"{name}.npz") for name in scanned}
    }
    if args.split == "train" and args.furniture:
        if args.sprites is None:
            raise ValueError("--furniture needs --sprites, to know which models are compact")
        compact = compact_furniture(args.furniture, args.sprites)
        families["furniture"] = {name: partial(read_furniture, *source) for name, source in compact.items()}
    if not scanned:
        raise ValueError(f"no object of {args.data / 'objects'} is for {args.split}")
    settings = replace(MUVA if args.muva else RenderSettings(), image_size=args.image_size)
    textures = read_textures(args.data / "textures" / args.split)
    names = {family: sorted(models) for family, models in families.items()}
    about = {"split": args.split, "tables": args.tables, "seed": args.seed, "settings": asdict(settings)}
    about["made_from"] = fingerprint(args.data.resolve(), names, textures)
    return pack(args.out, about, partial(render_table, families, textures, settings, _seed(args)), args.tables)


def make_composites(args: argparse.Namespace) -> PackedScenes:
    """Lay one's own cut-outs, or a family of the raw material, on textures, into a packed set."""
    if (args.cutouts is None) == (args.data is None) or (args.cutouts and not args.textures) or (args.data and not args.sprites):
        raise ValueError("give --cutouts and --textures, or --data and --sprites")
    if args.cutouts:
        material = Material({"cutouts": read_cutouts(args.cutouts)}, read_textures(args.textures))
    else:
        material = load_material(args.data, args.sprites, args.split, args.family)
    settings = replace(SET_COMPOSITES, image_size=args.image_size, same_class=0.0 if args.mixed else 1.0)
    depths = list(range(1, settings.max_layers + 1)) if args.stratified else []
    about = {"split": args.split, "images": args.count, "depths": depths, "seed": args.seed, "settings": asdict(settings)}
    about["made_from"] = fingerprint(material.sprites, material.textures)
    work = partial(composite_shard, Compositor(material, settings), _seed(args), args.count, depths)
    return pack(args.out, about, work, -(-args.count // PER_SHARD))


def _seed(args: argparse.Namespace) -> list[int]:
    """Of a set: splits of one seed are different scenes."""
    return [args.seed, zlib.crc32(args.split.encode())]


MAKERS = {"render": make_renders, "composite": make_composites}


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
    render.add_argument("--furniture", type=Path, help="folder of Debian's sweethome3d-furniture, for training alone")
    render.add_argument("--sprites", type=Path, help="with --furniture: folder of training.prepare sprites --furniture")
    render.add_argument("--out", type=Path, required=True, help="folder for the set; one that was interrupted goes on")
    render.add_argument(
        "--muva", action="store_true", help="MUVA's recipe: 5 to 10 objects, 7 layers, six views, bins and shelves"
    )
    render.add_argument(
        "--split", choices=["train", "val", "test"], default="train", help="of the objects (default: %(default)s)"
    )
    render.add_argument("--image-size", type=int, default=128, help="side of the images, pixels (default: %(default)s)")
    render.add_argument("--tables", type=int, default=50, help="tables, of about 45 views each (default: %(default)s)")
    render.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    composite = commands.add_parser("composite", help="a set of composites: cut-outs laid on textures (Intra-AFruit's recipe)")
    composite.add_argument("--cutouts", type=Path, help="your own: <class>/<name>.png with transparent backgrounds")
    composite.add_argument("--textures", type=Path, help="with --cutouts: a folder of backgrounds")
    composite.add_argument("--data", type=Path, help="or the raw material: a folder with fruits/, objects/ and textures/")
    composite.add_argument("--sprites", type=Path, help="with --data: folder that training.prepare sprites filled")
    composite.add_argument("--family", choices=["fruits", "objects"], default="fruits", help="of the raw material")
    composite.add_argument("--split", choices=SPLITS, default="train", help="what the set is for (default: %(default)s)")
    composite.add_argument("--mixed", action="store_true", help="classes mixed within an image (Inter-AMix); else one class each")
    composite.add_argument("--count", type=int, default=1000, help="images (default: %(default)s)")
    composite.add_argument("--stratified", action="store_true", help="as many images of each depth, 1 to 5 layers")
    composite.add_argument("--image-size", type=int, default=64, help="side of the images, pixels (default: %(default)s)")
    composite.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    composite.add_argument("--out", type=Path, required=True, help="folder for the set; one that was interrupted goes on")
    stats = commands.add_parser("stats", help="how hard the composites of a split are, beside the papers' sets")
    stats.add_argument("--data", type=Path, required=True, help="folder with fruits/, objects/ and textures/")
    stats.add_argument("--sprites", type=Path, required=True, help="folder that training.prepare sprites filled")
    stats.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    stats.add_argument("--count", type=int, default=500, help="composites (default: %(default)s)")
    stats.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    try:
        if args.command == "stats":
            print(f"{describe(draw_composites(args.data, args.sprites, args.split, args.count, args.seed))}\n{TARGETS}")
            return
        if args.command in MAKERS:
            packed = MAKERS[args.command](args)
            sheet = args.out / "sheet.png"
            cv2.imwrite(str(sheet), cv2.cvtColor(contact_sheet(packed), cv2.COLOR_RGB2BGR))
            print(f"{len(packed)} images in {args.out}, some of them in {sheet}\n{describe(packed)}\n{TARGETS}")
            return
        catalogue = Catalogue(args.furniture, args.robosuite)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on there")
    piles, dropped = make_samples(catalogue, args.seed)
    write_samples(args.out, piles, catalogue, args.seed, dropped)
    print(f"{len(piles)} frames in {args.out}; dropped: {dict(sorted(dropped.items()))}")


if __name__ == "__main__":
    main()

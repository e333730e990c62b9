# SPDX-License-Identifier: Apache-2.0
"""Makes scenes, says how hard they are: `python -m training.synthesize samples | composite | render | minis | stats --help`."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from seqamodal_ros.commands.arguments import whole_number
from seqamodal_ros.scene.pictures import write_image
from training.data.catalogue import Catalogue
from training.data.compositor import evaluation_compositor, in_turns
from training.data.packed import PackedScenes
from training.data.piles import Pile, Recipe, make_pile
from training.data.renders import DESKS, MUVA, RenderSettings
from training.data.samples import write_samples
from training.data.scene import SPLITS, Rejected
from training.data.sets import composite_set, mesh_set, mini_sets, scanned_set
from training.data.sheets import contact_sheet
from training.data.sprites import Material, load_material, read_cutouts, read_textures
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


def make_renders(args: argparse.Namespace) -> Iterable[PackedScenes]:
    """Render one's own meshes, or scanned objects of a split and compact furniture for training, into a packed set."""
    own = (args.meshes is not None, args.textures is not None)
    if own not in ((True, True), (False, False)) or own[0] == (args.data is not None) or (own[0] and args.furniture):
        raise ValueError("give --meshes and --textures, or --data")
    if args.furniture and args.sprites is None:
        raise ValueError("--furniture needs --sprites, to know which models are compact")
    recipe = MUVA if args.muva else DESKS if args.desks else RenderSettings()
    settings = replace(recipe, image_size=args.image_size)
    if args.meshes:
        return [mesh_set(args.out, args.meshes, args.textures, args.split, settings, args.tables, args.seed)]
    furniture = (args.furniture, args.sprites) if args.furniture else None
    return [scanned_set(args.out, args.data, args.split, settings, args.tables, args.seed, furniture)]


def make_composites(args: argparse.Namespace) -> Iterable[PackedScenes]:
    """Lay one's own cut-outs, or a family of the raw material, on textures, into a packed set."""
    if (args.cutouts is None) == (args.data is None) or (args.cutouts and not args.textures) or (args.data and not args.sprites):
        raise ValueError("give --cutouts and --textures, or --data and --sprites")
    if args.cutouts:
        material = Material({"cutouts": read_cutouts(args.cutouts)}, read_textures(args.textures))
    else:
        material = load_material(args.data, args.sprites, args.split, args.family)
    set_of = (args.split, args.count, args.seed, args.image_size, args.mixed, args.stratified)
    return [composite_set(args.out, material, *set_of)]


def make_minis(args: argparse.Namespace) -> Iterable[PackedScenes]:
    """Make stand-ins for the papers' sets."""
    return mini_sets(args.out, args.data, args.sprites, args.share, args.stratified, args.seed, args.image_size)


MAKERS = {"render": make_renders, "composite": make_composites, "minis": make_minis}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.synthesize", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    samples = commands.add_parser("samples", help="the dozen frames of the demo, with their truth and attribution")
    samples.add_argument("--out", type=Path, required=True, help="folder for the frames; files of the same name are replaced")
    samples.add_argument("--furniture", type=Path, required=True, help="BlendSwap-CC-0.sh3f of Debian's sweethome3d-furniture")
    samples.add_argument("--robosuite", type=Path, required=True, help="folder of the installed Python package robosuite")
    samples.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default: %(default)s)")
    render = commands.add_parser("render", help="scenes for training: objects that fell on tables, several views of each")
    render.add_argument("--meshes", type=Path, help="your own: a folder of Wavefront OBJ files with their materials")
    render.add_argument("--textures", type=Path, help="with --meshes: a folder of pictures, for tables")
    render.add_argument("--data", type=Path, help="or the raw material: a folder with objects/ and textures/")
    render.add_argument("--furniture", type=Path, help="folder of Debian's sweethome3d-furniture, for training alone")
    render.add_argument("--sprites", type=Path, help="with --furniture: folder of training.prepare sprites --furniture")
    render.add_argument("--out", type=Path, required=True, help="folder for the set; one that was interrupted goes on")
    recipes = render.add_mutually_exclusive_group()
    recipes.add_argument(
        "--muva", action="store_true", help="MUVA's recipe: 5 to 10 objects, 7 layers, six views, bins and shelves"
    )
    recipes.add_argument(
        "--desks", action="store_true", help="2 to 9 objects on a desk in a room, seen aslant and from farther away"
    )
    render.add_argument(
        "--split", choices=["train", "val", "test"], default="train", help="of the objects (default: %(default)s)"
    )
    render.add_argument(
        "--image-size", type=whole_number(16, 2048), default=256, help="side of the images, pixels (default: %(default)s)"
    )
    render.add_argument(
        "--tables",
        type=whole_number(1, 10**6),
        default=50,
        help="of about 70 views each, 40 with --muva, 25 with --desks (default: %(default)s)",
    )
    render.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    composite = commands.add_parser("composite", help="a set of composites: cut-outs laid on textures (Intra-AFruit's recipe)")
    composite.add_argument("--cutouts", type=Path, help="your own: <class>/<name>.png with transparent backgrounds")
    composite.add_argument("--textures", type=Path, help="with --cutouts: a folder of backgrounds")
    composite.add_argument("--data", type=Path, help="or the raw material: a folder with fruits/, objects/ and textures/")
    composite.add_argument("--sprites", type=Path, help="with --data: folder that training.prepare sprites filled")
    composite.add_argument("--family", choices=["fruits", "objects"], default="fruits", help="of the raw material")
    composite.add_argument("--split", choices=SPLITS, default="train", help="what the set is for (default: %(default)s)")
    composite.add_argument("--mixed", action="store_true", help="classes mixed within an image (Inter-AMix); else one class each")
    composite.add_argument("--count", type=whole_number(1, 10**9), default=1000, help="images (default: %(default)s)")
    composite.add_argument("--stratified", action="store_true", help="as many images of each depth, 1 to 5 layers")
    composite.add_argument(
        "--image-size", type=whole_number(16, 2048), default=256, help="side of the images, pixels (default: %(default)s)"
    )
    composite.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    composite.add_argument("--out", type=Path, required=True, help="folder for the set; one that was interrupted goes on")
    minis = commands.add_parser("minis", help="stand-ins for Intra-AFruit, ACom and MUVA: afruit-mini, acom-mini, muva-mini")
    minis.add_argument("--data", type=Path, required=True, help="folder with fruits/, objects/ and textures/")
    minis.add_argument("--sprites", type=Path, required=True, help="folder that training.prepare sprites filled")
    minis.add_argument("--share", type=float, default=0.1, help="of the papers' numbers of images (default: %(default)s)")
    minis.add_argument(
        "--stratified", type=whole_number(1, 10**9), default=600, help="images of each depth (default: %(default)s)"
    )
    minis.add_argument(
        "--image-size", type=whole_number(16, 2048), default=256, help="side of the images, pixels (default: %(default)s)"
    )
    minis.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    minis.add_argument("--out", type=Path, required=True, help="folder of the three; what was interrupted goes on")
    stats = commands.add_parser("stats", help="how hard the composites of a split are, beside the papers' sets")
    stats.add_argument("--data", type=Path, required=True, help="folder with fruits/, objects/ and textures/")
    stats.add_argument("--sprites", type=Path, required=True, help="folder that training.prepare sprites filled")
    stats.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    stats.add_argument("--count", type=whole_number(1, 10**9), default=500, help="composites (default: %(default)s)")
    stats.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    try:
        if args.command == "stats":
            compositor = evaluation_compositor(args.data, args.sprites, args.split)
            print(f"{describe(in_turns(compositor, compositor.material, args.count, args.seed))}\n{TARGETS}")
            return
        if args.command in MAKERS:
            began = time.monotonic()
            for packed in MAKERS[args.command](args):
                seconds = time.monotonic() - began
                sheet = packed.folder / "sheet.png"
                write_image(sheet, contact_sheet(packed))
                print(f"{len(packed)} images in {packed.folder}, in {seconds:.0f} s, some of them in {sheet}")
                print(describe(packed), flush=True)
                began = time.monotonic()
            print(TARGETS)
            return
        catalogue = Catalogue(args.furniture, args.robosuite)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except ModuleNotFoundError as error:
        if error.name != "mujoco":  # which sets without renders do without
            raise
        parser.error(f"{error}: `pip install -r requirements/training.txt`")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on there")
    piles, dropped = make_samples(catalogue, args.seed)
    write_samples(args.out, piles, catalogue, args.seed, dropped)
    print(f"{len(piles)} frames in {args.out}; dropped: {dict(sorted(dropped.items()))}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Prepares data, once, before training: `python -m training.prepare sprites | coco | folders --help`."""

import argparse
import json
import re
import sys
from dataclasses import fields, replace
from pathlib import Path

from seqamodal_ros.commands.arguments import whole_number
from seqamodal_ros.files import write_whole
from training.data.packed import fingerprint
from training.data.readers.annotated import Load
from training.data.readers.coco import PRESETS, KeyMap, read_coco
from training.data.readers.paper_sets import PAPER_SETS
from training.data.readers.prepared import SPECK, read_prepared
from training.data.readers.processing import Processing, pack_sources
from training.data.readers.report import report
from training.data.scene import SPLITS
from training.data.sprites import render_furniture, render_objects, shrink_pictures

HELD = "scenes.json"  # of a set: the scenes that it was made from, so that a later call keeps them out of other splits


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.prepare", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sprites = commands.add_parser("sprites", help="make sprites of textured meshes and of pictures, for composites")
    sprites.add_argument("--data", type=Path, required=True, help="folder with objects/")
    sprites.add_argument("--out", type=Path, required=True, help="folder for the sprites, <object>.npz each")
    sprites.add_argument("--views", type=whole_number(1, 1000), default=64, help="views of each object (default: %(default)s)")
    sprites.add_argument(
        "--side", type=whole_number(16, 1024), default=112, help="side of a sprite in pixels (default: %(default)s)"
    )
    sprites.add_argument("--furniture", type=Path, help="folder of Debian's sweethome3d-furniture, for more kinds in training")
    sprites.add_argument("--pictures", type=Path, help="folder of cut-out pictures (RGBA), for still more kinds in training")
    coco = commands.add_parser("coco", help="pack a dataset in COCO's style")
    coco.add_argument(
        "--preset", choices=sorted(PRESETS), required=True, help="the dataset, or the one whose keys are most alike"
    )
    coco.add_argument("--images", type=Path, required=True, help="folder of the images")
    coco.add_argument(
        "--split", action="append", required=True, metavar="NAME=FILE", help="a split and its annotations; may be repeated"
    )
    coco.add_argument("--key", action="append", default=[], metavar="ROLE=KEY", help=f"another key; roles: {', '.join(_roles())}")
    folders = commands.add_parser("folders", help="pack the authors' folders <image>_<layer>/{image,mask,newmask}.png")
    folders.add_argument("--split", action="append", required=True, metavar="NAME=FOLDER", help="may be repeated")
    for command in (coco, folders):
        command.add_argument("--out", type=Path, required=True, help="folder for the sets, one for each split")
        command.add_argument(
            "--image-size", type=whole_number(16, 2048), default=256, help="side of the images, pixels (default: %(default)s)"
        )
        command.add_argument(
            "--scene",
            metavar="REGEX",
            help="of several views of a scene: what names the scene in an image's name, such as '(.*)_view' (default: all of it)",
        )
        command.add_argument("--max-layers", type=whole_number(1, 100), help="images with more are dropped (default: 5; muva 7)")
        command.add_argument(
            "--subset",
            type=whole_number(1, 10**9),
            help="of each split, keep so many, at random (default: all; intra_afruit's test 3000)",
        )
    for command in (sprites, coco, folders):
        command.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    args = parser.parse_args()
    try:
        _sprites(args) if args.command == "sprites" else _pack(args)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on there")


def _sprites(args: argparse.Namespace) -> None:
    written = render_objects(args.data / "objects", args.out, args.views, args.side, args.seed)
    if args.furniture:
        written += render_furniture(args.furniture, args.out, args.views, args.side, args.seed)
    if args.pictures:
        written += shrink_pictures(args.pictures, args.out, args.side)
    print(f"sprites of {len(written)} more objects in {args.out}; those that were there stay as they are")


def _pack(args: argparse.Namespace) -> None:
    dataset = args.preset if args.command == "coco" else "folders"
    splits = _splits(args.split)
    if args.command == "coco":
        keys = _key_map(args)
        if not keys.verified:
            print(f"{dataset}: its keys are unpublished, so this preset is a guess; give --key where one is another")
        sources = {split: _read_coco(path, args.images, keys, dataset) for split, path in splits.items()}
        made_from = {split: fingerprint(path.read_text(), args.images.resolve(), keys) for split, path in splits.items()}
    else:
        sources = {split: read_prepared(path) for split, path in splits.items()}
        made_from = {split: fingerprint(path.resolve(), list(sources[split]), SPECK) for split, path in splits.items()}
    scenes = {name: _scene(name, args.scene) for names in sources.values() for name in names}
    held = {split: {scenes[name] for name in names} for split, names in sources.items()}
    images_of = str(args.images.resolve()) if args.command == "coco" else None
    _check_disjoint({**_made_before(args.out, set(SPLITS) - set(held), args.scene, images_of), **held})
    paper = PAPER_SETS.get(dataset)
    max_layers = args.max_layers or (paper.max_layers if paper else Processing.max_layers)
    settings = Processing(image_size=args.image_size, max_layers=max_layers, crop=paper is not None and paper.crop)
    for split, images in sources.items():
        about = {"split": split, "made_from": made_from[split], "scene": args.scene}
        subset = paper.test_subset if args.subset is None and paper and split == "test" else args.subset
        there = (args.out / split).is_dir()
        packed = pack_sources(images, scenes, settings, args.out / split, about, subset, args.seed)
        named = {"named_by": args.scene, "images": images_of, "scenes": sorted(held[split])}
        write_whole(packed.folder / HELD, json.dumps(named).encode())
        if there:
            print(f"{packed.folder} was there and is as it was: remove it where images or masks have changed since")
        print(report(packed, dataset))


def _made_before(out: Path, splits: set[str], pattern: str | None, images_of: str | None) -> dict[str, set[str]]:
    """The scenes of those of these splits that earlier calls made in a folder; ValueError where they named scenes otherwise.

    Where nothing names the scenes but files, those of another folder of images are others, whatever they are called.
    """
    before = {}
    for split in sorted(split for split in splits if (out / split).is_dir()):
        file = out / split / HELD
        if not file.is_file():
            print(f"{out / split} does not say which scenes are in it: whether any is in two splits is not known")
            continue
        written = json.loads(file.read_text())
        if written["named_by"] != pattern:
            given = "without --scene" if written["named_by"] is None else f"with --scene '{written['named_by']}'"
            raise ValueError(f"{out / split} was made {given}, so scenes cannot be compared: do likewise, or give another --out")
        if pattern is not None or written.get("images", images_of) == images_of:
            before[split] = set(written["scenes"])
    return before


def _read_coco(path: Path, images: Path, keys: KeyMap, preset: str) -> dict[str, Load]:
    try:
        return read_coco(path, images, keys)
    except ValueError as error:
        raise ValueError(f"preset {preset}: {error}") from error


def _scene(name: str, pattern: str | None) -> str:
    """What an image is a view of."""
    if pattern is None:
        return name
    try:
        found = re.match(pattern, name)
    except re.error as error:
        raise ValueError(f"--scene {pattern} is no regular expression: {error}") from None
    if not found or (found.re.groups and found[1] is None):
        raise ValueError(f"--scene {pattern} does not fit the name of the image {name}")
    return found[1] if found.re.groups else found[0]


def _splits(given: list[str]) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    for text in given:
        split, path = _pair(text, "--split")
        if split not in SPLITS or split in splits:
            raise ValueError(f"--split {text}: give each of {', '.join(SPLITS)} at most once")
        splits[split] = Path(path)
    return splits


def _roles() -> list[str]:
    return [field.name for field in fields(KeyMap) if field.name != "verified"]


def _key_map(args: argparse.Namespace) -> KeyMap:
    given: dict[str, str | int | None] = {}
    for role, key in (_pair(text, "--key") for text in args.key):
        if role not in _roles():
            raise ValueError(f"--key {role}={key}: the roles are {', '.join(_roles())}")
        if role == "layer_base" and key not in ("0", "1"):
            raise ValueError(f"--key layer_base={key}: layers count from 0 or from 1")
        given[role] = int(key) if role == "layer_base" else key or None
    return replace(PRESETS[args.preset], **given)  # type: ignore[arg-type]


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{option} takes NAME=VALUE, not {text!r}")
    return name, value


def _check_disjoint(names: dict[str, set[str]]) -> None:
    splits = list(names)
    for k, one in enumerate(splits):
        for other in splits[k + 1 :]:
            if both := sorted(names[one] & names[other]):
                raise ValueError(
                    f"scenes that are in both {one} and {other}: {len(both)}, {both[0]} the first; split by scene, "
                    "or give each split an --out of its own if they only have the same names"
                )


if __name__ == "__main__":
    main()

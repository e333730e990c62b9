# SPDX-License-Identifier: Apache-2.0
"""Training material small enough to travel to a GPU, images as WebP: `python -m training.parcel pack | unpack --help`."""

import argparse
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.data.packed import PackedScenes, file_sha256
from training.data.scene import SPLITS
from training.data.workers import in_parallel

QUALITY = 80  # of WebP, 0..100
DATA, SPRITES, SETS = "data", "sprites", "sets"  # folders of a parcel, and of what comes out of it


def pack(out: Path, data: Path | None, sprites: Path | None, sets: Sequence[Path], splits: Sequence[str], quality: int) -> None:
    """Write a parcel: the raw material of composites, sprites and packed sets as they are wanted, with their images as WebP.

    Args:
        out: the folder to be.
        data: the raw material, of which fruits and textures of `splits` go along, and what tells objects apart, not their meshes.
        sprites: folder that training.prepare sprites filled.
        sets: packed sets, each of another name; of their images nothing but the quality is lost.
        splits: of the raw material.
        quality: of WebP, 1..100.

    Raises:
        FileExistsError: the folder is there.
        FileNotFoundError: something that is to go along is not there.
        ValueError: two sets of one name, or a quality out of range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"the quality must be in 1..100, not {quality}")
    sets = [folder.resolve() for folder in sets]  # so that each has a name
    if len({folder.name for folder in sets}) < len(sets):
        raise ValueError("two of the sets have one name: rename one, as each comes to lie under its name")
    if data and not (data / "objects").is_dir():
        raise FileNotFoundError(f"no raw material in {data}: it needs fruits/, objects/ and textures/")
    paths = [path.relative_to(sprites) for path in sorted(sprites.rglob("*.npz"))] if sprites else []
    if sprites and not paths:
        raise FileNotFoundError(f"no sprites in {sprites}: training.prepare sprites makes them")
    part = _begun(out)
    if data:
        for kind in ("fruits", "textures"):
            for split in splits:
                if (data / kind / split).is_dir():  # there are no textures of `unseen`
                    shutil.copytree(data / kind / split, part / DATA / kind / split)
        (part / DATA / "objects").mkdir(parents=True)
        for path in (data / "objects").glob("*.json"):
            shutil.copy(path, part / DATA / "objects")
    if sprites:
        for _ in in_parallel(partial(_squeeze_sprites, sprites, part / SPRITES, paths, quality), len(paths), SPRITES):
            pass
    for folder in sets:
        packed, target = PackedScenes(folder, check=True), part / SETS / folder.name
        target.mkdir(parents=True)
        held: dict[str, Any] = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in packed.meta["shapes"]}
        images = _squeezed(held.pop("images"), quality)
        np.savez_compressed(target / "scenes.npz", **held, **images)
        (target / "meta.json").write_text(json.dumps({**packed.meta, "webp_quality": quality}, indent=1))
    part.rename(out)


def unpack(parcel: Path, out: Path) -> None:
    """Make of a parcel the folders that training reads: `data`, `sprites` and `sets/<name>`, as far as they are in it.

    Raises:
        FileExistsError: the folder is there.
        FileNotFoundError: there is no parcel.
        ValueError: it is damaged.
    """
    if not parcel.is_dir():
        raise FileNotFoundError(f"no parcel in {parcel}: training.parcel pack makes one")
    paths = [path.relative_to(parcel / SPRITES) for path in sorted((parcel / SPRITES).rglob("*.npz"))]
    sets = sorted(path.parent for path in (parcel / SETS).glob("*/meta.json"))
    if not paths and not sets and not (parcel / DATA).is_dir():
        raise ValueError(f"{parcel} is no parcel: it has no {DATA}/, {SPRITES}/ or {SETS}/")
    part = _begun(out)
    if (parcel / DATA).is_dir():
        shutil.copytree(parcel / DATA, part / DATA)
    for _ in in_parallel(partial(_restore_sprites, parcel / SPRITES, part / SPRITES, paths), len(paths), SPRITES):
        pass
    for _ in in_parallel(partial(_restore_set, sets, part / SETS), len(sets), SETS):
        pass
    part.rename(out)


def _begun(out: Path) -> Path:
    """A folder to work in that takes the place of `out` once all is there."""
    if out.exists():
        raise FileExistsError(f"{out} is there already: remove it, or give another --out")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def _squeezed(images: Sequence[np.ndarray], quality: int) -> dict[str, Any]:
    """Images uint8 [h, w, 3 or 4], each of its own size, as WebP, one behind the other, and where each ends.

    Channels keep their order, which OpenCV takes for another one.
    """
    files = [cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])[1] for image in images]
    return {
        "webp": np.concatenate(files) if files else np.zeros(0, np.uint8),
        "ends": np.cumsum([len(file) for file in files], dtype=np.int64),
    }


@contextmanager
def _held_in(file: Path) -> Iterator[Mapping[str, np.ndarray]]:
    """What `numpy.savez` wrote; a ValueError where it, or an image in it, cannot be read."""
    try:
        with np.load(file) as held:
            yield held
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile, cv2.error) as error:
        raise ValueError(f"{file} is damaged ({' '.join(str(error).split())[:80]}): send it again") from None


def _restored(squeezed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    webp, ends = squeezed["webp"], squeezed["ends"]
    images = [cv2.imdecode(file, cv2.IMREAD_UNCHANGED) for file in np.split(webp, ends[:-1])] if len(ends) else []
    whole = [image for image in images if image is not None]
    if len(whole) < len(images):
        raise ValueError("an image cannot be read")
    return whole


def _squeeze_sprites(source: Path, target: Path, paths: Sequence[Path], quality: int, job: int) -> None:
    with np.load(source / paths[job]) as views:
        held = {"drawn": views["drawn"], "shape": np.array(views["sprites"].shape), **_squeezed(views["sprites"], quality)}
    (target / paths[job]).parent.mkdir(parents=True, exist_ok=True)
    np.savez(target / paths[job], **held)


def _restore_sprites(source: Path, target: Path, paths: Sequence[Path], job: int) -> None:
    with _held_in(source / paths[job]) as held:
        sprites = np.array([_with_alpha(image) for image in _restored(held)], np.uint8).reshape(held["shape"])
        (target / paths[job]).parent.mkdir(parents=True, exist_ok=True)
        np.savez(target / paths[job], sprites=sprites, drawn=held["drawn"])


def _with_alpha(image: np.ndarray) -> np.ndarray:
    """Of one that is opaque all over WebP keeps no alpha."""
    return image if image.shape[2] == 4 else np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])


def _restore_set(sets: Sequence[Path], target: Path, job: int) -> None:
    folder = target / sets[job].name
    folder.mkdir(parents=True)
    meta = json.loads((sets[job] / "meta.json").read_text())
    with _held_in(sets[job] / "scenes.npz") as held:
        np.save(folder / "images.npy", np.array(_restored(held), np.uint8))
        for name in meta["shapes"]:
            if name != "images":
                np.save(folder / f"{name}.npy", held[name])
    meta["sha256"] = {name: file_sha256(folder / f"{name}.npy") for name in meta["shapes"]}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    PackedScenes(folder)  # its arrays have the sizes that are written down


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.parcel", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write a parcel, a folder")
    packing.add_argument("--data", type=Path, help="the raw material: a folder with fruits/, objects/ and textures/")
    packing.add_argument("--sprites", type=Path, help="folder that training.prepare sprites filled")
    packing.add_argument("--packed", type=Path, nargs="+", default=[], help="sets of training.prepare or training.synthesize")
    packing.add_argument("--splits", nargs="+", default=["train"], choices=SPLITS, help="of fruits and textures (default: train)")
    packing.add_argument("--quality", type=int, default=QUALITY, help="of WebP, 1..100 (default: %(default)s)")
    unpacking = commands.add_parser("unpack", help="make data/, sprites/ and sets/ of it, which training reads")
    unpacking.add_argument("parcel", type=Path)
    for command in (packing, unpacking):
        command.add_argument("--out", type=Path, required=True, help="the folder to be")
    args = parser.parse_args()
    try:
        if args.command == "unpack":
            unpack(args.parcel, args.out)
        elif args.data or args.sprites or args.packed:
            pack(args.out, args.data, args.sprites, args.packed, args.splits, args.quality)
        else:
            raise ValueError("give --data, --sprites or --packed: what is to go along")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command begins anew")
    print(f"{args.out}: {size_of(args.out) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

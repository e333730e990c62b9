# SPDX-License-Identifier: Apache-2.0
"""Packed sets of generated scenes: composites of cut-outs, renders of meshes, and three stand-ins for the papers' sets."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from training.data.composites import PER_SHARD, composite_shard
from training.data.compositor import SET_COMPOSITES, Compositor
from training.data.furniture import read_furniture
from training.data.meshes import Model, read_own_meshes
from training.data.objects import read_scan, read_split
from training.data.packed import PackedScenes, fingerprint, pack
from training.data.readers.paper_sets import PAPER_SETS
from training.data.renders import MUVA, Families, RenderSettings, render_table
from training.data.scene import SPLITS
from training.data.sprites import Material, compact_furniture, load_material, read_textures

MINIS = {"afruit-mini": ("intra_afruit", "fruits"), "acom-mini": ("acom", "objects"), "muva-mini": ("muva", None)}


RECIPE = 2  # of renders; sets of one recipe are not gone on with by another


def composite_set(
    out: Path, material: Material, split: str, count: int, seed: int, image_size: int, mixed: bool, stratified: bool
) -> PackedScenes:
    """`count` composites; see `SET_COMPOSITES`.

    Args:
        out: the set to be.
        material: what it is made of.
        split: what it is for; splits of one seed are different scenes.
        count: images.
        seed: of everything that is drawn.
        image_size: side of the images, pixels.
        mixed: several classes in a scene; else each scene is of one class.
        stratified: as many images of each depth.

    Raises:
        OSError, ValueError: see `pack`.
    """
    settings = replace(SET_COMPOSITES, image_size=image_size, same_class=0.0 if mixed else 1.0)
    depths = list(range(1, settings.max_layers + 1)) if stratified else []
    about = {"split": split, "images": count, "depths": depths, "seed": seed, "settings": asdict(settings)}
    about["made_from"] = fingerprint(material.sprites, material.textures)
    work = partial(composite_shard, Compositor(material, settings), seed_of(seed, split), count, depths)
    return pack(out, about, work, -(-count // PER_SHARD))


def scanned_set(
    out: Path,
    data: Path,
    split: str,
    settings: RenderSettings,
    tables: int,
    seed: int,
    furniture: tuple[Path, Path] | None = None,
    enough: int | None = None,
) -> PackedScenes:
    """Renders of the scanned objects of a split, and, for training, of compact furniture.

    Args:
        data: folder with objects/ and textures/.
        split: of the objects; splits of one seed are different scenes.
        furniture: folders of the models and of their sprites, which tell those that are compact.
        out, settings, tables, seed, enough: see `render_set`.

    Raises:
        OSError, ValueError: see `pack`; or the split has no objects.
    """
    scanned = [name for name, its_split in read_split(data / "objects").items() if its_split == split]
    if not scanned:
        raise ValueError(f"no object of {data / 'objects'} is for {split}")
    families: dict[str, dict[str, Callable[[], Model]]] = {
        "objects": {name: partial(read_scan, data / "objects" / f"{name}.npz") for name in scanned}
    }
    if split == "train" and furniture:
        compact = compact_furniture(*furniture)
        families["furniture"] = {name: partial(read_furniture, *source) for name, source in compact.items()}
    textures = read_textures(data / "textures" / split)
    names = {family: sorted(models) for family, models in families.items()}
    made_from = fingerprint(data.resolve(), names, textures)
    return render_set(out, families, textures, made_from, split, settings, tables, seed, enough)


def mesh_set(
    out: Path, meshes: Path, textures: Path, split: str, settings: RenderSettings, tables: int, seed: int
) -> PackedScenes:
    """Renders of one's own meshes on one's own textures; see `read_own_meshes` and `render_set`."""
    models, pictures = read_own_meshes(meshes), read_textures(textures)
    families = {"meshes": {name: partial(_as_it_is, model) for name, model in models.items()}}
    parts = [[vars(part) for part in models[name].parts] for name in sorted(models)]
    made_from = fingerprint(sorted(models), parts, pictures)
    return render_set(out, families, pictures, made_from, split, settings, tables, seed)


def _as_it_is(model: Model) -> Model:
    return model


def render_set(
    out: Path,
    families: Families,
    textures: list[np.ndarray],
    made_from: str,
    split: str,
    settings: RenderSettings,
    tables: int,
    seed: int,
    enough: int | None = None,
) -> PackedScenes:
    """Views of objects that fell on tables, into bins or onto shelves.

    Args:
        out: the set to be.
        families, textures: see `render_table`.
        made_from: a fingerprint of both.
        split: what it is for; splits of one seed are different scenes.
        settings: see `RenderSettings`.
        tables: how many are set up, of about `scenes` times `views` images each.
        seed: of everything that is drawn.
        enough: stop once so many images are there.

    Raises:
        OSError, ValueError: see `pack`.
    """
    about = {"recipe": RECIPE, "split": split, "tables": tables, "seed": seed, "settings": asdict(settings)}
    about |= {"made_from": made_from} | ({"images": enough} if enough else {})
    return pack(out, about, partial(render_table, families, textures, settings, seed_of(seed, split)), tables, enough)


def mini_sets(
    out: Path, data: Path, sprites: Path, share: float, stratified: int, seed: int, image_size: int
) -> Iterator[PackedScenes]:
    """`afruit-mini`, `acom-mini` and `muva-mini`, each as a folder of its splits, as they are made.

    They are stand-ins: fruits and scanned objects of the raw material, made by the recipes of Intra-AFruit, ACom and MUVA.
    Objects, and so scenes, of one split are in no other, but for fruits, whose test split is of other views of seen ones; whole
    fruit classes are kept out in `unseen`, which lie on the textures of the test split.

    Args:
        out: folder of the three.
        data: the raw material.
        sprites: folder that training.prepare sprites filled.
        share: of the papers' numbers of images; `val` and `unseen` have as many as `test`.
        stratified: images of each depth in `test-stratified`, a second test set of composites.
        seed, image_size: see `composite_set`.
    """
    for name, (dataset, family) in MINIS.items():
        paper = PAPER_SETS[dataset]
        for split in SPLITS if family == "fruits" else SPLITS[:3]:  # other classes than those of training are of fruits alone
            count = max(1, round(share * (paper.train if split == "train" else paper.test)))
            if family is not None:
                material = load_material(data, sprites, split, family)
                yield composite_set(out / name / split, material, split, count, seed, image_size, False, False)
                continue
            settings = replace(MUVA, image_size=image_size)
            # some views break a rule: more are planned than are needed, and it stops once there are enough
            tables = -(-2 * count // (settings.scenes * settings.views))
            packed = scanned_set(out / name / split, data, split, settings, tables, seed, enough=count)
            if len(packed) < count:
                print(f"{packed.folder}: {len(packed)} images, not {count}, as more views than planned broke a rule")
            yield packed
        if family is not None:
            material = load_material(data, sprites, "test", family)
            yield composite_set(out / name / "test-stratified", material, "test", 5 * stratified, seed, image_size, False, True)


def seed_of(seed: int, split: str) -> list[int]:
    """Of a set: splits of one seed are different scenes."""
    return [seed, zlib.crc32(split.encode())]

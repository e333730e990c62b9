# SPDX-License-Identifier: Apache-2.0
"""Datasets in COCO's style, their keys told by a map: Intra-AFruit, ACOM, MUVA, COCOA, KINS, or one's own."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seqamodal_ros.scene.image_files import read_image
from training.data.readers.annotated import Annotated, Load
from training.data.readers.masks import read_mask
from training.data.scene import Rejected


@dataclass(frozen=True)
class KeyMap:
    """Where a dataset keeps what is needed, within an annotation.

    Attributes:
        amodal: key of the amodal mask.
        visible: key of the visible mask, or None. An annotation without it is one that nothing occludes.
        layer: key of the layer, or None.
        layer_base: what the dataset calls the layer that nothing occludes, 0 or 1.
        order: key of a rank, lower in front, or None.
        regions: the annotations of an image are a list under this key of one annotation (COCOA), or None.
        verified: whether a public description of the format was at hand.
    """

    amodal: str = "segmentation"
    visible: str | None = None
    layer: str | None = None
    layer_base: int = 0
    order: str | None = None
    regions: str | None = None
    verified: bool = True


# The first three are behind forms or a drive, their keys unpublished: the papers say "COCO style", layer order from 0.
PRESETS: Mapping[str, KeyMap] = {
    "intra_afruit": KeyMap(layer="layer", verified=False),
    "acom": KeyMap(layer="layer", verified=False),
    "muva": KeyMap(amodal="amodal_mask", visible="visible_mask", verified=False),
    "cocoa": KeyMap(order="order", regions="regions"),
    "kins": KeyMap(amodal="a_segm", visible="i_segm"),
}


def read_coco(annotations: Path, images: Path, keys: KeyMap) -> dict[str, Load]:
    """Every image of a file, by name: what reads it and its objects, or raises `Rejected`.

    Args:
        annotations: JSON with "images" (id, file_name, and height and width, if any, which the image must have) and
            "annotations" (image_id, and what `keys` names).
        images: the folder of the images, and of masks that are PNG files.
        keys: where the masks are.

    Raises:
        ValueError: not such a file, or a key of the map is in no annotation; the message lists the keys that are.
    """
    try:
        content = json.loads(annotations.read_text())
        listed, entries = content["images"], content["annotations"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{annotations} is not COCO-style JSON with "images" and "annotations": {error}') from None
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for entry in entries:
        regions = [entry] if keys.regions is None else _of(entry, keys.regions, annotations)
        by_image.setdefault(_hashable(entry, "image_id", annotations), []).extend(regions)
    _check_keys([region for regions in by_image.values() for region in regions], keys, annotations)
    for key in ("id", "file_name"):
        if twice := [
            value for value, count in Counter(_hashable(image, key, annotations) for image in listed).items() if count > 1
        ]:
            raise ValueError(f"{annotations} lists {key} {twice[0]} more than once: give each image one entry")
    names = {image["id"]: str(image["file_name"]) for image in listed}
    if strays := sorted(map(str, by_image.keys() - names.keys())):
        raise ValueError(f"{annotations}: annotations of {len(strays)} images that it does not list, {strays[0]} the first")
    # as text again, which takes a tenth of the memory: every process that reads images holds all of it
    regions_of = {name: json.dumps(by_image.pop(number, [])).encode() for number, name in names.items()}
    sizes = {str(image["file_name"]): _listed_size(image) for image in listed}
    return {name: partial(_annotated, images / name, regions_of[name], keys, images, sizes[name]) for name in sorted(regions_of)}


def _check_keys(regions: list[dict[str, Any]], keys: KeyMap, file: Path) -> None:
    seen = sorted({key for region in regions for key in region})
    for role in ("amodal", "visible", "layer", "order"):
        key = getattr(keys, role)
        if key is not None and regions and key not in seen:
            raise ValueError(
                f"{file}: no annotation has the key {key!r}; they have {', '.join(seen)}. Give the right one by --key {role}=KEY"
            )


def _annotated(path: Path, regions: bytes, keys: KeyMap, folder: Path, size: tuple[int, int] | None) -> Annotated:
    try:
        image = read_image(path)
    except OSError:
        raise Rejected("missing or damaged image") from None
    height, width = image.shape[:2]
    if size not in (None, (height, width)):  # polygons of it would be drawn in the wrong place
        raise Rejected("image of another size than its file of annotations says")
    things = [region for region in json.loads(regions) if not region.get("isStuff") and not region.get("iscrowd")]
    if not things:
        raise Rejected("no object")
    try:
        amodal = np.array([read_mask(_of(thing, keys.amodal, path), height, width, folder) for thing in things])
        visible = None
        if keys.visible is not None:
            each = zip(amodal, things, strict=True)
            visible = np.array([read_mask(t[keys.visible], height, width, folder) if keys.visible in t else a for a, t in each])
        layers, order = _numbers(things, keys.layer, path, 1 - keys.layer_base), _numbers(things, keys.order, path)
    except (TypeError, ValueError) as error:
        raise ValueError(f"annotations of {path}: {error}") from error
    if layers is not None and layers.min() > 1:
        raise Rejected(f"no object in layer {keys.layer_base}, which is to be the first (--key layer_base)")
    return Annotated(image, amodal, visible, layers, order)


def _listed_size(image: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width, where the file says them."""
    height, width = image.get("height"), image.get("width")
    return None if height is None or width is None else (int(height), int(width))


def _numbers(things: list[dict[str, Any]], key: str | None, where: Path, add: int = 0) -> np.ndarray | None:
    if key is None:
        return None
    written = [_of(thing, key, where) for thing in things]
    try:
        return np.array([int(value) + add for value in written])
    except (TypeError, ValueError):
        raise ValueError(f"{key!r} must be a whole number, not one of {written[:5]}") from None


def _hashable(entry: dict[str, Any], key: str, where: Path) -> int | str:
    value = _of(entry, key, where)
    if not isinstance(value, (int, str)):
        raise ValueError(f"{where}: {key} must be a number or a name, not {value!r}")
    return value


def _of(entry: dict[str, Any], key: str, where: Path) -> Any:
    if key not in entry:
        raise ValueError(f"{where}: an entry lacks the key {key!r}; it has {', '.join(sorted(entry))}")
    return entry[key]

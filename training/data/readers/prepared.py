# SPDX-License-Identifier: Apache-2.0
"""The authors' prepared folders: ``<image>_<layer>/{image,mask,newmask}.png``, layers from 0, the last one blank."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from seqamodal_ros.scene.image_files import read_image
from training.data.readers.annotated import Annotated, Load
from training.data.readers.masks import png_mask
from training.data.scene import Rejected


def read_prepared(folder: Path) -> dict[str, Load]:
    """Every image, by name: what reads it and its layers, or raises `Rejected`.

    Each layer's mask counts as one object, as the folders tell no objects apart.

    Raises:
        ValueError: there is no such folder in `folder`.
    """
    layers: dict[str, list[int]] = {}
    for path in folder.iterdir():
        named = re.fullmatch(r"(.+)_(\d+)", path.name)
        if path.is_dir() and named:
            layers.setdefault(named[1], []).append(int(named[2]))
    if not layers:
        raise ValueError(f"{folder} holds no folder named <image>_<layer>")
    return {name: partial(_scene, folder, name, sorted(layers[name])) for name in sorted(layers)}


def _scene(folder: Path, name: str, layers: list[int]) -> Annotated:
    if layers != list(range(len(layers))):
        raise Rejected("a layer is missing")
    try:
        image = read_image(folder / f"{name}_0" / "image.png")
    except OSError:
        raise Rejected("missing image") from None
    masks = [_mask(folder / f"{name}_{layer}" / "mask.png", image) for layer in layers]
    while masks and not masks[-1].any():  # layer N + 1
        masks.pop()
    if not masks:
        raise Rejected("no object")
    if not all(mask.any() for mask in masks):
        raise Rejected("a layer is missing")
    return Annotated(image, np.array(masks), layers=np.arange(1, len(masks) + 1))


def _mask(path: Path, image: np.ndarray) -> np.ndarray:
    mask = png_mask(path)
    if mask.shape != image.shape[:2]:
        raise Rejected("mask of another size than its image")
    return mask

# SPDX-License-Identifier: Apache-2.0
"""The authors' prepared folders: ``<image>_<layer>/{image,mask,newmask}.png``, layers from 0, the last one blank."""

import re
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from seqamodal_ros.scene.image_files import read_image
from training.data.readers.annotated import Annotated, Load
from training.data.readers.masks import png_mask
from training.data.scene import Rejected

SPECK = 0.005  # of the square of the image's longer side: twice what an object has to show in a mask of 64x64


def read_prepared(folder: Path) -> dict[str, Load]:
    """Every image, by name: what reads it and its layers, or raises `Rejected`.

    The folders tell no objects apart: each connected part of a layer counts as one, so what touches in a layer is one object.

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
        raise Rejected("missing or damaged image") from None
    masks = [_mask(folder / f"{name}_{layer}" / "mask.png", image) for layer in layers]
    while masks and not masks[-1].any():  # layer N + 1
        masks.pop()
    if not masks:
        raise Rejected("no object")
    if not all(mask.any() for mask in masks):
        raise Rejected("a layer is missing")
    parts = [_parts(mask) for mask in masks]
    layers_of_parts = np.repeat(np.arange(1, len(parts) + 1), [len(each) for each in parts])
    return Annotated(image, np.concatenate(parts), layers=layers_of_parts)


def _parts(mask: np.ndarray) -> np.ndarray:
    """8-connected parts of bool [H, W]: bool [n, H, W]; those of less than `SPECK` of the square are the nearest larger one's."""
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    large = np.flatnonzero(areas >= min(SPECK * max(mask.shape) ** 2, areas.max()))
    nearest = np.linalg.norm(centroids[1:count, None] - centroids[1:count][None, large], axis=2).argmin(axis=1)
    nearest[large] = np.arange(len(large))  # a disc and the ring around it have one centre
    owner = np.concatenate([[-1], nearest])[labels]
    return np.array([owner == k for k in range(len(large))])


def _mask(path: Path, image: np.ndarray) -> np.ndarray:
    mask = png_mask(path)
    if mask.shape != image.shape[:2]:
        raise Rejected("mask of another size than its image")
    return mask

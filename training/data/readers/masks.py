# SPDX-License-Identifier: Apache-2.0
"""Masks as COCO-style files write them: polygons, run lengths (compressed and plain) and PNG files."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco

from training.data.scene import Rejected

FAR = 10  # sides of the image: no polygon reaches so far


def read_mask(written: Any, height: int, width: int, folder: Path) -> np.ndarray:
    """bool [height, width].

    Args:
        written: a flat polygon [x, y, x, y, ...] or a list of them, pixels; run lengths {"size": [h, w], "counts": str or
            list}; or the name of a PNG under `folder`, whose non-zero pixels are the mask.
        height, width: of the image.
        folder: where PNG files are looked up.

    Raises:
        Rejected: it is empty, lies outside the image, or is of another size.
        ValueError: none of these.
    """
    if isinstance(written, str):
        mask = png_mask(folder / written)
    elif isinstance(written, dict) and {"counts", "size"} <= set(written):
        mask = _runs(written, height, width)
    elif isinstance(written, list):
        mask = _polygons(written, height, width)
    else:
        raise ValueError(f"a mask is a polygon, run lengths or the name of a PNG, not {str(written)[:60]!r}")
    if mask.shape != (height, width):
        raise Rejected("mask of another size than its image")
    if not mask.any():
        raise Rejected("empty mask")
    return mask


def _runs(written: dict[str, Any], height: int, width: int) -> np.ndarray:
    if list(written["size"]) != [height, width]:  # before anything is made of that size
        raise Rejected("mask of another size than its image")
    if isinstance(written["counts"], list):
        if not all(isinstance(count, int) and count >= 0 for count in written["counts"]):
            raise Rejected("run lengths that are no numbers")
        if sum(written["counts"]) != height * width:
            raise Rejected("run lengths that do not cover the image")
        written = coco.frPyObjects(written, *written["size"])
    try:
        return coco.decode(written).astype(bool)
    except ValueError:
        raise Rejected("run lengths that do not cover the image") from None


def png_mask(path: Path) -> np.ndarray:
    """bool [h, w], the non-zero pixels of a PNG; `Rejected` where there is none. It may be blank."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if image is None:
        raise Rejected("missing mask file")
    return image.reshape(*image.shape[:2], -1)[..., :3].any(axis=2)  # alpha is no mask


def _polygons(written: list[Any], height: int, width: int) -> np.ndarray:
    polygons = written if written and isinstance(written[0], list) else [written]
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise Rejected("empty polygon")
    try:
        points = np.concatenate([np.array(polygon, float).reshape(-1, 2) for polygon in polygons])
    except (TypeError, ValueError):
        raise Rejected("polygon of something else than numbers") from None
    # what lies far outside, and NaN, would have pycocotools take all memory
    if not (np.abs(points) <= FAR * max(height, width)).all():
        raise Rejected("mask outside the image")
    if (points.max(axis=0) <= 0).any() or (points.min(axis=0) >= (width, height)).any():
        raise Rejected("mask outside the image")
    return coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))).astype(bool)

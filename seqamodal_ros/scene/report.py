# SPDX-License-Identifier: Apache-2.0
"""A scene as plain numbers: what ``layers.json`` holds of one frame, and its line on the screen."""

import math
from typing import Any

import cv2
import numpy as np

from seqamodal_ros.scene.scene import LayeredScene, SceneObject
from seqamodal_ros.scene.status import Status, status_of

COLUMNS = f"{'frame':<16} {'layers':>6} {'objects':>7} {'seconds':>7}  pick order"


def layers_json(scene: LayeredScene) -> dict[str, Any]:
    """The scene without its pixels, as strict JSON: `json.dumps(..., allow_nan=False)` takes it; NaN becomes null.

    Returns:
        source, mask: width and height in pixels; affine: mask column or row to source pixel, see `Geometry.affine`;
        layers: index, agreement and pixels (of the amodal mask) of each; objects: see `SceneObject`, with the box
        x, y, width, height of the amodal mask in source pixels, clipped to the source; pick_order;
        status and status_message: as a LayeredMasks message has them, the status by its name; truncated; doubt: see
        `LayeredScene`; seconds; num_samples; seed.
    """
    mask_height, mask_width = scene.amodal.shape[1:]
    status, why = status_of(scene)
    affine = zip(("scale_x", "scale_y", "offset_x", "offset_y"), scene.geometry.affine(mask_width), strict=True)
    return {
        "source": {"width": scene.geometry.width, "height": scene.geometry.height},
        "mask": {"width": mask_width, "height": mask_height},
        "affine": {name: float(value) for name, value in affine},
        "layers": [
            {"index": index, "agreement": _number(agreement), "pixels": int(mask.sum())}
            for index, (mask, agreement) in enumerate(zip(scene.amodal, scene.agreement, strict=True), start=1)
        ],
        "objects": [
            {
                "id": obj.id,
                "layer": obj.layer,
                "score": _number(obj.score),
                "visible_ratio": _number(obj.visible_ratio),
                "uncertainty": _number(obj.uncertainty),
                "occluded_by": list(obj.occluded_by),
                "box": dict(zip(("x", "y", "width", "height"), source_box(scene, obj), strict=True)),
            }
            for obj in scene.objects
        ],
        "pick_order": list(scene.pick_order),
        "status": status.name,
        "status_message": why,
        "truncated": bool(scene.truncated),
        "doubt": scene.doubt,
        "seconds": _number(scene.seconds),
        "num_samples": int(scene.num_samples),
        "seed": int(scene.seed),
    }


def source_box(scene: LayeredScene, obj: SceneObject) -> tuple[int, int, int, int]:
    """x, y, width, height of an object's amodal mask in source pixels, clipped to the source; never empty.

    Raises:
        ValueError: the mask is blank.
    """
    geometry = scene.geometry
    scale_x, scale_y, offset_x, offset_y = geometry.affine(obj.amodal.shape[1])
    left, top, width, height = cv2.boundingRect(obj.amodal.astype(np.uint8))
    if not width:
        raise ValueError(f"the mask of object {obj.id} is blank: there is no box around it")
    x = max(0, math.floor(offset_x + scale_x * left))
    y = max(0, math.floor(offset_y + scale_y * top))
    right = min(geometry.width, math.ceil(offset_x + scale_x * (left + width)))
    bottom = min(geometry.height, math.ceil(offset_y + scale_y * (top + height)))
    return x, y, right - x, bottom - y


def row(name: str, scene: LayeredScene) -> str:
    """One line for the screen, under `COLUMNS`."""
    picks = " ".join(map(str, scene.pick_order)) or "-"
    status, why = status_of(scene)
    remark = "" if status is Status.OK else f"  {status.name}: {why}"
    return f"{name:<16} {len(scene.amodal):>6} {len(scene.objects):>7} {scene.seconds:>7.2f}  {picks}{remark}"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

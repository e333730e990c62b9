# SPDX-License-Identifier: Apache-2.0
"""A scene as plain numbers: what ``layers.json`` holds of one frame, and its line on the screen."""

import math
from typing import Any

from seqamodal_ros.scene.scene import LayeredScene, SceneObject
from seqamodal_ros.scene.status import Status, status_of

COLUMNS = f"{'frame':<16} {'layers':>6} {'objects':>7} {'seconds':>7}  pick order"


def layers_json(scene: LayeredScene) -> dict[str, Any]:
    """The scene without its pixels, as strict JSON: `json.dumps(..., allow_nan=False)` takes it; NaN becomes null.

    docs/files.md has all of it for users.

    Returns:
        source, mask: width and height in pixels; seen: the box x, y, width, height of what of the source was looked at, in its
        pixels, as far as the scene knows (one out of a message takes the masks' square for it); affine: mask column or row to
        source pixel, see `Geometry.affine`;
        layers: index, agreement and pixels (of the amodal mask) of each; objects: see `SceneObject`, with the box
        x, y, width, height of the amodal mask in source pixels, clipped to the source; pick_order;
        status and status_message: as a LayeredMasks message has them, the status by its name; truncated; doubt: see
        `LayeredScene`; seconds; num_samples; seed.
    """
    mask_height, mask_width = scene.amodal.shape[1:]
    status, why = status_of(scene)
    left, top, right, bottom = scene.geometry.seen
    affine = zip(("scale_x", "scale_y", "offset_x", "offset_y"), scene.geometry.affine(mask_width), strict=True)
    return {
        "source": {"width": scene.geometry.width, "height": scene.geometry.height},
        "seen": {"x": float(left), "y": float(top), "width": float(right - left), "height": float(bottom - top)},
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
                "touches_border": bool(obj.touches_border),
                "occluded_by": list(obj.occluded_by),
                "occluder_shares": {str(other): share for other, share in scene.occluder_shares.get(obj.id, {}).items()},
                "box": _box(scene, obj),
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


def _box(scene: LayeredScene, obj: SceneObject) -> dict[str, int]:
    try:
        return dict(zip(("x", "y", "width", "height"), scene.geometry.box(obj.amodal), strict=True))
    except ValueError as error:  # only a message can hold a blank mask
        raise ValueError(f"object {obj.id}: {error}") from error


def row(name: str, scene: LayeredScene) -> str:
    """One line for the screen, under `COLUMNS`."""
    picks = " ".join(map(str, scene.pick_order)) or "-"
    status, why = status_of(scene)
    remark = "" if status is Status.OK else f"  {status.name}: {why}"
    return f"{name:<16} {len(scene.amodal):>6} {len(scene.objects):>7} {scene.seconds:>7.2f}  {picks}{remark}"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

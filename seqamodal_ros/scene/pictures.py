# SPDX-License-Identifier: Apache-2.0
"""Pictures of a layered scene: the overlay at source size and the contact sheet, layer by layer."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from seqamodal_ros.files import write_whole
from seqamodal_ros.scene.captions import CANNOT_TELL, layer_facts, ordinal, scene_facts
from seqamodal_ros.scene.geometry import Geometry, resized
from seqamodal_ros.scene.layers import visible_masks
from seqamodal_ros.scene.scene import LayeredScene, SceneObject
from seqamodal_ros.scene.status import Status, status_of

# Okabe and Ito's palette, told apart by the colour-blind too; the front layer first
LAYER_COLOURS = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (204, 121, 167),  # reddish purple
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
BACKGROUND, INK, FAINT, DARK = (38, 40, 44), (236, 236, 236), (160, 164, 170), (16, 17, 19)
PANEL_SIDE = 480  # longest side of a panel of the contact sheet, pixels
DIM = 0.4  # share of the light that is left where nobody looked
SPECK = 0.025  # side of the largest hole or speck without an outline, as a share of the picture's
GAP = 16
FONT = cv2.FONT_HERSHEY_SIMPLEX
LEVELS = np.arange(256)[:, None]  # grey levels, of a pixel: what is drawn over it is looked up

Colour = tuple[int, int, int]


def layer_colour(layer: int) -> Colour:
    """RGB of a layer (from 1); the palette starts again after its last colour."""
    return LAYER_COLOURS[(layer - 1) % len(LAYER_COLOURS)]


def overlay(image: np.ndarray, scene: LayeredScene) -> np.ndarray:
    """The image with each layer's outline, visible parts tinted, hidden parts hatched; badges give id and pick order.

    What of the image was not looked at is dimmed.

    Args:
        image: uint8 [H, W, 3] RGB, the one that the scene was seen in.
        scene: of L layers; L may be 0.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ValueError: image and scene differ in size.
    """
    check_size(image, scene)
    canvas = dimmed_outside(np.ascontiguousarray(image), scene.geometry)
    pen = _Pen.of(canvas)
    amodal = _source_masks(scene, scene.amodal)
    visible = visible_masks(amodal)
    for index in range(len(amodal)):
        _tint(canvas, visible[index], layer_colour(index + 1), 0.35)
        _hatch(canvas, amodal[index] & ~visible[index], index + 1, pen)
    for index in reversed(range(len(amodal))):
        _outlines(canvas, scene, index, amodal[index], pen)
    _badges(canvas, scene, scene.objects, pen)
    _legend(canvas, scene, pen)
    return canvas


def contact_sheet(image: np.ndarray, scene: LayeredScene, title: str) -> np.ndarray:
    """One sheet: the image, its overlay, and for each layer its amodal mask, hidden part hatched; with captions.

    Args:
        image: uint8 [H, W, 3] RGB, the one that the scene was seen in.
        scene: of L layers; with none the sheet says so.
        title: the sheet's headline, such as the file's name.

    Returns:
        uint8 [H', W', 3] RGB; the size depends on the image's shape and on L.

    Raises:
        ValueError: image and scene differ in size.
    """
    check_size(image, scene)
    facts = scene_facts(scene)
    image, scene = _resized(image, scene)
    panels = [(image, "image", "", INK), (overlay(image, scene), "overlay", _ordinals(scene.pick_order), INK)]
    amodal = _source_masks(scene, scene.amodal)
    visible = visible_masks(amodal)
    for index in range(len(amodal)):
        panel = _layer_panel(image, scene, index, amodal[index], visible[index])
        panels.append((panel, f"layer {index + 1}", "   ".join(layer_facts(scene, index)), layer_colour(index + 1)))
    status, why = status_of(scene)
    if not len(amodal):
        panels.append((_empty_panel(image, why), "no layers", "", FAINT))
    if status is Status.LOW_CONFIDENCE:
        facts.append(status.name)  # why would be too long
    return _arrange(panels, title, "   ".join(facts))


def write_image(path: Path | str, rgb: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB as the kind of image that the path's suffix names.

    Raises:
        OSError: it cannot be written there; the message says where and why.
    """
    path = Path(path)
    if not cv2.haveImageWriter(f"picture{path.suffix}"):  # of the name itself, OpenCV takes UTF-8 alone
        raise OSError(f"cannot write {path}: OpenCV knows no such kind of image; use .png or .jpg")
    try:
        written, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    except cv2.error:  # some versions raise, some say that it is not written
        written = False
    if not written:
        size = f"{rgb.shape[1]}x{rgb.shape[0]}"
        raise OSError(f"cannot write {path}: OpenCV cannot encode {size} pixels; is there memory for it?")
    write_whole(path, data.tobytes())


def check_size(image: np.ndarray, scene: LayeredScene) -> None:
    """Raise ValueError unless an image is uint8 [H, W, 3] of the size that the scene was seen in."""
    expected = (scene.geometry.height, scene.geometry.width, 3)
    if image.shape != expected or image.dtype != np.uint8:
        raise ValueError(f"the image must be the scene's, uint8 {list(expected)}, not {image.dtype} {list(image.shape)}")


def dimmed_outside(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A copy of an image uint8 [H, W, 3] in which what was not looked at is darker."""
    if geometry.sees_all:  # as mostly: to dim takes nearly twice as long as to copy
        return image.copy()
    left, top, right, bottom = geometry.seen
    dim = cv2.convertScaleAbs(image, alpha=DIM)
    looked_at = slice(math.floor(top), math.ceil(bottom)), slice(math.floor(left), math.ceil(right))
    dim[looked_at] = image[looked_at]
    return dim


def roundest_spot(mask: np.ndarray) -> tuple[int, int]:
    """x, y of the pixel of a mask, bool [H, W], not blank, that lies farthest from its edge: where a badge stands best."""
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)


@dataclass(frozen=True)
class _Pen:
    """Sizes of what is drawn, from the canvas's: line width and hatch period in pixels, and the text's scale."""

    line: int
    period: int
    text: float

    @classmethod
    def of(cls, canvas: np.ndarray) -> "_Pen":
        unit = float(np.clip(min(canvas.shape[:2]) / 480, 0.5, 4))
        return cls(line=math.ceil(2 * unit), period=max(6, round(9 * unit)), text=0.5 * max(unit, 0.9))


def _source_masks(scene: LayeredScene, masks: np.ndarray) -> np.ndarray:
    """bool [L, H, W] at source size; what is visible is worked out there, so that parts meet without gaps."""
    size = (scene.geometry.height, scene.geometry.width)
    return np.array([scene.to_source(mask) for mask in masks], bool).reshape(-1, *size)


def _resized(image: np.ndarray, scene: LayeredScene) -> tuple[np.ndarray, LayeredScene]:
    """Image and scene at a panel's size, so that lines and text come out alike for every source."""
    geometry = scene.geometry.resized(PANEL_SIDE)
    shrinks = geometry.side < scene.geometry.side
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return resized(image, (geometry.width, geometry.height), interpolation), replace(scene, geometry=geometry)


def _layer_panel(image: np.ndarray, scene: LayeredScene, index: int, amodal: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """One layer alone: the image within its visible part, hatching over a plain colour where it is hidden."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    canvas = np.repeat((0.3 * grey + 24).astype(np.uint8), 3, axis=2)
    pen = _Pen.of(canvas)
    canvas[visible] = image[visible]
    colour = layer_colour(index + 1)
    _tint(canvas, visible, colour, 0.2)
    hidden = amodal & ~visible
    _tint(canvas, hidden, colour, 0.35)
    _hatch(canvas, hidden, index + 1, pen)
    _outlines(canvas, scene, index, amodal, pen)
    _badges(canvas, scene, [obj for obj in scene.objects if obj.layer == index + 1], pen)
    return canvas


def _empty_panel(image: np.ndarray, text: str) -> np.ndarray:
    canvas = np.full_like(image, 24)
    scale = 0.55
    text = _fitting(text, scale, canvas.shape[1] - 2 * GAP)
    if canvas.shape[0] >= 24:
        left = (canvas.shape[1] - _text_width(text, scale)) // 2
        _text(canvas, text, (left, canvas.shape[0] // 2 + 6), scale, FAINT)
    return canvas


def _ordinals(pick_order: tuple[int, ...]) -> str:
    return "pick order " + " ".join(map(str, pick_order)) if pick_order else ""


def _arrange(panels: list[tuple[np.ndarray, str, str, Colour]], title: str, summary: str) -> np.ndarray:
    """Panels (picture, caption, note, colour) in rows on the dark sheet, under a headline."""
    height, width = panels[0][0].shape[:2]
    cell = max(width, PANEL_SIDE * 3 // 4)  # room for the caption under a narrow panel
    columns = len(panels) if len(panels) <= 3 else min(4, -(-len(panels) // 2))
    rows = -(-len(panels) // columns)
    headline, caption = 52, 34
    sheet_height = headline + rows * (height + caption + GAP) + 28
    sheet_width = GAP + columns * (cell + GAP)
    sheet = np.full((sheet_height, sheet_width, 3), BACKGROUND, np.uint8)
    note_width = _text_width(summary, 0.5)
    _text(sheet, _fitting(title, 0.7, sheet_width - note_width - 3 * GAP, 2), (GAP, 34), 0.7, INK, 2)
    _text(sheet, summary, (sheet_width - GAP - note_width, 33), 0.5, FAINT)
    for index, (picture, name, note, colour) in enumerate(panels):
        x = GAP + index % columns * (cell + GAP)
        y = headline + index // columns * (height + caption + GAP)
        left = x + (cell - width) // 2
        sheet[y : y + height, left : left + width] = picture
        _text(sheet, name, (x, y + height + 22), 0.55, colour, 2)
        used = _text_width(name, 0.55, 2) + GAP
        note = _fitting(note, 0.48, cell - used)
        _text(sheet, note, (x + cell - _text_width(note, 0.48), y + height + 22), 0.48, FAINT)
    legend = "tinted: visible    hatched: hidden, completed    lines: objects    badge: object id, pick order"
    _text(sheet, _fitting(legend, 0.45, sheet_width - 2 * GAP), (GAP, sheet_height - 16), 0.45, FAINT)
    return sheet


def _tint(canvas: np.ndarray, mask: np.ndarray, colour: Colour, strength: float) -> None:
    if not mask.any():
        return
    table = ((1 - strength) * LEVELS + strength * np.array(colour)).round().astype(np.uint8)
    box = _box(mask)
    part = canvas[box].copy()  # in one piece, as OpenCV wants it
    cv2.copyTo(cv2.LUT(part, table[None]), mask[box].astype(np.uint8), part)
    canvas[box] = part


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns that a mask, not blank, reaches: mostly a small part of the picture."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def _hatch(canvas: np.ndarray, mask: np.ndarray, layer: int, pen: _Pen) -> None:
    """Diagonal lines in the mask, their edges softened; dark gaps keep them apart from a tint of any colour.

    The lines of one layer and the next cross, so that what is hidden twice shows both.
    """
    if not mask.any():
        return
    distance = np.abs(np.arange(pen.period) - pen.period / 2)
    ink = (0.22 * pen.period + 0.5 - distance).clip(0, 1)[:, None, None]
    of_phase = (ink * np.array(layer_colour(layer)) + (1 - ink) * (0.7 * LEVELS)).round().astype(np.uint8)
    box = _box(mask)
    rows, columns = np.nonzero(mask[box])
    part = canvas[box]
    phase = box[0].start + rows + (box[1].start + columns) * (1 if layer % 2 else -1)
    part[rows, columns] = of_phase[phase[:, None] % pen.period, part[rows, columns], np.arange(3)]


def _outlines(canvas: np.ndarray, scene: LayeredScene, index: int, amodal: np.ndarray, pen: _Pen) -> None:
    """The outline of a layer's objects, without its specks; where it has several also of each, which parts what touches."""
    colour = layer_colour(index + 1)
    masks = [obj.amodal for obj in scene.objects if obj.layer == index + 1]
    for mask in [*(masks if len(masks) > 1 else []), np.logical_or.reduce(masks) if masks else scene.amodal[index]]:
        box, soft = scene.geometry.reached_in_source(mask)
        if soft.size:
            _outline(canvas, (soft >= 0.5) & amodal[box], box, colour, pen)


def _outline(canvas: np.ndarray, mask: np.ndarray, box: tuple[slice, slice], colour: Colour, pen: _Pen) -> None:
    """The outline of a mask that fills a box of the canvas."""
    corner = (box[1].start, box[0].start)
    traced, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=corner)
    speck = (SPECK * min(canvas.shape[:2])) ** 2  # a ring round a hole of one mask pixel says nothing
    # to draw each pixel's step, softened, takes most of an overlay's time, and shows no more
    outlines = [cv2.approxPolyDP(outline, 0.5, True) for outline in traced if cv2.contourArea(outline) >= speck]
    cv2.drawContours(canvas, outlines, -1, DARK, pen.line + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, outlines, -1, colour, pen.line, cv2.LINE_AA)


def _badges(canvas: np.ndarray, scene: LayeredScene, objects: Iterable[SceneObject], pen: _Pen) -> None:
    """The id on the layer's colour and the pick order on dark, at the roundest spot of what is visible."""
    taken: list[tuple[int, int, int, int]] = []
    for obj in objects:
        for mask in (obj.visible, obj.amodal):
            (rows, columns), soft = scene.geometry.reached_in_source(mask)
            if (inside := soft >= 0.5).any():
                break
        else:
            continue
        x, y = roundest_spot(inside)
        name, order = str(obj.id), ordinal(scene.pick_order.index(obj.id) + 1)
        _badge(canvas, name, order, (columns.start + x, rows.start + y), layer_colour(obj.layer), pen, taken)


def _badge(
    canvas: np.ndarray,
    name: str,
    order: str,
    centre: tuple[int, int],
    colour: Colour,
    pen: _Pen,
    taken: list[tuple[int, int, int, int]],
) -> None:
    height = round(36 * pen.text)
    pad = round(10 * pen.text)
    split = _text_width(name, pen.text, 2) + 2 * pad
    width = split + _text_width(order, 0.85 * pen.text) + 2 * pad
    if width > canvas.shape[1] or height > canvas.shape[0]:
        return  # no room in so small a picture
    x = int(np.clip(centre[0] - width // 2, 0, canvas.shape[1] - width))
    y = int(np.clip(centre[1] - height // 2, 0, canvas.shape[0] - height))
    while any(abs(x - a) < (width + w) / 2 and abs(y - b) < height for a, b, w, _ in taken) and y + 2 * height < len(canvas):
        y += height + 2
    taken.append((x, y, width, height))
    cv2.rectangle(canvas, (x - 1, y - 1), (x + width, y + height), DARK, -1)
    cv2.rectangle(canvas, (x, y), (x + split - 1, y + height - 1), colour, -1)
    baseline = y + height - round(11 * pen.text)
    _text(canvas, name, (x + pad, baseline), pen.text, DARK, 2)
    _text(canvas, order, (x + split + pad, baseline), 0.85 * pen.text, INK)


def _legend(canvas: np.ndarray, scene: LayeredScene, pen: _Pen) -> None:
    """A swatch and a name for each layer, in the lower left corner; left out where the picture is too small for it."""
    layers = len(scene.amodal)
    names = [f"layer {n}" + (" (front)" if n == 1 else "") for n in range(1, layers + 1)]
    names = names or [CANNOT_TELL if scene.doubt else "no layers"]
    scale = 0.85 * pen.text
    row, pad = round(38 * scale), round(14 * scale)
    swatch = round(20 * scale) if layers else 0
    width = 2 * pad + swatch + (pad if layers else 0) + max(_text_width(name, scale) for name in names)
    height = row * len(names) + pad
    x, y = pad, canvas.shape[0] - pad - height
    if x + width > canvas.shape[1] or y < 0:
        return
    box = canvas[y : y + height, x : x + width]
    box[:] = (0.25 * box + 0.75 * np.array(DARK)).astype(np.uint8)
    for index, name in enumerate(names):
        top = y + pad // 2 + index * row
        if layers:
            corner = (x + pad, top + (row - swatch) // 2)
            cv2.rectangle(canvas, corner, (corner[0] + swatch - 1, corner[1] + swatch - 1), layer_colour(index + 1), -1)
        left = x + pad + (swatch + pad if layers else 0)
        _text(canvas, name, (left, top + row // 2 + round(11 * scale)), scale, INK)


def _text(canvas: np.ndarray, text: str, at: tuple[int, int], scale: float, colour: Colour, thickness: int = 1) -> None:
    cv2.putText(canvas, _printable(text), at, FONT, scale, colour, thickness, cv2.LINE_AA)


def _text_width(text: str, scale: float, thickness: int = 1) -> int:
    return cv2.getTextSize(_printable(text), FONT, scale, thickness)[0][0]


def _printable(text: str) -> str:
    """The text without what is no UTF-8, as a file's name may hold: OpenCV would end the process by a segmentation fault."""
    return text.encode("utf-8", "replace").decode()


def _fitting(text: str, scale: float, width: int, thickness: int = 1) -> str:
    """The text, its end cut where it is wider than `width` pixels."""
    if _text_width(text, scale, thickness) <= width:
        return text
    while text and _text_width(text + "...", scale, thickness) > width:
        text = text[:-1]
    return text + "..." if text else ""

# SPDX-License-Identifier: Apache-2.0
"""One frame of the picture page as HTML: the image, its masks as outlines over it, two sliders, the objects."""

import base64
import math
from html import escape

import cv2
import numpy as np

from seqamodal_ros.scene.captions import layer_facts, ordinal, scene_facts
from seqamodal_ros.scene.layers import cumulative_masks
from seqamodal_ros.scene.picking import BRACKETS, occluders, under
from seqamodal_ros.scene.pictures import check_size, dimmed_outside, layer_colour, roundest_spot
from seqamodal_ros.scene.scene import LayeredScene, SceneObject
from seqamodal_ros.scene.status import Status, status_of

LONGEST = 1280  # pixels of the image's longer side on the page; a longer one is made smaller
QUALITY = 82  # of its JPEG
TRACED = 640  # units of the drawing's longer side, in which outlines have whole coordinates
TOLERANCE = 0.75  # of an outline, in the same units: less than a tenth of the pixel of a mask of 64
HEADINGS = ("Object", "Layer", "Score", "Visible", "Uncer&shy;tainty", "Occluded by", "Pick")


def frame_html(number: int, name: str, image: np.ndarray, scene: LayeredScene) -> str:
    """The section of one frame.

    Args:
        number: of the frame on its page, from 1; ids in the HTML start with it.
        name: the frame's headline, such as the file's name; any text.
        image: uint8 [H, W, 3] RGB, the one that the scene was seen in.
        scene: of L layers; with none the section says so.

    Raises:
        ValueError: image and scene differ in size.
    """
    check_size(image, scene)
    words = [f"{scene.geometry.width} × {scene.geometry.height}", *scene_facts(scene), f"seed {scene.seed}"]
    facts = " · ".join(fact.replace(" ", "&nbsp;") for fact in words)
    status, why = status_of(scene)
    caution = f'\n<p class="caution">{status.name}: {escape(why)}</p>' if status is Status.LOW_CONFIDENCE else ""
    key = f"frame-{number}"
    if len(scene.amodal):
        drawing = _Drawing(key, scene)
        over, controls, beside = drawing.html(), _controls(key, scene), _objects(scene)
        caption = drawing.caption
    else:
        over, controls = "", ""
        said = escape(why)
        caption = f"{said[0].upper()}{said[1:]}{'' if said.endswith('?') else '.'}"
        beside = f'<p class="nothing">{caption}</p>'
    return f"""<article class="frame" id="{key}" aria-labelledby="{key}-name">
<h2 id="{key}-name">{escape(name)}</h2>
<p class="facts">{facts}</p>{caution}
<div class="columns">
<figure>
<div class="picture" style="--aspect: {scene.geometry.width / scene.geometry.height:.4f}">
{_image(name, image, scene)}
{over}
</div>
<figcaption aria-live="polite">{caption}</figcaption>
</figure>
<div class="beside">
{controls}
{beside}
</div>
</div>
</article>
"""


class _Drawing:
    """The masks of a scene as SVG over its image: each selected mask, hypothesis and object is a group of its own."""

    def __init__(self, key: str, scene: LayeredScene) -> None:
        self.key = key
        self.scene = scene
        self.in_front = cumulative_masks(scene.amodal)
        self.geometry = scene.geometry.resized(TRACED)
        self.caption = "All layers: the selected mask of each, front ones over back ones."
        self._traced: dict[bytes, tuple[str, str]] = {}  # a mask's bytes -> the id and the data of its outline

    def html(self) -> str:
        # from back to front, as what comes last lies on top
        groups = [self._layer(index) for index in reversed(range(len(self.scene.amodal)))]
        groups += [self._object(obj) for obj in self.scene.objects]
        clips = self._clips()
        paths = "".join(f'<path id="{name}" d="{outline}"/>' for name, outline in self._traced.values())
        badges = "\n".join(self._badge(obj) for obj in reversed(self.scene.objects))
        size = f"{self.geometry.width} {self.geometry.height}"
        # outlines run through the middle of pixels, so the drawing is moved by half of one
        return f"""<svg viewBox="0 0 {size}" preserveAspectRatio="none" aria-hidden="true" data-caption="{self.caption}">
<defs>{paths}{clips}</defs>
<g transform="translate(.5 .5)"><path class="shade" data-frame="{self._frame()}" d=""/>
{"".join(groups)}</g></svg>
{badges}"""

    def _frame(self) -> str:
        return f"M-1-1H{self.geometry.width}V{self.geometry.height}H-1z"

    def _path(self, mask: np.ndarray) -> str:
        """The id of a mask's outline; traced once, as a selected mask is mostly a hypothesis too, and often an object."""
        key = mask.tobytes()
        if key not in self._traced:
            self._traced[key] = (f"{self.key}-path-{len(self._traced)}", svg_outline(self.geometry.to_source(mask)))
        return self._traced[key][0]

    def _clips(self) -> str:
        """For each layer but the first, two clips: what lies in front of it, and the rest of the picture."""
        clips = ""
        front = np.zeros((self.geometry.height, self.geometry.width), bool)
        for layer, mask in enumerate(self.scene.amodal[:-1], start=2):
            front |= self.geometry.to_source(mask)
            outline = svg_outline(front)
            clips += f'<clipPath id="{self.key}-front-{layer}"><path d="{outline}"/></clipPath>'
            clips += f'<clipPath id="{self.key}-free-{layer}"><path d="{self._frame()}{outline}"/></clipPath>'
        return clips

    def _layer(self, index: int) -> str:
        name = f"Layer {index + 1} of {len(self.scene.amodal)}"
        selected = self.scene.amodal[index]
        caption = f"{name}, the selected mask: {', '.join(layer_facts(self.scene, index))}."
        groups = [self._group(selected, index + 1, f'data-layer="{index + 1}" data-sample="0"', caption, shown=True)]
        for sample, mask in enumerate(self.scene.hypotheses[index], start=1):
            about = _about_hypothesis(mask, selected, self.in_front[index])
            caption = f"{name}, hypothesis {sample} of {self.scene.num_samples}: {about}."
            groups.append(self._group(mask, index + 1, f'data-layer="{index + 1}" data-sample="{sample}"', caption))
        return "".join(groups)

    def _object(self, obj: SceneObject) -> str:
        facts = [f"layer {obj.layer}", f"score {_number(obj.score)}", f"{_share(obj.visible_ratio)} visible"]
        pick = f"to be picked {ordinal(self.scene.pick_order.index(obj.id) + 1)}"
        lies = under(obj, self.scene.occluder_shares.get(obj.id, {}))
        caption = f"Object {obj.id}: {', '.join([*facts, lies, pick])}."
        return self._group(obj.amodal, obj.layer, f'data-object="{obj.id}"', caption)

    def _group(self, mask: np.ndarray, layer: int, marks: str, caption: str, shown: bool = False) -> str:
        """A mask with its outline: tinted where it is visible, hatched where it is hidden."""
        path = f'<use href="#{self._path(mask)}"'
        clip, hatch = "", ""
        if layer > 1:
            clip = f' clip-path="url(#{self.key}-free-{layer})"'
            hatch = f'{path} class="hatch" fill="url(#hatch-{layer})" clip-path="url(#{self.key}-front-{layer})"/>'
        return (
            f'<g class="mask{" shown" * shown}" {marks} data-caption="{caption}" color="{css_colour(layer)}">'
            f'{path} class="tint"{clip}/>{hatch}{path} class="casing"/>{path} class="outline"/></g>\n'
        )

    def _badge(self, obj: SceneObject) -> str:
        """The id and the pick order; a mouse may click it, the keyboard has the table's buttons."""
        x, y = roundest_spot(obj.visible if obj.visible.any() else obj.amodal)
        source = self.scene.geometry
        scale_x, scale_y, offset_x, offset_y = source.affine(obj.amodal.shape[1])
        left, top = (offset_x + scale_x * (x + 0.5)) / source.width, (offset_y + scale_y * (y + 0.5)) / source.height
        left, top = (min(max(0.0, share), 1.0) for share in (left, top))  # a thin image has a mask pixel in part
        order = ordinal(self.scene.pick_order.index(obj.id) + 1)
        return (
            f'<span class="badge" aria-hidden="true" data-object="{obj.id}" data-layer="{obj.layer}" '
            f'style="left: {left:.2%}; top: {top:.2%}; --colour: {css_colour(obj.layer)}"><b>{obj.id}</b><i>{order}</i></span>'
        )


def svg_outline(mask: np.ndarray) -> str:
    """The outlines of a mask, bool [H, W], holes as well, as the data of an SVG path; "" where it is blank.

    They run through the middle of the mask's outermost pixels, with whole coordinates; fill them by the even-odd rule.
    """
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    data = ""
    for outline in outlines:
        points = cv2.approxPolyDP(outline, TOLERANCE, True)[:, 0]
        steps = " ".join(f"{x} {y}" for x, y in np.diff(points, axis=0))
        data += f"M{points[0][0]} {points[0][1]}l{steps or '0 0'}z"
    return data.replace(" -", "-")


def css_colour(layer: int) -> str:
    """A layer's colour as CSS writes it, ``#rrggbb``."""
    return "#" + bytes(layer_colour(layer)).hex()


def _image(name: str, image: np.ndarray, scene: LayeredScene) -> str:
    geometry = scene.geometry.resized(min(LONGEST, max(image.shape[:2])))
    if geometry.width < image.shape[1] or geometry.height < image.shape[0]:
        image = cv2.resize(image, (geometry.width, geometry.height), interpolation=cv2.INTER_AREA)
    image = dimmed_outside(image, geometry)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    height, width = image.shape[:2]
    data = base64.b64encode(jpeg.tobytes()).decode()
    alt = escape(f"the image {name}")
    return f'<img width="{width}" height="{height}" alt="{alt}" src="data:image/jpeg;base64,{data}">'


def _controls(key: str, scene: LayeredScene) -> str:
    layers, samples = len(scene.amodal), scene.hypotheses.shape[1]  # none where a message came without
    of_layer = ["all", *(f"{layer} of {layers}{' (front)' * (layer == 1)}" for layer in range(1, layers + 1))]
    of_sample = ["selected", *(f"hypothesis {sample} of {samples}" for sample in range(1, samples + 1))]
    return (
        '<div class="controls">'
        + _slider(f"{key}-layer", "Layer", of_layer)
        + _slider(f"{key}-sample", "Hypothesis of one layer", of_sample)
        + "</div>"
    )


def _slider(key: str, label: str, names: list[str]) -> str:
    """A slider with a tick for each name; it starts at the first."""
    options = "".join(f'<option value="{value}" label="{name}"></option>' for value, name in enumerate(names))
    return (
        f'<label for="{key}">{label}</label><output for="{key}">{names[0]}</output>'
        f'<input type="range" id="{key}" min="0" max="{len(names) - 1}" value="0" list="{key}-names" autocomplete="off">'
        f'<datalist id="{key}-names">{options}</datalist>'
    )


def _objects(scene: LayeredScene) -> str:
    if not scene.objects:
        return '<p class="nothing">No object: what the layers hold is too small to be one.</p>'
    colour = {obj.id: css_colour(obj.layer) for obj in scene.objects}
    picks = "".join(f'<li style="--colour: {colour[name]}"><b>{name}</b></li>' for name in scene.pick_order)
    headings = "".join(f'<th scope="col">{heading}</th>' for heading in HEADINGS)
    rows = "\n".join(_row(scene, obj) for obj in scene.objects)
    doubtful = any(share < 1 for shares in scene.occluder_shares.values() for share in shares.values())
    notes = "Uncertainty is of the hidden part." + (f" {BRACKETS.capitalize()}." if doubtful else "")
    return f"""<table>
<caption>Objects</caption>
<thead><tr>{headings}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<p class="facts">{notes}</p>
<h3>Pick order</h3>
<ol class="picks">{picks}</ol>"""


def _row(scene: LayeredScene, obj: SceneObject) -> str:
    cells = [
        str(obj.layer),
        _number(obj.score),
        _share(obj.visible_ratio),
        _number(obj.uncertainty),
        occluders(obj, scene.occluder_shares.get(obj.id, {})) or "none",
        ordinal(scene.pick_order.index(obj.id) + 1),
    ]
    return (
        f'<tr data-object="{obj.id}"><th scope="row"><button type="button" aria-pressed="false" '
        f'aria-label="Show object {obj.id}" style="--colour: {css_colour(obj.layer)}">{obj.id}</button></th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def _about_hypothesis(mask: np.ndarray, selected: np.ndarray, front: np.ndarray) -> str:
    if not mask.any():
        return "blank, it sees no such layer"
    hidden = f"{(mask & front).sum() / mask.sum():.0%} hidden"
    if np.array_equal(mask, selected):
        return f"{hidden}, the one that was selected"
    return f"{hidden}, IOU {(mask & selected).sum() / (mask | selected).sum():.2f} with the selected mask"


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"


def _share(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "–"

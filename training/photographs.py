# SPDX-License-Identifier: Apache-2.0
"""Measures a model on photographs by the boxes around what shows of their objects: `python -m training.photographs --help`.

Boxes are what can be drawn by hand in minutes, so this is how to ask of photographs of one's own whether a model is of use there.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from tqdm import tqdm

from seqamodal_ros.perceiver import RUNTIMES
from seqamodal_ros.scene.image_files import read_image
from seqamodal_ros.scene.picking import LOW_SCORE, free_objects
from seqamodal_ros.scene.pictures import overlay, write_image
from seqamodal_ros.scene.scene import LayeredScene, SceneObject
from training.figures import percent
from training.metrics import share_interval
from training.predictions import perceiver_on

BOXES = Path(__file__).with_suffix(".yaml")
MATCHED = 0.5  # least IOU of two boxes of one object
MARGIN = 0.15  # of the objects' extent, around them all, where a region is looked at
SURE = (0.0, LOW_SCORE, 0.8)  # least scores of "can be picked now"
FOUND, MISSED = (60, 220, 60), (240, 60, 60)
WIDTH = 640  # of a photograph in the picture, pixels

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Photograph:
    """What is known of one photograph.

    Attributes:
        name: its path in the folder of photographs.
        image: uint8 [H, W, 3] RGB.
        boxes: left, top, right, bottom of what shows of each object, in pixels; the free ones first.
        free: how many of them no other object covers.
    """

    name: str
    image: np.ndarray
    boxes: Sequence[Box]
    free: int

    @property
    def region(self) -> tuple[int, int, int, int]:
        """x, y, width, height of all objects and `MARGIN` around them, inside the photograph."""
        left, top = np.min(self.boxes, axis=0)[:2]
        right, bottom = np.max(self.boxes, axis=0)[2:]
        height, width = self.image.shape[:2]
        x, y = max(0, round(left - MARGIN * (right - left))), max(0, round(top - MARGIN * (bottom - top)))
        return (
            x,
            y,
            min(width, round(right + MARGIN * (right - left))) - x,
            min(height, round(bottom + MARGIN * (bottom - top))) - y,
        )


def read_photographs(folder: Path, boxes: Path) -> list[Photograph]:
    """The photographs that a YAML file has boxes of.

    Args:
        folder: of the photographs.
        boxes: maps the path of each in that folder to `free` and `covered`, lists of boxes.

    Raises:
        OSError: a photograph, or the file, is not there.
        ValueError: the file is not of this form, or a box is not inside its photograph.
    """
    try:
        told = yaml.safe_load(boxes.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{boxes} is no YAML: {error}") from error
    if not isinstance(told, Mapping) or not told:
        raise ValueError(f"{boxes} names no photographs: write `photograph.jpg: {{free: [[left, top, right, bottom]]}}` into it")
    photographs = []
    for name, of_photograph in told.items():
        lists = of_photograph if isinstance(of_photograph, Mapping) else {}
        if not lists or set(lists) - {"free", "covered"} or not all(isinstance(each, list) for each in lists.values()):
            raise ValueError(f"{boxes}: {name} needs `free` and `covered`, each a list of boxes")
        image = read_image(folder / str(name))
        free = [_box(name, box, image.shape) for box in lists.get("free", [])]
        covered = [_box(name, box, image.shape) for box in lists.get("covered", [])]
        if not free:
            raise ValueError(f"{boxes}: {name} has no free object, and there always is one")
        photographs.append(Photograph(str(name), image, free + covered, len(free)))
    return photographs


def _box(name: object, box: object, shape: tuple[int, ...]) -> Box:
    if isinstance(box, list) and len(box) == 4 and all(isinstance(value, int) for value in box):
        left, top, right, bottom = box
        if 0 <= left < right <= shape[1] and 0 <= top < bottom <= shape[0]:
            return left, top, right, bottom
    raise ValueError(f"{name}: {box} is no box of left, top, right, bottom inside {shape[1]}x{shape[0]} pixels")


def box_of(mask: np.ndarray) -> Box:
    """The box around a mask bool [H, W] that is not blank."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / (_area(a) + _area(b) - shared)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def matches(named: Sequence[Box], true: Sequence[Box]) -> dict[int, int]:
    """Which true box each named one is of, by their indices: pairs of `MATCHED` or more, the nearest first, each box once."""
    ious = {(i, j): box_iou(one, other) for i, one in enumerate(named) for j, other in enumerate(true)}
    found: dict[int, int] = {}
    for i, j in sorted((pair for pair, iou in ious.items() if iou >= MATCHED), key=lambda pair: -ious[pair]):
        if i not in found and j not in found.values():
            found[i] = j
    return found


@dataclass(frozen=True)
class Answer:
    """What a model says of one photograph.

    Attributes:
        scene: what it saw.
        found: of each object that it names and that is one of the photograph, by its id, the index of that box.
    """

    scene: LayeredScene
    found: Mapping[int, int]

    @classmethod
    def of(cls, scene: LayeredScene, photograph: Photograph) -> "Answer":
        boxes = {obj.id: box_of(scene.to_source(obj.visible)) for obj in _shown(scene)}
        pairs = matches(list(boxes.values()), photograph.boxes)
        return cls(scene, {list(boxes)[i]: j for i, j in pairs.items()})


def _shown(scene: LayeredScene) -> list[SceneObject]:
    """Objects of which a pixel of the photograph shows; one of a few mask pixels can fall between them."""
    return [obj for obj in scene.objects if scene.to_source(obj.visible).any()]


def row(name: str, photographs: Sequence[Photograph], answers: Sequence[Answer]) -> str:
    """A line of the table: what was found, and what of "can be picked now" is right."""
    groups = range(len(photographs))
    objects = [len(photograph.boxes) for photograph in photographs]
    found = [len(answer.found) for answer in answers]
    named = [len(_shown(answer.scene)) for answer in answers]
    cells = [
        f"{sum(found)} of {sum(objects)}: {_share(found, objects, groups)}",
        f"{_share(found, named, groups)} of {sum(named)}",
    ]
    for least in SURE:
        said, right, first = [], [], []
        for photograph, answer in zip(photographs, answers, strict=True):
            picks = [answer.found.get(obj.id) for obj in free_objects(answer.scene.objects, min_score=least)]
            verdicts = [match is not None and match < photograph.free for match in picks]
            said.append(len(verdicts))
            right.append(sum(verdicts))
            first += verdicts[:1]
        cells.append(f"{_share(right, said, groups)} of {sum(said)}; first {sum(first)} of {len(first)}")
    return f"| {name} | {' | '.join(cells)} |"


def _share(part: Sequence[int], whole: Sequence[int], groups: Sequence[int]) -> str:
    if not sum(whole):
        return "-"
    low, high = share_interval(part, whole, groups)
    return f"{percent(sum(part) / sum(whole))} [{percent(low)}, {percent(high)}] %"


def picture(photographs: Sequence[Photograph], answers: Sequence[Answer]) -> np.ndarray:
    """The overlays in three columns, uint8 [h, w, 3] RGB; the box of each object is green where it was found, red where not."""
    tiles = []
    for photograph, answer in zip(photographs, answers, strict=True):
        drawn = overlay(photograph.image, answer.scene)
        for index, (left, top, right, bottom) in enumerate(photograph.boxes):
            colour = FOUND if index in answer.found.values() else MISSED
            cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, max(1, drawn.shape[1] // 400))
        height = round(WIDTH * drawn.shape[0] / drawn.shape[1])
        tile = cv2.resize(drawn, (WIDTH, height), interpolation=cv2.INTER_AREA)
        tiles.append(cv2.copyMakeBorder(tile, 0, max(0, WIDTH * 3 // 4 - height), 0, 0, cv2.BORDER_CONSTANT)[: WIDTH * 3 // 4])
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 3)
    return np.vstack([np.hstack(tiles[k : k + 3]) for k in range(0, len(tiles), 3)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.photographs", description=str(__doc__).split("\n")[0])
    parser.add_argument("photographs", type=Path, help="the folder that the paths in --boxes start from")
    parser.add_argument(
        "--boxes", type=Path, default=BOXES, help="a YAML file of boxes (default: %(default)s; it says what to get)"
    )
    parser.add_argument("--model", default="default", help="a name in models/manifest.yaml or a .safetensors file")
    parser.add_argument("--samples", type=int, default=3, help="K (default: %(default)s)")
    parser.add_argument("--runtime", default="auto", choices=RUNTIMES, help="see Perceiver.load (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument("--sheet", type=Path, help="write a picture of the photographs, what was seen, and the boxes")
    args = parser.parse_args()
    if args.sheet and not args.sheet.parent.is_dir():
        parser.error(f"there is no folder {args.sheet.parent} for {args.sheet.name}")
    try:
        photographs = read_photographs(args.photographs, args.boxes)
        perceiver = perceiver_on(args.model, args.runtime)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{perceiver.model_id}, {len(photographs)} photographs, K = {args.samples}, seed {args.seed}, {perceiver.runtime}\n")
    heads = ["looked at", "found [95 %]", "right of those named", *(f"can be picked, {least:g} or more" for least in SURE)]
    print(f"| {' | '.join(heads)} |\n{'| --- ' * len(heads)}|")
    for name, closer in (("the whole photograph", False), (f"a region, {MARGIN:.0%} around the objects", True)):
        answers = []
        for photograph in tqdm(photographs, desc=name, disable=None):
            region = photograph.region if closer else None
            answers.append(Answer.of(perceiver(photograph.image, args.samples, args.seed, region=region), photograph))
        print(row(name, photographs, answers))
        if args.sheet and not closer:
            write_image(args.sheet, picture(photographs, answers))


if __name__ == "__main__":
    main()

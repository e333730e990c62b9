# SPDX-License-Identifier: Apache-2.0
"""Measures a model on photographs by the boxes around what shows of their objects: `python -m training.photographs --help`.

Boxes are what can be drawn by hand in minutes, so this is how to ask of photographs of one's own whether a model is of use there.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from tqdm import tqdm

from seqamodal_ros.commands.arguments import whole_number
from seqamodal_ros.perceiver import LARGEST_NUM_SAMPLES, RUNTIMES
from seqamodal_ros.scene.image_files import read_image
from seqamodal_ros.scene.nearer import nearer_beside
from seqamodal_ros.scene.picking import free_objects
from seqamodal_ros.scene.pictures import overlay, write_image
from seqamodal_ros.scene.scene import LayeredScene, SceneObject
from training.data.scene import metres_of
from training.data.sheets import in_columns
from training.endings import need_folder, told
from training.figures import bracketed, percent
from training.instances import MATCHED
from training.metrics import share_interval
from training.predictions import perceiver_on

BOXES = Path(__file__).with_suffix(".yaml")
MARGIN = 0.15  # of the objects' extent, around them all, where a region is looked at
LEAST_SCORES = (0.0, 0.8)  # of "can be picked now"
FOUND, MISSED = (60, 220, 60), (240, 60, 60)
TILE = (640, 480)  # width and height of a photograph in the picture, pixels

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Photograph:
    """What is known of one photograph.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        boxes: left, top, right, bottom of what shows of each object, in pixels; the free ones first.
        free: how many of them no other object covers.
        metres: float32 [H, W], depth along the optical axis, NaN where unknown; None where there is no depth image.
    """

    image: np.ndarray
    boxes: Sequence[Box]
    free: int
    metres: np.ndarray | None = None

    @property
    def region(self) -> tuple[int, int, int, int]:
        """x, y, width, height of all objects and `MARGIN` around them, inside the photograph."""
        lefts, tops, rights, bottoms = zip(*self.boxes, strict=True)
        height, width = self.image.shape[:2]
        x, end_x = _around(min(lefts), max(rights), width)
        y, end_y = _around(min(tops), max(bottoms), height)
        return x, y, end_x - x, end_y - y


def _around(low: int, high: int, size: int) -> tuple[int, int]:
    margin = MARGIN * (high - low)
    return max(0, round(low - margin)), min(size, round(high + margin))


def read_photographs(folder: Path, boxes: Path) -> list[Photograph]:
    """The photographs that a YAML file has boxes of.

    Args:
        folder: of the photographs.
        boxes: maps the path of each in that folder to `free` and, where something is, `covered`: lists of boxes; and, where there
            is one, to `depth`: the path of a PNG of 16 bits, millimetres registered to it, 0 where unknown.

    Raises:
        OSError: a photograph, a depth image, or the file, is not there.
        ValueError: the file is not of this form, a box is not inside its photograph, or a depth image is not of its size.
    """
    try:
        told = yaml.safe_load(boxes.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{boxes} is no YAML: {error}") from error
    if not isinstance(told, Mapping) or not told or not all(isinstance(name, str) for name in told):
        raise ValueError(f"{boxes} names no photographs: write `photograph.jpg: {{free: [[left, top, right, bottom]]}}` into it")
    photographs = []
    for name, lists in told.items():
        if not isinstance(lists, Mapping) or set(lists) - {"free", "covered", "depth"} or not lists.get("free"):
            raise ValueError(f"{boxes}: {name} needs one box at least under `free`; what is covered goes under `covered`")
        try:
            image = read_image(folder / name)
            metres = _metres(folder / str(lists["depth"]), image.shape) if "depth" in lists else None
        except OSError as error:
            raise OSError(f"{boxes}: {error}") from error
        free, covered = (_boxes(f"{boxes}: {name}", lists.get(key) or [], image.shape) for key in ("free", "covered"))
        photographs.append(Photograph(image, free + covered, len(free), metres))
    return photographs


def _metres(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None:
        raise OSError(f"{path} cannot be read")
    if depth.dtype != np.uint16 or depth.shape != shape[:2]:
        raise ValueError(f"{path} must be of 16 bits and {shape[1]}x{shape[0]} pixels, as its photograph")
    return metres_of(depth)


def _boxes(where: str, boxes: Any, shape: tuple[int, ...]) -> list[Box]:
    for box in boxes if isinstance(boxes, list) else [boxes]:
        whole = isinstance(box, list) and len(box) == 4 and all(type(value) is int for value in box)
        if not whole or not (0 <= box[0] < box[2] <= shape[1] and 0 <= box[1] < box[3] <= shape[0]):
            raise ValueError(f"{where}: {box} is no box [left, top, right, bottom] inside {shape[1]}x{shape[0]} pixels")
    return [(box[0], box[1], box[2], box[3]) for box in boxes]


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    return shared / (_area(a) + _area(b) - shared)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def matches(named: Sequence[Box], true: Sequence[Box]) -> dict[int, int]:
    """Which true box each named one is of, by their indices: pairs of IOU `MATCHED` or more, largest first, each box once."""
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
        named: its objects, but those of which no pixel of the photograph shows: one of a few mask pixels can fall between them.
        found: of each of these that is one of the photograph, by its id, the index of that box.
    """

    scene: LayeredScene
    named: Sequence[SceneObject]
    found: Mapping[int, int]

    @classmethod
    def of(cls, scene: LayeredScene, photograph: Photograph) -> "Answer":
        boxes: dict[int, Box] = {}
        for obj in scene.objects:
            x, y, width, height = cv2.boundingRect(scene.to_source(obj.visible).astype(np.uint8))
            if width:
                boxes[obj.id] = (x, y, x + width, y + height)
        pairs = matches(list(boxes.values()), photograph.boxes)
        ids = list(boxes)
        return cls(scene, [obj for obj in scene.objects if obj.id in boxes], {ids[i]: j for i, j in pairs.items()})


def table_row(name: str, photographs: Sequence[Photograph], answers: Sequence[Answer], by_depth: bool = False) -> str:
    """A line of the table: what was found, and what of "can be picked now" is right; `by_depth`, see `free_by_depth`."""
    found = [len(answer.found) for answer in answers]
    cells = [
        _share(found, [len(photograph.boxes) for photograph in photographs]),
        _share(found, [len(answer.named) for answer in answers]),
    ]
    nearer = [
        nearer_beside(answer.scene, photograph.metres) if by_depth and photograph.metres is not None else {}
        for photograph, answer in zip(photographs, answers, strict=True)
    ]
    for least in LEAST_SCORES:
        verdicts = []
        for photograph, answer, cut_off in zip(photographs, answers, nearer, strict=True):
            free = [obj for obj in free_objects(answer.named, min_score=least) if obj.id not in cut_off]
            picks = [answer.found.get(obj.id) for obj in free]
            verdicts.append([match is not None and match < photograph.free for match in picks])
        for few in (verdicts, [each[:1] for each in verdicts]):
            cells.append(_share([sum(each) for each in few], [len(each) for each in few]))
    return f"| {name} | {' | '.join(cells)} |"


def _share(part: Sequence[int], whole: Sequence[int]) -> str:
    """Of counts of each photograph, the share of all, and its 95 % interval over photographs."""
    counts = f"{sum(part)} of {sum(whole)}"
    if not sum(whole):
        return counts
    return f"{counts}: {percent(sum(part) / sum(whole))}{bracketed(share_interval(part, whole, range(len(part))))} %"


def picture(photographs: Sequence[Photograph], answers: Sequence[Answer]) -> np.ndarray:
    """The overlays in three columns at most, uint8 [h, w, 3] RGB; boxes of objects that were found are green, others red."""
    width, height = TILE
    tiles = []
    for photograph, answer in zip(photographs, answers, strict=True):
        drawn = overlay(photograph.image, answer.scene)
        for index, (left, top, right, bottom) in enumerate(photograph.boxes):
            colour = FOUND if index in answer.found.values() else MISSED
            cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), colour, max(1, max(drawn.shape) // 400))
        scale = min(width / drawn.shape[1], height / drawn.shape[0])
        small = cv2.resize(drawn, (round(scale * drawn.shape[1]), round(scale * drawn.shape[0])), interpolation=cv2.INTER_AREA)
        tile = np.zeros((height, width, 3), np.uint8)
        tile[: small.shape[0], : small.shape[1]] = small
        tiles.append(tile)
    return in_columns(tiles, min(3, len(tiles)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.photographs", description=str(__doc__).split("\n")[0])
    add, number = parser.add_argument, whole_number
    add("photographs", type=Path, help="the folder that the paths in --boxes start from")
    add("--boxes", type=Path, default=BOXES, help="a YAML file of boxes (default: %(default)s; it says what to get)")
    add("--model", default="default", help="a name in models/manifest.yaml or a .safetensors file")
    add("--samples", type=number(1, LARGEST_NUM_SAMPLES), default=3, help="K (default: %(default)s)")
    add("--runtime", default="auto", choices=RUNTIMES, help="see Perceiver.load (default: %(default)s)")
    add("--seed", type=number(0, 2**64 - 1), default=0, help="of the noise (default: %(default)s)")
    add("--sheet", type=Path, help="write a picture of the whole photographs, what was seen, and the boxes")
    args = parser.parse_args()
    need_folder(parser, args.sheet, "--sheet")
    with told(parser):
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Print the table, and write the picture that is asked for."""
    photographs = read_photographs(args.photographs, args.boxes)
    perceiver = perceiver_on(args.model, args.runtime)
    print(f"{perceiver.computed_by}, {len(photographs)} photographs, K = {args.samples}, seed {args.seed}\n")
    heads = ["looked at", "found [95 %]", "of those named, right"]
    for least in LEAST_SCORES:
        heads += [f"can be picked, of a score of {least:g} or more", f"the surest of each photograph, of {least:g} or more"]
    print(f"| {' | '.join(heads)} |\n{'| --- ' * len(heads)}|")
    answers: dict[str, list[Answer]] = {}
    whole, closer = "the whole photograph", f"a region, {MARGIN:.0%} around the boxes"
    for name in (whole, closer):
        answers[name] = []
        for photograph in tqdm(photographs, desc=name, disable=None):
            region = photograph.region if name == closer else None
            answers[name].append(Answer.of(perceiver(photograph.image, args.samples, args.seed, region=region), photograph))
        print(table_row(name, photographs, answers[name]))
        if all(photograph.metres is not None for photograph in photographs):
            print(table_row(f"{name}, and depth", photographs, answers[name], by_depth=True))
    if args.sheet:
        write_image(args.sheet, picture(photographs, answers[whole]))


if __name__ == "__main__":
    main()

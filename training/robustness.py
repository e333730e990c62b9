# SPDX-License-Identifier: Apache-2.0
"""What is left of a model's layers in other light, out of focus, in noise: `python -m training.robustness --help`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqamodal_ros.perceiver import RUNTIMES
from seqamodal_ros.scene.pictures import write_image
from training.data.compositor import evaluation_compositor, in_turns
from training.data.disturbed import disturbed
from training.data.scene import Scene
from training.data.sheets import answer_sheet
from training.endings import need_folder, told
from training.figures import bracketed, percent
from training.metrics import bootstrap_interval, iou_by_image, mean_of, stop_accuracy
from training.predictions import free_running, perceiver_on

LAYERS = 4  # that the table tells of
CLEAN = "as they are"


def figures(name: str, scenes: Sequence[Scene], stacks: Sequence[np.ndarray]) -> dict[str, Any]:
    """Conditional IOU of each image's layers, and the share of images with the right number of them."""
    truth = [scene.layers for scene in scenes]
    return {"name": name, "iou_by_image": iou_by_image(stacks, truth), "stop_accuracy": stop_accuracy(stacks, truth)}


def of_layer(found: dict[str, Any], layer: int) -> np.ndarray:
    """IOU of the images that have a layer, float [n]."""
    return np.array([ious[layer - 1] for ious in found["iou_by_image"] if len(ious) >= layer])


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """One row a way of disturbing, the first of `results` being the images as they are."""
    clean = results[0]
    rows = [
        f"| images | {' | '.join(f'layer {k}' for k in range(1, LAYERS + 1))} | layers right | layer 1, less than as they are |",
        "| --- " * (LAYERS + 3) + "|",
    ]
    for each in results:
        ious = [of_layer(each, layer) for layer in range(1, LAYERS + 1)]
        pairs = zip(clean["iou_by_image"], each["iou_by_image"], strict=True)
        lost = [before[0] - after[0] for before, after in pairs if before and after]
        less = "" if each is clean else f"{percent(mean_of(lost))}{bracketed(bootstrap_interval(lost))}"
        cells = [percent(float(values.mean())) if len(values) else "-" for values in ious]
        rows.append(f"| {each['name']} | {' | '.join(cells)} | {percent(each['stop_accuracy'])} % | {less} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.robustness", description=__doc__)
    parser.add_argument("--model", default="default", help="a name in models/manifest.yaml or a .safetensors file")
    parser.add_argument(
        "--data", type=Path, required=True, help="the raw material: a folder with fruits/, objects/ and textures/"
    )
    parser.add_argument("--sprites", type=Path, required=True, help="folder that training.prepare sprites filled")
    parser.add_argument("--split", default="val", choices=["val", "test", "unseen"], help="of it (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=256, help="side of the composites, pixels (default: %(default)s)")
    parser.add_argument("--count", type=int, default=100, help="images (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=3, help="K (default: %(default)s)")
    parser.add_argument("--runtime", default="auto", choices=RUNTIMES, help="see Perceiver.load (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of scenes and noise (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file too")
    parser.add_argument(
        "--sheet", type=Path, help="write a picture of one scene in each of these ways, its truth, and what was seen"
    )
    args = parser.parse_args()
    if args.count < 1:
        parser.error(f"--count must be at least 1, not {args.count}")
    need_folder(parser, args.out, "--out")
    need_folder(parser, args.sheet, "--sheet")
    with told(parser):
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Print the table; write the figures and the picture that are asked for."""
    perceiver = perceiver_on(args.model, args.runtime)
    compositor = evaluation_compositor(args.data, args.sprites, args.split, args.image_size)
    scenes = in_turns(compositor, compositor.material, args.count, args.seed)
    area_min = perceiver.model.settings.sequence.area_min
    ways = [{CLEAN: scene, **disturbed(scene, args.seed + k, area_min)} for k, scene in enumerate(scenes)]
    print(f"{perceiver.computed_by}, {args.count} {args.split} composites, K = {args.samples}, seed {args.seed}")
    results, seen = [], []
    for name in ways[0]:
        these = [each[name] for each in ways]
        answers = free_running(perceiver, [scene.image for scene in these], args.samples, args.seed)
        stacks = [answer.amodal for answer in answers]
        results.append(figures(name, these, stacks))
        seen.append((these[0], stacks[0]))
    print("\n" + markdown(results))
    if args.out:
        given = {key: getattr(args, key) for key in ("split", "image_size", "samples", "seed")}
        about = {"model": perceiver.model_id, "runtime": perceiver.runtime, **given, "results": results}
        args.out.write_text(json.dumps(about, indent=1, allow_nan=False))
    if args.sheet:
        write_image(args.sheet, answer_sheet(*zip(*seen, strict=True)))


if __name__ == "__main__":
    main()

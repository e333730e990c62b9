# SPDX-License-Identifier: Apache-2.0
"""Sees the layers in image files and writes pictures and numbers of them: `predict IMAGE... --out DIR`. No ROS."""

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from seqamodal_ros.commands.arguments import (
    INTERRUPTED,
    Parser,
    add_model,
    add_region,
    complain,
    interruptible,
    one_line,
    say,
    whole_number,
)
from seqamodal_ros.files import write_whole
from seqamodal_ros.perceiver import RUNTIMES, Perceiver
from seqamodal_ros.scene.image_files import OPENCV_LOG, find_images, read_image
from seqamodal_ros.scene.page import PAGE, Page, is_page
from seqamodal_ros.scene.pictures import contact_sheet, overlay, write_image
from seqamodal_ros.scene.report import COLUMNS, layers_json, row
from seqamodal_ros.scene.scene import LayeredScene

OUTPUTS = ("{}.png", "{}_overlay.png", "{}_layers.npz")  # contact sheet, overlay, masks
REPORT = "layers.json"
LONGEST_STEM = 200  # bytes of a name that are kept: a file's has 255 at most, of which endings and numbers take some


@interruptible("predict: interrupted")
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, 1 where an image failed, 2 where the arguments or the model are wrong, or the
    device has no room for it, 130 after Ctrl-C."""
    arguments = _parse(argv)
    OPENCV_LOG.setLogLevel(0)  # our line says what is wrong with a file; OpenCV's would be a second
    out: Path = arguments.out
    try:
        images = find_images(arguments.images)
        names = _names(images)
        _refuse_overwriting(images, names, out)
        perceiver = Perceiver.load(
            arguments.model,
            arguments.device,
            sampling_steps=arguments.sampling_steps,
            max_layers=arguments.max_layers,
            mirror=arguments.mirror,
            runtime=arguments.runtime,
        )
        _make(out)
        if not (out / PAGE).exists():
            Page().write(out / PAGE)  # by which the next run knows the folder for ours, even where this one is killed
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # PyTorch's lack of memory is a RuntimeError
        complain(f"predict: error: {one_line(error)}")
        return 2
    say(f"{perceiver.computed_by}, K = {arguments.num_samples}, seed {arguments.seed}\n{COLUMNS}")
    frames: list[dict[str, Any]] = []
    page, interrupted, failed = Page(), False, 0
    for path, name in zip(images, names, strict=True):
        try:
            image = read_image(path)
            scene = _see(perceiver, path, image, arguments)
            write_outputs(out, name, image, scene)
            page.add(name, image, scene)
        except (MemoryError, OSError, RuntimeError, ValueError, cv2.error) as error:  # OpenCV's lack of memory is its own
            complain(f"predict: {one_line(error) or f'{path}: not enough memory'}")
            failed += 1
            continue
        except KeyboardInterrupt:
            complain("predict: interrupted")
            interrupted = True
            break
        frames.append({"frame": name, "file": str(path), "model_id": perceiver.model_id, **layers_json(scene)})
        say(row(name, scene))
    try:
        write_whole(out / REPORT, (json.dumps(frames, indent=1, allow_nan=False) + "\n").encode())
        page.write(out / PAGE)
    except OSError as error:
        complain(f"predict: error: {one_line(error)}")
        return 1
    if frames:
        say(f"{len(frames)} of {len(images)} images seen; pictures, masks, {REPORT} and {PAGE} are in {out}")
    if failed:
        complain(f"predict: {failed} of {len(images)} images failed")
    return INTERRUPTED if interrupted else 1 if failed else 0


def _see(perceiver: Perceiver, path: Path, image: np.ndarray, arguments: argparse.Namespace) -> LayeredScene:
    """One image's layers; where something is wrong with it, a ValueError that names its file."""
    try:
        return perceiver(image, arguments.num_samples, arguments.seed, region=arguments.region)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_outputs(folder: Path, name: str, image: np.ndarray, scene: LayeredScene) -> None:
    """Write contact sheet, overlay and masks (amodal, visible, probability, hypotheses at mask size) of one image.

    Raises:
        OSError: a file cannot be written.
    """
    sheet, over, masks = (folder / pattern.format(name) for pattern in OUTPUTS)
    write_image(sheet, contact_sheet(image, scene, name))
    write_image(over, overlay(image, scene))
    arrays = {key: getattr(scene, key) for key in ("amodal", "visible", "probability", "hypotheses")}
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)
    write_whole(masks, data.getvalue())


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="predict", description=__doc__)
    add, number = parser.add_argument, whole_number
    add("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them (not what is in folders within)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    add_model(parser)
    add("--runtime", default="auto", choices=RUNTIMES,
        help="what computes it; auto: what `export` wrote, else torch, on a GPU torch-bf16; "
             "one that is missing gives way, with a warning (default: auto)")  # fmt: skip
    add_region(parser)
    add("--sampling-steps", type=number(1, 1000), metavar="N", help="network calls a layer (default: the model's own)")
    add("--no-mirror", dest="mirror", action="store_const", const=False,
        help="look at no mirror images, which halves the time of a model that does")  # fmt: skip
    add("--max-layers", type=number(1, 100), metavar="N", help="layers at most (default: the model's own)")
    return parser.parse_args(argv)


def _names(images: Sequence[Path]) -> list[str]:
    """A name for each image's results: its stem, cut where that is too long, numbered on where it would overwrite another's."""
    names: list[str] = []
    taken: set[str] = set()
    for image in images:
        encoded = os.fsencode(image.stem)
        stem = image.stem if len(encoded) <= LONGEST_STEM else encoded[:LONGEST_STEM].decode(errors="ignore")
        name, number = stem, 1
        while taken & {pattern.format(name).lower() for pattern in OUTPUTS}:
            number += 1
            name = f"{stem}_{number}"
        taken |= {pattern.format(name).lower() for pattern in OUTPUTS}
        names.append(name)
    return names


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"--out {out} must be a folder that can be written ({error.strerror})") from error


def _refuse_overwriting(images: Sequence[Path], names: Sequence[str], out: Path) -> None:
    """Results replace those of before, in a folder that holds a page of ours, and no other file."""
    inputs = {image.resolve() for image in images}
    page = out / PAGE
    ours = page.exists() and is_page(page)
    for target in (*(out / pattern.format(name) for name in names for pattern in OUTPUTS), out / REPORT, page):
        if target.resolve() in inputs:
            raise ValueError(f"the results would overwrite the image {target}: name another folder with --out")
        if target.is_file() and not ours:
            raise ValueError(f"the results would overwrite {target}, which is not one of ours: name another folder with --out")


if __name__ == "__main__":
    sys.exit(main())

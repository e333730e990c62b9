# SPDX-License-Identifier: Apache-2.0
"""Measures a model on composites, textures and the sample frames: ``python -m training.evaluate --data DIR --sprites DIR``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from seqamodal_ros import Perceiver
from seqamodal_ros.diffusion.adapter import normalised, signed
from seqamodal_ros.diffusion.samplers import Draw, generate
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.sequence import binarise, select
from seqamodal_ros.diffusion.weights import load_model
from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.image_files import read_image
from seqamodal_ros.scene.layers import cumulative_masks
from seqamodal_ros.share import share_folder
from training.baselines import hull_layers, visible_layers
from training.data.compositor import draw_composites
from training.data.samples import Sample, letterboxed, read_samples
from training.data.scene import Scene
from training.metrics import best_iou, bootstrap_interval, false_layers, hidden_iou, iou, layer_figures, layer_of, stop_accuracy


def free_running(perceiver: Perceiver, images: Sequence[np.ndarray], samples: int, seed: int) -> list[np.ndarray]:
    """Algorithm 2 on each image: bool [L, h, w] each. The noise of image k is drawn from `seed` + k."""
    return [perceiver(image, samples, seed + k).amodal for k, image in enumerate(tqdm(images, desc="free-running", disable=None))]


@torch.inference_mode()
def teacher_forced(
    model: str, images: Sequence[np.ndarray], truth: Sequence[np.ndarray], samples: int, steps: int, seed: int, device: str
) -> list[np.ndarray]:
    """Each layer from the true cumulative mask, so that order errors do not carry over: bool [L, h, w] of the truth's L.

    Images are letterboxed, and padding cleared, as the perceiver does it.
    """
    loaded = load_model(model)
    network = loaded.network.to(device)
    schedule = Schedule.linear()
    predicted = []
    for k, (image, stack) in enumerate(zip(tqdm(images, desc="teacher-forced", disable=None), truth, strict=True)):
        rows = len(stack)
        geometry = Geometry.letterbox(image.shape[1], image.shape[0])
        square = geometry.to_model(image, loaded.settings.network.image_size)
        pixels = normalised(torch.from_numpy(square).permute(2, 0, 1)[None].to(device))
        features = tuple(f.repeat(rows * samples, 1, 1, 1) for f in network.encode(pixels))
        cumulative = torch.from_numpy(cumulative_masks(stack)[:-1])[:, None].repeat_interleave(samples, 0)
        draw = _noise(cumulative.shape, seed + k, device)
        x0 = generate(network, schedule, signed(cumulative).to(device), features, draw, loaded.settings.sampler, steps)
        proposals = np.where(geometry.inside(stack.shape[1]), x0.cpu().view(rows, samples, *stack.shape[1:]).numpy(), -1)
        predicted.append(np.stack([_selected(x, loaded.settings.sequence.area_min) for x in proposals]))
    return predicted


def _noise(shape: Sequence[int], seed: int, device: str) -> Draw:
    """Noise that is the same on every device, as the perceiver's is."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator).to(device)


def _selected(x0: np.ndarray, area_min: int) -> np.ndarray:
    candidates, null = binarise(x0, area_min)
    return np.zeros(x0.shape[1:], bool) if null.all() else select(candidates[~null])


def table(name: str, scenes: Sequence[Scene], predicted: list[np.ndarray], forced: list[np.ndarray]) -> dict[str, Any]:
    """Print and return the figures of one set."""
    truth = [scene.layers for scene in scenes]
    told = [(visible_layers(scene), hull_layers(scene)) for scene in scenes]
    deepest = max(len(stack) for stack in truth)
    rows = []
    print(f"\n{name}: {len(truth)} images, stops right {stop_accuracy(predicted, truth):.1%}, "
          f"false layers {false_layers(predicted, truth):.2f} an image")  # fmt: skip
    print("layer images | conditional IOU [95 %]      AP    pi | pooled IOU    AP    pi | teacher-forced IOU   AP")
    for layer in range(1, deepest + 1):
        f = layer_figures(predicted, truth, layer)
        each = [iou(layer_of(p, layer), t[layer - 1]) for p, t in zip(predicted, truth, strict=True) if layer <= len(t)]
        low, high = bootstrap_interval(each)
        given = layer_figures(forced, truth, layer)
        conditional = f"{100 * f.iou:13.1f} [{100 * low:.1f}, {100 * high:.1f}] {100 * f.ap:7.1f} {100 * f.pi:5.1f}"
        pooled = f"{100 * f.pooled_iou:10.1f} {100 * f.pooled_ap:5.1f} {100 * f.pooled_pi:5.1f}"
        print(f"{layer:5d} {f.images:6d} | {conditional} | {pooled} | {100 * given.iou:10.1f} {100 * given.ap:5.1f}")
        rows.append(
            {
                "layer": layer,
                "iou_low": low,
                "iou_high": high,
                "teacher_forced_iou": given.iou,
                "teacher_forced_ap": given.ap,
                **vars(f),
                **completion(truth, told, predicted, forced, layer),
            }
        )
    print("layer | hidden part, IOU: free, teacher-forced, hull | whole, IOU: best layer, visible alone, hull")
    for row in rows:
        hidden = " ".join(_percent(row[f"hidden_{key}"]) for key in ("free", "forced", "hull"))
        whole = " ".join(_percent(row[key]) for key in ("best_layer", "visible_iou", "hull_iou"))
        print(f"{row['layer']:5d} | {hidden} | {whole}")
    return {"set": name, "stop_accuracy": stop_accuracy(predicted, truth), "layers": rows}


def completion(
    truth: list[np.ndarray],
    told: list[tuple[np.ndarray, np.ndarray]],
    predicted: list[np.ndarray],
    forced: list[np.ndarray],
    layer: int,
) -> dict[str, float | None]:
    """How well a layer's hidden part is found, beside baselines that are told the true visible masks; in [0, 1].

    "hidden_...": IOU outside the visible region, where something is hidden. "best_layer": the predicted layer that fits best,
    whatever its number. "visible_iou", "hull_iou": of the visible masks alone, and of their convex hulls.
    """
    each: dict[str, list[float]] = {}
    for stack, baselines, free, given in zip(truth, told, predicted, forced, strict=True):
        if layer > len(stack):
            continue
        true, visible, hull = (layers[layer - 1] for layers in (stack, *baselines))
        masks = {"free": layer_of(free, layer), "forced": given[layer - 1], "hull": hull}
        figures = {f"hidden_{key}": hidden_iou(mask, true, visible) for key, mask in masks.items()}
        figures |= {"best_layer": best_iou(free, true), "visible_iou": iou(visible, true), "hull_iou": iou(hull, true)}
        for key, value in figures.items():
            each.setdefault(key, []).append(value)
    return {key: mean_of(values) for key, values in each.items()}


def mean_of(values: list[float]) -> float | None:
    """Mean of those that are a number; None where none is, as in layer 1, of which nothing is hidden."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None


def _percent(value: float | None) -> str:
    return f"{'-':>7}" if value is None else f"{100 * value:7.1f}"


def sample_scene(sample: Sample, mask_size: int) -> Scene:
    """A rendered frame with each object's mask letterboxed to the model's as in training; the image stays as it is."""
    amodal = np.array([letterboxed(mask, mask_size) for mask in sample.amodal])
    return Scene(sample.image, amodal, sample.occluded_by)


def bare_textures(perceiver: Perceiver, data: Path, split: str, samples: int) -> float:
    """Share of bare textures in which no layer is seen."""
    paths = sorted((data / "textures" / split).rglob("*.webp"))
    images = [read_image(path) for path in paths]
    blank = [len(stack) == 0 for stack in free_running(perceiver, images, samples, seed=0)]
    print(f"\nbare {split} textures: {np.mean(blank):.1%} of {len(blank)} give no layer")
    return float(np.mean(blank))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--model", default="default", help="a name in models/manifest.yaml or a .safetensors file")
    parser.add_argument("--data", type=Path, required=True, help="folder with fruits/, objects/ and textures/")
    parser.add_argument("--sprites", type=Path, required=True, help="folder that training.prepare sprites filled")
    parser.add_argument("--split", default="test", choices=["val", "test", "unseen"], help="default: %(default)s")
    parser.add_argument("--count", type=int, default=500, help="composites (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=3, help="K (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=1, help="of scenes and noise (default: %(default)s)")
    parser.add_argument("--majority-null", action="store_true", help="stop where most hypotheses are null")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file too")
    args = parser.parse_args()
    majority_null = True if args.majority_null else None
    perceiver = Perceiver.load(args.model, sampling_steps=args.steps, majority_null=majority_null)
    steps = args.steps or load_model(args.model).settings.sampling_steps
    print(f"{perceiver.model_id}, K = {args.samples}, {steps} sampling steps, seed {args.seed}, device {perceiver.device}")
    composites = draw_composites(args.data, args.sprites, args.split, args.count, args.seed)
    images = [c.image for c in composites]
    truth = [c.layers for c in composites]
    everything = layer_figures([np.logical_or.reduce(composite.amodal)[None] for composite in composites], truth, 1)
    print(f"baseline, the true union of all objects taken for layer 1: conditional IOU {100 * everything.iou:.1f}")
    predicted = free_running(perceiver, images, args.samples, args.seed)
    forced = teacher_forced(args.model, images, truth, args.samples, steps, args.seed, perceiver.device)
    figures = [table(f"{args.split} composites", composites, predicted, forced)]
    families = 1 if args.split == "unseen" else 2
    for k, family in enumerate(("fruits", "objects")[:families]):
        part = slice(k, None, families)
        figures.append(table(f"{args.split} composites, {family}", composites[part], predicted[part], forced[part]))
    result: dict[str, Any] = {"model": perceiver.model_id, "figures": figures}
    frames = [sample_scene(frame, truth[0].shape[1]) for frame in read_samples(share_folder("samples"))]
    frame_images, frame_truth = [frame.image for frame in frames], [frame.layers for frame in frames]
    frame_predicted = free_running(perceiver, frame_images, args.samples, 0)
    frame_forced = teacher_forced(args.model, frame_images, frame_truth, args.samples, steps, 0, perceiver.device)
    figures.append(table("sample frames, rendered", frames, frame_predicted, frame_forced))
    if args.split != "unseen":
        result["bare_textures_blank"] = bare_textures(perceiver, args.data, args.split, args.samples)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Measures a model on a packed set, on composites, textures and the sample frames, or on these alone, which need nothing else:
`python -m training.evaluate --help`.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from seqamodal_ros.diffusion.proposals import numbered
from seqamodal_ros.perceiver import RUNTIMES
from seqamodal_ros.scene.image_files import read_image
from seqamodal_ros.scene.pictures import write_image
from seqamodal_ros.share import share_folder
from training.calibration import draw
from training.data.compositor import Compositor, evaluation_compositor, in_turns
from training.data.packed import evenly, fingerprint, to_measure_on
from training.data.samples import Sample, letterboxed, read_samples
from training.data.scene import Scene
from training.data.sheets import answer_sheet
from training.endings import need_folder, told
from training.figures import Figures, bounds, bracketed, check_same_images, difference, markdown, measure, percent, worst_first
from training.metrics import both_found, hidden_iou, layer_figures, mean_of
from training.predictions import free_running, objects_in_true_layers, perceiver_on, teacher_forced

SHOWN = 24  # images of a sheet
TWO_TRUTHS, HYPOTHESES = 100, 9  # images that two scenes agree with, and how many hypotheses are drawn of each


class Evaluation:
    """One model on several sets, each printed as it is done; its figures, and sheets of its images, are written as asked.

    Args:
        args: of the command line.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        given = {"sampling_steps": args.steps, "majority_null": args.majority_null, "mirror": args.mirror}
        self.perceiver = perceiver_on(args.model, args.runtime, **given)
        self.model = self.perceiver.model
        self.steps = self.model.settings.sampling_steps
        self.mask_size = self.model.settings.network.mask_size
        if args.sheets:
            args.sheets.mkdir(parents=True, exist_ok=True)
        self.others = _figures(args.against) if args.against else None
        self.result: dict[str, Any] = {
            "model": self.perceiver.model_id,
            "runtime": self.perceiver.runtime,
            "precision": self.perceiver.precision,
            "samples": args.samples,
            "steps": self.steps,
            "mirror": self.model.settings.mirror,
            "majority_null": self.model.settings.sequence.majority_null,
            "seed": args.seed,
            "figures": [],
        }
        mirror = "with" if self.model.settings.mirror else "without"
        rule = "a majority of nulls counts, " if self.model.settings.sequence.majority_null else ""
        rule = "number 0 draws the layers, " if numbered(self.model.network) else rule
        print(
            f"{self.perceiver.model_id}, K = {args.samples}, {self.steps} sampling steps, {mirror} mirror images, {rule}"
            f"seed {args.seed} (of sample frames and bare textures always 0), "
            f"device {self.perceiver.device}, runtime {self.perceiver.runtime} in {self.perceiver.precision}"
        )

    def of(
        self, name: str, scenes: Sequence[Scene], groups: Sequence[int] | None, seed: int, families: Sequence[str] = ()
    ) -> None:
        """Measure one set, and each of its families by itself: scene k is of family k modulo their number."""
        images, truth = [scene.image for scene in scenes], [scene.layers for scene in scenes]
        if (other := self._other(name)) is not None:  # before anything is measured
            check_same_images(name, fingerprint(truth), other)
        began = time.perf_counter()
        predicted = free_running(self.perceiver, images, self.args.samples, seed)
        seconds = time.perf_counter() - began
        forced = teacher_forced(self.perceiver, images, truth, self.args.samples, seed)
        objects = objects_in_true_layers(self.perceiver, scenes)
        drawn = self.model.settings.sequence.max_layers
        figures = self.add(measure(name, scenes, predicted, forced, objects, groups, drawn, seconds))
        for k, family in enumerate(families):
            part = slice(k, None, len(families))
            if not scenes[part]:
                continue
            self.add(measure(f"{name}, {family}", scenes[part], predicted[part], forced[part], objects[part], max_layers=drawn))
        if self.args.sheets:
            stem = self.args.sheets / name.replace(" ", "_")
            ranked = worst_first(figures)
            middle = max(0, (len(ranked) - SHOWN) // 2)
            for kind, shown in {"worst": ranked, "typical": ranked[middle:], "best": ranked[::-1]}.items():
                chosen = shown[:SHOWN]
                sheet = answer_sheet([scenes[k] for k in chosen], [predicted[k].amodal for k in chosen])
                write_image(Path(f"{stem}_{kind}.png"), sheet)
            draw(figures["calibration"], Path(f"{stem}_reliability.png"))
            print(
                f"\nits {SHOWN} worst, typical (in the middle) and best images by mean IOU, beside the truth and what was seen: "
                f"{stem}_worst.png, {stem}_typical.png, {stem}_best.png; how far to believe probabilities: {stem}_reliability.png"
            )

    def add(self, figures: Figures) -> Figures:
        """Print figures, and their difference to those of `--against`; keep them."""
        print(f"\n{markdown(figures)}")
        if self.others is not None:
            other = self._other(figures["set"])
            if other is None:
                print(f"\n{self.args.against} has no figures of {figures['set']!r}")
            else:
                print(f"\nminus {self.others['model']}:\n\n{difference(figures, other)}")
        self.result["figures"].append(figures)
        return figures

    def _other(self, name: str) -> dict[str, Any] | None:
        """What `--against` holds of a set; None where it does not."""
        figures = [] if self.others is None else self.others["figures"]
        return next((each for each in figures if each["set"] == name), None)

    def frames(self) -> None:
        """The sample frames."""
        frames = [sample_scene(frame, self.mask_size) for frame in read_samples(share_folder("samples"))]
        self.of("sample frames", frames, None, 0)

    def composites(self) -> None:
        """The raw material's composites, the sample frames, and bare textures."""
        a = self.args
        compositor = evaluation_compositor(a.data, a.sprites, a.split, a.image_size)
        scenes = in_turns(compositor, compositor.material, a.count, a.seed)
        everything = [np.logical_or.reduce(scene.amodal)[None] for scene in scenes]
        union = layer_figures(everything, [scene.layers for scene in scenes], 1).iou
        print(f"baseline, the true union of all objects taken for layer 1: conditional IOU {percent(union)}")
        self.of(f"{a.split} composites", scenes, None, a.seed, () if a.split == "unseen" else ("fruits", "objects"))
        self.frames()
        self.result["two_truths"] = self._two_truths(compositor)
        if a.split != "unseen":
            self.result |= self._bare_textures()

    def _two_truths(self, compositor: Compositor) -> dict[str, float | None]:
        """Of images that two scenes agree with: how often both are among the hypotheses of layer 2, and how far the best gets."""
        a = self.args
        pairs = in_turns(compositor.two_truths, compositor.material, TWO_TRUTHS, a.seed)
        seen = free_running(self.perceiver, [whole.image for whole, _ in pairs], HYPOTHESES, a.seed)
        found, best, mean = [], [], []
        for (whole, cut), scene in zip(pairs, seen, strict=True):
            drawn = scene.hypotheses[1] if len(scene.hypotheses) > 1 else np.zeros((HYPOTHESES, *whole.amodal.shape[1:]), bool)
            found.append(both_found(drawn, [whole.amodal[1], cut.amodal[1]]))
            for each in (whole, cut):
                best.append(max(hidden_iou(one, each.amodal[1], each.visible[1]) for one in drawn[:3]))
                mean.append(hidden_iou(drawn[:3].mean(axis=0) >= 0.5, each.amodal[1], each.visible[1]))
        figures = {"both_found": float(np.mean(found)), "best_of_3": mean_of(best), "mean_hypothesis": mean_of(mean)}
        both, nearest, middle = map(percent, figures.values())
        print(
            f"\n{TWO_TRUTHS} {a.split} images that two scenes agree with, K = {HYPOTHESES}: both are found in {both} %; "
            f"hidden part, IOU: best of 3 {nearest}, mean of these {middle}"
        )
        return figures

    def packed(self) -> None:
        """A packed set, or a share of it that is spread evenly."""
        packed = to_measure_on(self.args.set)
        if packed.meta["mask_size"] != self.mask_size:
            raise ValueError(f"masks of {self.args.set} are {packed.meta['mask_size']} a side, of the model {self.mask_size}")
        deepest, drawn = packed.meta["settings"]["max_layers"], self.model.settings.sequence.max_layers
        if deepest > drawn:
            print(f"scenes of {self.args.set} have up to {deepest} layers, the model draws {drawn}: it cannot draw the others")
        chosen = evenly(len(packed), self.args.count)
        folder = self.args.set.resolve()
        name = f"{folder.parent.name} {folder.name}"
        if self.others is not None and self._other(name) is None:
            raise ValueError(f"{self.args.against} has no figures of {name!r}: give a file of the same set")
        self.of(name, [packed[k] for k in chosen], [int(packed.source[k]) for k in chosen], self.args.seed)

    def _bare_textures(self) -> dict[str, Any]:
        """Share of bare textures in which no layer is seen, and its interval."""
        paths = sorted((self.args.data / "textures" / self.args.split).rglob("*.webp"))
        images = [read_image(path) for path in tqdm(paths, desc="textures", disable=None)]
        blank = [len(scene.amodal) == 0 for scene in free_running(self.perceiver, images, self.args.samples, seed=0)]
        share, interval = mean_of(blank), bounds(blank, np.ones(len(blank)), range(len(blank)))
        print(f"\nbare {self.args.split} textures: {percent(share)}{bracketed(interval)} % of {len(blank)} give no layer")
        return {"bare_textures_blank": share, "bare_textures_blank_interval": interval}


def _figures(path: Path) -> dict[str, Any]:
    """What `--out` wrote; a ValueError where it did not."""
    try:
        found = json.loads(path.read_text())
        if "model" in found and "figures" in found:
            return found
    except (ValueError, TypeError):
        pass
    raise ValueError(f"{path} holds no figures: give a file that --out wrote")


def sample_scene(sample: Sample, mask_size: int) -> Scene:
    """A rendered frame with each object's mask letterboxed to the model's as in training; the image stays as it is."""
    amodal = np.array([letterboxed(mask, mask_size) for mask in sample.amodal])
    return Scene(sample.image, amodal, sample.occluded_by)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--model", default="default", help="a name in models/manifest.yaml or a .safetensors file")
    parser.add_argument("--set", type=Path, help="a packed set of training.prepare or training.synthesize")
    parser.add_argument("--data", type=Path, help="or the raw material: a folder with fruits/, objects/ and textures/")
    parser.add_argument("--sprites", type=Path, help="with --data: folder that training.prepare sprites filled")
    parser.add_argument(
        "--split", default="test", choices=["val", "test", "unseen"], help="of the raw material (default: %(default)s)"
    )
    parser.add_argument(
        "--image-size", type=int, default=128, help="side of the raw material's composites, pixels (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=500, help="images (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=3, help="K (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the model's own)")
    parser.add_argument(
        "--mirror", action=argparse.BooleanOptionalAction, help="look at mirror images too (default: as the model does)"
    )
    parser.add_argument("--runtime", default="torch", choices=RUNTIMES, help="see Perceiver.load (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of scenes and noise (default: %(default)s)")
    parser.add_argument(
        "--majority-null",
        action=argparse.BooleanOptionalAction,
        help="take all hypotheses of a layer for null where most are; moot where they are numbered (default: as the model does)",
    )
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file too")
    parser.add_argument("--against", type=Path, help="a JSON file of --out: print differences to it, paired by scene")
    parser.add_argument(
        "--sheets",
        type=Path,
        help="a folder for sheets of the worst, typical and best images of each set, and a reliability diagram",
    )
    args = parser.parse_args()
    if (args.set and args.data) or (args.data is None) != (args.sprites is None):
        parser.error("give --set, or --data and --sprites, or none of them, for the sample frames alone")
    if args.count < 1:
        parser.error(f"--count must be at least 1, not {args.count}")
    need_folder(parser, args.out, "--out")
    with told(parser):
        evaluation = Evaluation(args)
        (evaluation.packed if args.set else evaluation.composites if args.data else evaluation.frames)()
        if args.out:
            args.out.write_text(json.dumps(evaluation.result, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Figures of the models that the tables compare, all on the same scenes; what was worked out once is kept."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from seqamodal_ros.diffusion.sequence import SequenceSettings, select
from seqamodal_ros.files import write_whole
from seqamodal_ros.scene.components import components
from training.begin import build
from training.data.packed import fingerprint
from training.data.scene import Scene
from training.figures import Figures
from training.instances import ap_by_object
from training.loop import read_checkpoint
from training.methods import Layers, independent_layers, mean_mask, one_shot_layers, sequential_layers
from training.metrics import ap_with_layer, ap_without_layer, hidden_iou, layer_figures, mean_of
from training.taught import without_heads
from training.variants import TablesSettings, independent, variants

AT_ONCE = 16  # images of a batch
VERSION = 3  # of the figures: those that were kept by another version are worked out again


class Comparison:
    """Figures of the models in a folder, on the scenes of one test set.

    Args:
        settings: of the models.
        folder: with a folder for each model.
        trained_on: a fingerprint of the training set.
        scenes: of the test set.
        seed: of the noise.
    """

    def __init__(self, settings: TablesSettings, folder: Path, trained_on: str, scenes: Sequence[Scene], seed: int):
        self.settings, self.folder, self.trained_on, self.scenes, self.seed = settings, folder, trained_on, scenes, seed
        self.variants = variants(settings)
        self.truth = [scene.layers for scene in scenes]
        self.of_scenes = fingerprint(VERSION, self.truth, [scene.image for scene in scenes])
        self.deepest = min(settings.train.composites.max_layers, max(map(len, self.truth), default=0))

    def claim(self, name: str) -> Path:
        """The folder of a model, once it says by which configuration and from which set it comes.

        Raises:
            ValueError: it says that it comes from others.
        """
        folder = self.folder / name
        card = folder / "made_from.json"
        made_from = {"settings": repr(self.variants[name]), "set": self.trained_on}
        if card.is_file() and json.loads(card.read_text()) != made_from:
            raise ValueError(f"{folder} was trained by another configuration, or on another set: give another --out")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(card, json.dumps(made_from).encode())
        return folder

    def sequential(self, name: str, samples: int, steps: int | None = None, mean: bool = False) -> Figures | None:
        """Figures of a model by Algorithm 2, with the selected mask or with the mean one."""
        s = self.settings
        rules = s.train.composites
        steps = steps or s.sampling_steps
        sequence = SequenceSettings(rules.max_layers, rules.area_min)
        choose = partial(mean_mask, area_min=rules.area_min) if mean else select

        def see(models: list[Any], images: list[np.ndarray], seed: int) -> list[Layers]:
            return sequential_layers(models[0], images, sequence, s.sampler, steps, samples, seed, choose)

        return self._measured([name], ("sequential", samples, s.sampler, steps, mean), see)

    def independent(self, equal: str) -> Figures | None:
        """Figures of the models of one layer each."""
        s = self.settings
        names = [independent(equal, layer) for layer in range(1, s.train.composites.max_layers + 1)]

        def see(models: list[Any], images: list[np.ndarray], seed: int) -> list[Layers]:
            return independent_layers(models, images, s.train.composites.area_min, s.sampler, s.sampling_steps, s.samples, seed)

        return self._measured(names, ("independent", s.samples, s.sampler, s.sampling_steps), see)

    def one_shot(self, name: str, samples: int, steps: int) -> Figures | None:
        """Figures of a model that draws all layers at once."""
        area_min = self.settings.train.composites.area_min

        def see(models: list[Any], images: list[np.ndarray], seed: int) -> list[Layers]:
            return one_shot_layers(models[0], images, area_min, steps, samples, seed)

        return self._measured([name], ("one-shot", samples, steps), see)

    def _measured(
        self, names: list[str], how: tuple[Any, ...], see: Callable[[list[Any], list[np.ndarray], int], list[Layers]]
    ) -> Figures | None:
        """Figures as they were written down, or worked out now; None where a model is missing."""
        if any(name not in self.variants for name in names):
            return None
        models = [repr(self.variants[name]) for name in names]
        kept = self.folder / "figures" / f"{names[0]}_{fingerprint(self.trained_on, self.of_scenes, models, how, self.seed)}.json"
        if kept.is_file():
            return json.loads(kept.read_text())
        trained = [self._trained(name) for name in names]
        if any(model is None for model in trained):
            return None
        found: list[Layers] = []
        for start in tqdm(range(0, len(self.scenes), AT_ONCE), desc=names[0], disable=None):
            images = [scene.image for scene in self.scenes[start : start + AT_ONCE]]
            found += see(trained, images, self.seed + start)
        figures = figures_of(found, self.scenes, self.deepest, self.settings.train.composites.area_min)
        kept.parent.mkdir(exist_ok=True)
        write_whole(kept, json.dumps(figures).encode())
        return figures

    def _trained(self, name: str) -> Any:
        """A model with its moving-average weights; None where its run has not ended."""
        path = self.folder / name / "checkpoint.pt"
        if not path.is_file():
            return None
        self.claim(name)
        state = read_checkpoint(path)
        if state["step"] < self.variants[name].loop.steps:
            return None
        network = build(self.variants[name].network)
        network.load_state_dict(without_heads(state["ema"]))
        return network.to("cuda" if torch.cuda.is_available() else "cpu").eval().requires_grad_(False)


def figures_of(found: Sequence[Layers], scenes: Sequence[Scene], deepest: int, area_min: int) -> Figures:
    """Figures of one method; its objects are the connected parts of its layers, of `area_min` pixels at least.

    "hidden": IOU of the hidden parts of layers 2 and 3, of one hypothesis, of the best one, and of the mean of them all.
    """
    stacks, truth = [each.amodal for each in found], [scene.layers for scene in scenes]
    objects = [[part for mask in stack for part in components(mask, area_min)] for stack in stacks]
    hidden = []
    for each, stack in zip(found, truth, strict=True):
        for k in range(1, min(3, len(stack))):
            visible = stack[k] & ~stack[:k].any(axis=0)
            hypotheses = each.hypotheses[k] if k < len(each.hypotheses) else np.zeros((1, *stack.shape[1:]), bool)
            ious = [hidden_iou(mask, stack[k], visible) for mask in hypotheses]
            hidden.append((ious[0], max(ious), hidden_iou(hypotheses.mean(axis=0) >= 0.5, stack[k], visible)))
    return {
        "layers": [vars(layer_figures(stacks, truth, layer)) for layer in range(1, deepest + 1)],
        "ap_with_layer": ap_with_layer(stacks, truth),
        "ap_without_layer": ap_without_layer(stacks, truth),
        "ap_by_object": mean_of([ap_by_object(objects, scenes)]),
        "hidden": [mean_of(values) for values in zip(*hidden, strict=True)] or [None] * 3,
    }

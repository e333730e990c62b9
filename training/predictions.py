# SPDX-License-Identifier: Apache-2.0
"""What a model says of images: by itself, told what lies in front, and told the layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from seqamodal_ros import LayeredScene, Perceiver
from seqamodal_ros.diffusion.adapter import ImageFeatures, normalised
from seqamodal_ros.diffusion.fast import has_centres
from seqamodal_ros.diffusion.proposals import drawer, numbered, proposer
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.perceiver import ways_to_centres
from seqamodal_ros.scene.components import parts_of_layers
from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.layers import cumulative_masks, visible_masks
from training.data.scene import Scene
from training.methods import chosen


def perceiver_on(model: str, runtime: str, **given: Any) -> Perceiver:
    """As `Perceiver.load`; a runtime that was named and is not there is a ValueError, as figures must not be another's."""
    perceiver = Perceiver.load(model, runtime=runtime, **given)
    if runtime not in ("auto", perceiver.runtime):
        raise ValueError(f"runtime '{runtime}' is unavailable here: see the warning above")
    return perceiver


def free_running(perceiver: Perceiver, images: Sequence[np.ndarray], samples: int, seed: int) -> list[LayeredScene]:
    """Algorithm 2 on each image. The noise of image k is drawn from `seed` + k."""
    return [perceiver(image, samples, seed + k) for k, image in enumerate(tqdm(images, desc="free-running", disable=None))]


@torch.inference_mode()
def teacher_forced(
    perceiver: Perceiver, images: Sequence[np.ndarray], truth: Sequence[np.ndarray], samples: int, seed: int
) -> list[np.ndarray]:
    """Each layer from the true cumulative mask, so that order errors do not carry over: bool [L, h, w] of the truth's L.

    Images are letterboxed, and padding cleared, as the perceiver does it.
    """
    network, settings, schedule = perceiver.network, perceiver.model.settings, Schedule.linear()
    area_min, lead = settings.sequence.area_min, numbered(network)
    predicted = []
    for k, (image, stack) in enumerate(zip(tqdm(images, desc="teacher-forced", disable=None), truth, strict=True)):
        rows = len(stack)
        if not rows:
            predicted.append(stack)
            continue
        geometry, features = _features_of(perceiver, image)
        draw = drawer((samples, 1, *stack.shape[1:]), seed + k)
        propose = proposer(network, schedule, features, [draw], samples, settings.sampler, settings.sampling_steps)
        proposals = propose([0] * rows, list(cumulative_masks(stack)[:-1]))
        inside = geometry.inside(stack.shape[1])
        predicted.append(np.stack([chosen(np.where(inside, x0, -1), area_min, lead) for x0 in proposals]))
    return predicted


@torch.inference_mode()
def objects_in_true_layers(perceiver: Perceiver, scenes: Sequence[Scene]) -> list[list[np.ndarray]]:
    """The objects that the model tells apart in the true layers, so that those it draws wrong do not count.

    Returns:
        Of each scene the visible masks bool [h, w] of what shares a centre; connected parts where the network knows no centres.
    """
    objects = []
    for scene in tqdm(scenes, desc="told the layers", disable=None):
        stack, ways = scene.layers, None
        if len(stack) and has_centres(perceiver.model.network):
            _, features = _features_of(perceiver, scene.image)
            (ways,) = ways_to_centres(perceiver.network, [stack], features)
        parts = parts_of_layers(stack, ways, perceiver.model.settings.sequence.area_min)
        objects.append([each & seen for layer, seen in zip(parts, visible_masks(stack), strict=True) for each in layer])
    return objects


def _features_of(perceiver: Perceiver, image: np.ndarray) -> tuple[Geometry, ImageFeatures]:
    """An image's features, and how it came into the square that the network reads."""
    geometry = Geometry.letterbox(image.shape[1], image.shape[0])
    pixels = torch.from_numpy(geometry.to_model(image, perceiver.model.settings.network.image_size)).permute(2, 0, 1)[None]
    return geometry, perceiver.network.encode(normalised(pixels.to(perceiver.device)))

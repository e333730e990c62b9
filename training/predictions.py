# SPDX-License-Identifier: Apache-2.0
"""What a model says of images: by itself, and told what lies in front."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from seqamodal_ros import LayeredScene, Perceiver
from seqamodal_ros.diffusion.adapter import normalised, signed
from seqamodal_ros.diffusion.samplers import generate
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.weights import Model
from seqamodal_ros.runtimes.choice import network_on
from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.layers import cumulative_masks
from training.methods import chosen, drawer


def perceiver_on(model: str, runtime: str, **given: Any) -> Perceiver:
    """As `Perceiver.load`; a runtime that was named and is not there is a ValueError, as figures must not be another's."""
    perceiver = Perceiver.load(model, runtime=runtime, **given)
    if runtime not in ("auto", perceiver.runtime):
        raise ValueError(f"runtime {runtime} is not to be had here: see the warning above")
    return perceiver


def free_running(perceiver: Perceiver, images: Sequence[np.ndarray], samples: int, seed: int) -> list[LayeredScene]:
    """Algorithm 2 on each image. The noise of image k is drawn from `seed` + k."""
    return [perceiver(image, samples, seed + k) for k, image in enumerate(tqdm(images, desc="free-running", disable=None))]


@torch.inference_mode()
def teacher_forced(
    model: Model,
    images: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    samples: int,
    steps: int,
    seed: int,
    device: str,
    runtime: str = "torch",
) -> list[np.ndarray]:
    """Each layer from the true cumulative mask, so that order errors do not carry over: bool [L, h, w] of the truth's L.

    Images are letterboxed, and padding cleared, as the perceiver does it.
    """
    network, settings = network_on(model, device, runtime)[0], model.settings
    schedule = Schedule.linear()
    predicted = []
    for k, (image, stack) in enumerate(zip(tqdm(images, desc="teacher-forced", disable=None), truth, strict=True)):
        rows = len(stack)
        if not rows:
            predicted.append(stack)
            continue
        geometry = Geometry.letterbox(image.shape[1], image.shape[0])
        square = geometry.to_model(image, settings.network.image_size)
        pixels = normalised(torch.from_numpy(square).permute(2, 0, 1)[None].to(device))
        features = tuple(f.repeat_interleave(rows * samples, 0) for f in network.encode(pixels)[: network.conditions])
        cumulative = torch.from_numpy(cumulative_masks(stack)[:-1])[:, None].repeat_interleave(samples, 0)
        draw = drawer(cumulative.shape, seed + k, torch.device(device))
        shown = signed(cumulative).to(device)
        x0 = generate(network, schedule, shown, features, draw, settings.sampler, steps, samples=samples)
        proposals = np.where(geometry.inside(stack.shape[1]), x0.cpu().view(rows, samples, *stack.shape[1:]).numpy(), -1)
        predicted.append(np.stack([chosen(x, settings.sequence.area_min) for x in proposals]))
    return predicted

# SPDX-License-Identifier: Apache-2.0
"""What is said of a scene and its layers, in few words, under the pictures and on the page."""

import numpy as np

from seqamodal_ros.scene.scene import LayeredScene

CANNOT_TELL = "cannot tell"


def counted(number: int, noun: str) -> str:
    """``1 layer``, ``2 layers``; of a noun whose plural takes an s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``4th`` and so on."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def scene_facts(scene: LayeredScene) -> list[str]:
    """How many layers, objects and hypotheses; whether truncated; how long it took, where known; what alone was looked at."""
    facts = [counted(len(scene.amodal), "layer"), counted(len(scene.objects), "object"), f"K = {scene.num_samples}"]
    if scene.truncated:
        facts.append("truncated: more layers may exist")
    if np.isfinite(scene.seconds):
        facts.append(f"{scene.seconds:.2f} s")
    if not scene.geometry.sees_all:
        left, top, right, bottom = scene.geometry.seen
        facts.append(f"looked at {right - left:g}x{bottom - top:g} at {left:g}, {top:g}")
    return facts


def layer_facts(scene: LayeredScene, index: int) -> list[str]:
    """How many objects layer `index` (from 0) holds, how much of it is hidden, and how far the K hypotheses agree on it."""
    count = sum(obj.layer == index + 1 for obj in scene.objects)
    hidden = 1 - scene.visible[index].sum() / max(1, scene.amodal[index].sum())
    facts = [counted(count, "object"), f"{hidden:.0%} hidden"]
    agreement = scene.agreement[index]
    if np.isnan(agreement):
        return facts if scene.num_samples == 1 else [*facts, f"seen by 1 of {scene.num_samples}"]
    return [*facts, f"agreement {agreement:.2f}"]

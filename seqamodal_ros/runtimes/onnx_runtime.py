# SPDX-License-Identifier: Apache-2.0
"""An exported model on ONNX Runtime, float32."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import ImageFeatures, WithTraitsOf
from seqamodal_ros.diffusion.blocks import numbers
from seqamodal_ros.runtimes.exported import Card, threads


class OnnxRuntimeNetwork(WithTraitsOf):
    """See `Network`; on the CPU, with as many threads as PyTorch has.

    Attributes:
        precision: "float32", what is computed in.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """

    def __init__(self, folder: Path, card: Card):
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read as it is imported
        import onnxruntime

        super().__init__(card)
        self.precision = "float32"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        # else the threads of one part, which wait by spinning, keep the cores from the next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._encoder, self._denoiser, *self._centres = (
            onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"]) for name in card.parts
        )

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        return tuple(map(torch.from_numpy, self._encoder.run(None, {"image": image.numpy()})))

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """As the network's."""
        number = numbers(hypothesis, t)
        return _run(self._denoiser, x_t, t, cumulative_mask, number, *image_features[: self.conditions])

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's, of a card with centres."""
        return _run(self._centres[0], layer, cumulative_mask, *image_features)


def _run(session: Any, *given: Tensor) -> Tensor:
    inputs = {each.name: tensor.numpy() for each, tensor in zip(session.get_inputs(), given, strict=True)}
    return torch.from_numpy(session.run(None, inputs)[0])

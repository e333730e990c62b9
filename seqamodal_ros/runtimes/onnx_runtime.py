# SPDX-License-Identifier: Apache-2.0
"""An exported model on ONNX Runtime, float32."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import ImageFeatures
from seqamodal_ros.runtimes.exported import DENOISER, ENCODER, Card, threads


class OnnxRuntimeNetwork:
    """See `Network`; on the CPU, with as many threads as PyTorch has.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """

    def __init__(self, folder: Path, card: Card):
        import onnxruntime

        self.prediction, self.blank = card.prediction, card.blank
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        self._encoder, self._denoiser = (
            onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, DENOISER)
        )
        self._names = [each.name for each in self._denoiser.get_inputs()]

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        return tuple(map(torch.from_numpy, self._encoder.run(None, {"image": image.numpy()})))

    def denoise(self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's."""
        given = (x_t, t, cumulative_mask, *image_features)
        inputs: dict[str, Any] = {name: each.numpy() for name, each in zip(self._names, given, strict=True)}
        return torch.from_numpy(self._denoiser.run(None, inputs)[0])

# SPDX-License-Identifier: Apache-2.0
"""An exported model on OpenVINO, in bfloat16 where the CPU computes in it and is no slower so, else in float32."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import ImageFeatures, WithTraitsOf
from seqamodal_ros.diffusion.blocks import numbers
from seqamodal_ros.runtimes.bfloat16 import slower_in_bfloat16
from seqamodal_ros.runtimes.exported import Card, threads

# Rows of a batch that the encoder, the denoiser and ways to centres compute at once. Where all shapes are known a part is a fifth
# faster, but each number of rows is compiled by itself, in up to half a second and 15 to 80 MB; more at once save a CPU little.
# An image and its mirror image; K = 3 of each; two layers of each.
PIECES = (2, 1), (6, 3, 2, 1), (4, 2, 1)
HINTS = {"bfloat16": "bf16", "float32": "f32"}  # a precision, and what OpenVINO calls it


class OpenVinoNetwork(WithTraitsOf):
    """See `Network`; on the CPU, with as many threads as PyTorch has.

    Attributes:
        precision: "bfloat16" or "float32", what is computed in.

    Args:
        folder, card: of the export.

    Raises:
        ImportError: OpenVINO is not installed.
    """

    def __init__(self, folder: Path, card: Card):
        sys.modules.setdefault("openvino_telemetry", cast(Any, None))  # or a robot would ask for a server on the internet
        import openvino

        super().__init__(card)
        core = openvino.Core()
        able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = "bfloat16" if able and not slower_in_bfloat16("cpu") else "float32"
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads(),
        }
        self._encoder, self._denoiser, *self._centres = (
            Part(core, folder / name, settings, pieces) for name, pieces in zip(card.parts, PIECES, strict=False)
        )

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        return self._encoder(image)

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """As the network's."""
        return self._denoiser(x_t, t, cumulative_mask, numbers(hypothesis, t), *image_features[: self.conditions])[0]

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's, of a card with centres."""
        (centres,) = self._centres
        return centres(layer, cumulative_mask, *image_features)[0]


class Part:
    """A file of an export, compiled for the pieces that batches are computed in as they come.

    Args:
        core: OpenVINO's.
        path: of the file; read at once.
        settings: what it is compiled with.
        pieces: see `PIECES`.
    """

    def __init__(self, core: Any, path: Path, settings: dict[str, Any], pieces: tuple[int, ...]):
        self._core, self._settings, self._pieces = core, settings, pieces
        self._model = core.read_model(path)
        self._compiled: dict[int, Any] = {}  # by rows

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """What the part makes of a batch."""
        answers = [self._of_piece([each[rows].numpy() for each in given]) for rows in self._cut(len(given[0]))]
        return answers[0] if len(answers) == 1 else tuple(map(torch.cat, zip(*answers, strict=True)))

    def _cut(self, rows: int) -> Iterator[slice]:
        """The rows of each piece, the largest pieces first."""
        start = 0
        for size in self._pieces:
            while rows - start >= size:
                yield slice(start, start := start + size)

    def _of_piece(self, given: list[np.ndarray]) -> tuple[Tensor, ...]:
        size = len(given[0])
        if size not in self._compiled:
            model = self._model.clone()
            model.reshape({each.any_name: [size, *list(each.partial_shape)[1:]] for each in model.inputs})
            self._compiled[size] = self._core.compile_model(model, "CPU", self._settings)
        answers = self._compiled[size](given)
        return tuple(torch.from_numpy(answers[k]) for k in range(len(answers)))

# SPDX-License-Identifier: Apache-2.0
"""Which runtime a model gets: the one that was asked for, or the next best that is there."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import ImageFeatures, Network
from seqamodal_ros.diffusion.in_parts import InParts
from seqamodal_ros.diffusion.mirrored import Mirrored
from seqamodal_ros.diffusion.weights import Model
from seqamodal_ros.runtimes.exported import Card, export_folder, read_card
from seqamodal_ros.runtimes.onnx_runtime import OnnxRuntimeNetwork
from seqamodal_ros.runtimes.openvino import OpenVinoNetwork

# fastest first, as measured (docs/performance.md)
OF_EXPORTS: dict[str, Callable[[Path, Card], Network]] = {"openvino": OpenVinoNetwork, "onnxruntime": OnnxRuntimeNetwork}
BFLOAT16 = "torch-bf16"


class Bfloat16:
    """A PyTorch network, computed in bfloat16 where autocast does; predictions are float32."""

    def __init__(self, network: Network, device: str):
        self.network, self._device = network, device
        self.prediction, self.blank = network.prediction, network.blank

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        with torch.autocast(self._device, torch.bfloat16):
            return self.network.encode(image)

    def denoise(self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's."""
        with torch.autocast(self._device, torch.bfloat16):
            return self.network.denoise(x_t, t, cumulative_mask, image_features).float()


def network_on(model: Model, device: str, runtime: str) -> tuple[Network, str]:
    """The network as a runtime computes it, ready to propose layers, and the runtime's name.

    Args:
        model: its weights and settings.
        device: "cpu" or "cuda".
        runtime: of `perceiver.RUNTIMES`. "auto" takes the fastest whose package and export are there; one that was named and is
            not there is told in a warning, and PyTorch takes its place.
    """
    network, name = _exported(model, device, runtime)
    if network is None:
        network = model.network.to(device)
        name = "torch"
        if runtime == BFLOAT16:
            network, name = Bfloat16(network, device), BFLOAT16
    return InParts(Mirrored(network) if model.settings.mirror else network), name


def _exported(model: Model, device: str, runtime: str) -> tuple[Network | None, str]:
    wanted = list(OF_EXPORTS) if runtime == "auto" else [runtime] if runtime in OF_EXPORTS else []
    if runtime == "auto" and device != "cpu":
        return None, ""
    damaged = False
    why = "" if device == "cpu" else f"exports run on the CPU, not on {device}"
    for name in wanted if not why else []:
        try:
            folder = export_folder(model.model_id)
            network = OF_EXPORTS[name](folder, read_card(folder, model.model_id))
            torch.set_num_threads(1)  # little is left to PyTorch; its threads, waiting for more, would take the runtime's cores
            return network, name
        except Exception as error:  # a runtime's own are of many kinds
            why = f"pip install -r requirements/runtimes.txt: {error}" if isinstance(error, ImportError) else str(error)
            damaged = damaged or not isinstance(error, (ImportError, FileNotFoundError))
    if runtime in OF_EXPORTS or damaged:
        logging.getLogger(__name__).warning("runtime %s is not to be had (%s): going on with torch", runtime, why)
    return None, ""

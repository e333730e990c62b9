# SPDX-License-Identifier: Apache-2.0
"""PyTorch in bfloat16, on hardware that has it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import CentredNetwork, ImageFeatures

IN_CPUS = ("avx512_bf16", "amx_bf16", "bf16")  # what PyTorch calls it on x86 and on ARM


def computes_bfloat16(device: str) -> bool:
    """Whether a device does; where not, PyTorch makes it up, on an AVX2 CPU at a four hundredth of float32's rate.

    A PyTorch that does not tell what its CPU can do (2.10 and older) is taken for one without.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(able.get(name) for name in IN_CPUS)


class Bfloat16:
    """A PyTorch network, computed in bfloat16 where autocast does; predictions are float32."""

    def __init__(self, network: CentredNetwork, device: str):
        self.network, self._device = network, device
        self.prediction, self.blank, self.conditions = network.prediction, network.blank, network.conditions

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        with torch.autocast(self._device, torch.bfloat16):
            return self.network.encode(image)

    def denoise(self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's."""
        with torch.autocast(self._device, torch.bfloat16):
            return self.network.denoise(x_t, t, cumulative_mask, image_features).float()

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's, in float32: places of pixels are counted in it."""
        return self.network.to_centres(layer, cumulative_mask, tuple(f.float() for f in image_features))

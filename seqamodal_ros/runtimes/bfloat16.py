# SPDX-License-Identifier: Apache-2.0
"""PyTorch in bfloat16, on hardware that has it."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn

from seqamodal_ros.diffusion.adapter import CentredNetwork, ImageFeatures, WithTraitsOf

IN_CPUS = ("avx512_bf16", "amx_bf16", "bf16")  # what PyTorch calls it on x86 and on ARM


def computes_bfloat16(device: str) -> bool:
    """Whether a device does; where not, PyTorch makes it up, on an AVX2 CPU at a four hundredth of float32's rate.

    A PyTorch that does not tell what its CPU can do (2.10 and older) is taken for one without.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(_of_cpu().get(name) for name in IN_CPUS)


def slower_in_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 and is slower in it than in float32, as Intel's CPUs are where they have no matrix
    units (AMX), or where a virtual machine hides them: by a sixth to a third, on the one that was measured (docs/performance.md).
    """
    able = _of_cpu()
    intel = str(able.get("cpu_name", "")).startswith("Intel")
    return torch.device(device).type == "cpu" and computes_bfloat16(device) and intel and not able.get("amx_bf16")


def _of_cpu() -> Mapping[str, Any]:
    """What PyTorch tells of the CPU; nothing, of 2.10 and older."""
    return getattr(torch.cpu, "get_capabilities", dict)()


class Bfloat16(WithTraitsOf):
    """A copy of a PyTorch network, computed in bfloat16 where autocast does; predictions are float32.

    The weights of what autocast computes in bfloat16 are kept in it, to the same result as if each call rounded them anew. On a
    GPU they are in channels_last order, as its matrix units take them.
    """

    def __init__(self, network: CentredNetwork, device: str):
        super().__init__(network)
        copy = deepcopy(cast(nn.Module, network))
        for name, module in copy.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("centres."):
                module.to(torch.bfloat16)
        if device == "cuda":
            copy.to(memory_format=torch.channels_last)
        self.network, self._device = cast(CentredNetwork, copy), device

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        with torch.autocast(self._device, torch.bfloat16):
            return self.network.encode(image)

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """As the network's."""
        with torch.autocast(self._device, torch.bfloat16):
            return self.network.denoise(x_t, t, cumulative_mask, image_features, hypothesis).float()

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's, in float32: places of pixels are counted in it."""
        return self.network.to_centres(layer, cumulative_mask, tuple(f.float() for f in image_features))

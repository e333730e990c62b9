# SPDX-License-Identifier: Apache-2.0
"""Which runtime a model gets: the one that was asked for, or the next best that is there."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import torch

from seqamodal_ros.diffusion.adapter import CentredNetwork
from seqamodal_ros.diffusion.in_parts import InParts, out_of_memory
from seqamodal_ros.diffusion.mirrored import Mirrored
from seqamodal_ros.diffusion.weights import Model
from seqamodal_ros.runtimes.bfloat16 import Bfloat16, computes_bfloat16
from seqamodal_ros.runtimes.blank_calls import call_blank
from seqamodal_ros.runtimes.cuda_graphs import CudaGraphs
from seqamodal_ros.runtimes.exported import Card, export_folder, read_card
from seqamodal_ros.runtimes.onnx_runtime import OnnxRuntimeNetwork
from seqamodal_ros.runtimes.openvino import OpenVinoNetwork

LOGGER = logging.getLogger(__name__)
# the first that is there is taken: OpenVINO is the fastest on all CPUs that were measured (docs/performance.md)
OF_EXPORTS: dict[str, Callable[[Path, Card], OpenVinoNetwork | OnnxRuntimeNetwork]] = {
    "openvino": OpenVinoNetwork,
    "onnxruntime": OnnxRuntimeNetwork,
}
BFLOAT16 = "torch-bf16"
_threads_before: int | None = None  # PyTorch's, before an export left it one
MISSING = "runtime '%s' is unavailable (%s): falling back to '%s'"
USUAL = 3  # K that most ask for: what is compiled to try a runtime out is then of use


class Computed(NamedTuple):
    """A network as a runtime computes it, ready to propose layers.

    Attributes:
        network: see `CentredNetwork`.
        runtime: its name, one of `perceiver.RUNTIMES` but "auto".
        precision: "float32" or "bfloat16", what most of it is computed in.
    """

    network: CentredNetwork
    runtime: str
    precision: str


def network_on(model: Model, device: str, runtime: str, source: str = "") -> Computed:
    """The network on a runtime.

    Args:
        model: its weights and settings.
        device: "cpu" or "cuda".
        runtime: of `perceiver.RUNTIMES`. "auto" takes the first of `OF_EXPORTS` whose package and export are there, else PyTorch
            in float32, on a GPU in bfloat16. One that was named and is not there is told in a warning, and the next best takes
            its place: of exports another export, then PyTorch in float32. So is an export that is there and is damaged, does not
            run, or is of other weights.
        source: what the model was loaded by, for the command in a warning; see `read_card`.

    Raises:
        torch.OutOfMemoryError: the GPU has no memory for the network.
    """
    computed = _exported(model, device, runtime, source) or _by_torch(model, device, runtime)
    network = _of_views(computed.network, model)
    if device == "cuda" and computed.runtime == BFLOAT16:
        network = CudaGraphs(network)
    return computed._replace(network=InParts(network))


def _of_views(network: CentredNetwork, model: Model) -> CentredNetwork:
    """Of the image, and of its mirror image where the model looks at it, too."""
    return Mirrored(network) if model.settings.mirror else network


def _by_torch(model: Model, device: str, runtime: str) -> Computed:
    """The network by PyTorch; in bfloat16 where that was asked for, or is best, and the device has it."""
    if device == "cpu":
        _give_threads_back()
    try:
        network = cast(CentredNetwork, model.network.to(device))  # who asks for ways to centres sees to it that it has them
        if runtime == BFLOAT16 or (runtime == "auto" and device == "cuda"):
            if computes_bfloat16(device):
                return Computed(Bfloat16(network, device), BFLOAT16, "bfloat16")
            if runtime == BFLOAT16:
                LOGGER.warning(MISSING, runtime, f"the {device} here does not compute in bfloat16", "torch")
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(
            f"the GPU has no memory for the model: free some, or use the device cpu ({error})"
        ) from error
    return Computed(network, "torch", "float32")


def _leave_one_thread() -> None:
    """Beside an export little is left to PyTorch; its threads, waiting for more, would take the runtime's cores."""
    global _threads_before
    if (now := torch.get_num_threads()) > 1:
        _threads_before = now
        torch.set_num_threads(1)


def _give_threads_back() -> None:
    """Those that an export took, unless somebody has set others since."""
    global _threads_before
    if _threads_before and torch.get_num_threads() == 1:
        torch.set_num_threads(_threads_before)
    _threads_before = None


def _exported(model: Model, device: str, runtime: str, source: str) -> Computed | None:
    """The network on the runtime of an export; None where none was asked for, or is to be had."""
    if runtime not in ("auto", *OF_EXPORTS):
        return None
    if device != "cpu":
        if runtime != "auto":
            LOGGER.warning(MISSING, runtime, f"exports run on the CPU, not on {device}", "torch")
        return None
    computed: Computed | None = None
    told: dict[str, str] = {}  # why not -> the first runtime that it is said of
    for name in sorted(OF_EXPORTS, key=lambda name: name != runtime):  # the one that was named, then in their order
        try:
            folder = export_folder(model.model_id)
            network = OF_EXPORTS[name](folder, read_card(folder, model, source))
            call_blank(_of_views(network, model), model, device, USUAL, images=1, most=1)  # or it would fail in a frame
            computed = Computed(network, name, network.precision)
            _leave_one_thread()
            break
        except Exception as error:  # a runtime's own are of many kinds
            if name == runtime or not isinstance(error, (ImportError, FileNotFoundError)):
                install = "pip install -r requirements/runtimes.txt: " if isinstance(error, ImportError) else ""
                told.setdefault(f"{install}{error}", name)
    for why, name in told.items():
        LOGGER.warning(MISSING, name, why, computed.runtime if computed else "torch")
    return computed

# SPDX-License-Identifier: Apache-2.0
"""Network calls of nothing: the first of a batch size compiles or records on some runtimes, and shows what fails there."""

from collections.abc import Callable, Iterable
from itertools import islice

import torch

from seqamodal_ros.diffusion.adapter import CentredNetwork
from seqamodal_ros.diffusion.fast import has_centres
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.shared_start import shares_start
from seqamodal_ros.diffusion.weights import Model
from seqamodal_ros.runtimes.cuda_graphs import MOST
from seqamodal_ros.runtimes.openvino import PIECES


def most_sizes(device: str) -> int:
    """Batch sizes of a kind of call after which a further one has nothing left to compile or to record.

    OpenVINO computes larger batches in the same pieces, and other runtimes on a CPU prepare nothing for a size; of CUDA graphs no
    more are kept.
    """
    return MOST if device == "cuda" else max(map(max, PIECES))


@torch.inference_mode()
def call_blank(
    network: CentredNetwork,
    model: Model,
    device: str,
    samples: int,
    images: int,
    most: int,
    before_call: Callable[[], None] = lambda: None,
) -> None:
    """Make the calls that a batch of 1 to `images` images can take, each batch size of each kind once, likely ones first.

    Args:
        network: computes `model`, on `device`.
        model: its weights and settings.
        device: "cpu" or "cuda".
        samples: K.
        images: 1 or more.
        most: batch sizes of each kind of call; what comes after these is left out.
        before_call: runs before each call.
    """
    settings = model.settings
    side, size = settings.network.image_size, settings.network.mask_size
    (first,) = Schedule.linear().trailing(1)
    for count in range(1, 1 + min(images, most)):
        before_call()
        features = network.encode(torch.zeros(count, 3, side, side, device=device))
    of_one = tuple(f[:1] for f in features)
    for rows in islice(dict.fromkeys(_rows(network, settings.sampling_steps, device, samples, images)), most):
        masks = torch.zeros(rows, 1, size, size, device=device)
        conditions = tuple(f.repeat_interleave(rows, 0) for f in of_one[: network.conditions])
        before_call()
        network.denoise(masks, torch.full((rows,), first, device=device), masks - 1, conditions)
    if has_centres(model.network):
        for layers in range(1, 1 + min(images * settings.sequence.max_layers, most)):
            blank = torch.zeros(layers, 1, size, size, device=device) - 1
            before_call()
            network.to_centres(-blank, blank, tuple(f.expand(layers, *f.shape[1:]) for f in of_one[network.conditions :]))


def _rows(network: CentredNetwork, steps: int, device: str, samples: int, images: int) -> Iterable[int]:
    """Batch sizes that the denoiser meets, likely ones first; some come twice."""
    counts = range(1, images + 1)
    if not shares_start(network, steps):
        return [count * samples for count in counts]
    distinct = min(samples, network.hypotheses)
    if device == "cpu" and distinct > 1:  # `SharedStart` asks no more for hypotheses that saw nothing, whichever they are
        return [distinct, samples, *range(1, images * samples + 1)]
    return [*(count * distinct for count in counts), *(count * samples for count in counts)]

# SPDX-License-Identifier: Apache-2.0
"""What Algorithm 2 asks for: the K proposals for the next layer of each image, all of them in one batch."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch

from seqamodal_ros.diffusion.adapter import ImageFeatures, Network, signed
from seqamodal_ros.diffusion.samplers import Draw, generate
from seqamodal_ros.diffusion.schedule import Schedule


def numbered(network: Network) -> bool:
    """Whether it tells its hypotheses apart by number: number 0 alone draws the layers then, see `lead` of `sequence`."""
    return network.hypotheses > 1


def drawer(shape: Sequence[int], seed: int, device: torch.device | str = "cpu") -> Draw:
    """Standard normal noise, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(*shape, generator=generator).to(device)


def proposer(
    network: Network,
    schedule: Schedule,
    features: ImageFeatures,
    draws: Sequence[Draw],
    samples: int,
    sampler: str,
    steps: int,
    before_call: Callable[[], None] = lambda: None,
) -> Callable[[list[int], list[np.ndarray]], list[np.ndarray]]:
    """`propose` of `sequence.run`.

    Args:
        network, schedule: see `adapter.conditioned`.
        features: of the images, see `Network.encode`.
        draws: of each image, gives noise float [K, 1, h, w], new at each call.
        samples: K.
        sampler, steps, before_call: see `generate`.

    Returns:
        Takes indices of images and their cumulative masks bool [h, w]; gives float32 [K, h, w] in [-1, 1] of each.
    """

    @lru_cache(maxsize=1)  # the images change only where one has no more layers
    def conditions(indices: tuple[int, ...]) -> ImageFeatures:
        of_image = torch.tensor(indices, device=features[0].device).repeat_interleave(samples)
        return tuple(f[of_image] for f in features[: network.conditions])

    @torch.inference_mode()
    def propose(indices: list[int], in_front: list[np.ndarray]) -> list[np.ndarray]:
        device = features[0].device
        cumulative = signed(torch.from_numpy(np.stack(in_front))[:, None]).repeat_interleave(samples, 0)
        x0 = generate(
            network,
            schedule,
            cumulative_mask=_sent(cumulative, device),
            features=conditions(tuple(indices)),
            draw=lambda: _sent(torch.cat([draws[index]() for index in indices]), device),
            sampler=sampler,
            steps=steps,
            before_call=before_call,
            samples=samples,
        )
        return list(x0.cpu().view(len(indices), samples, *in_front[0].shape).numpy())

    return propose


def _sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On a device, which is not waited for: a GPU fetches them when it comes to them, from memory that stays in its place."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)

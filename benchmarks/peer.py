# SPDX-License-Identifier: Apache-2.0
"""The peer: diffusers' U-Net of the paper's shape and its ancestral sampling; with the weights of ours where asked."""

from collections.abc import Iterable

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from seqamodal_ros.diffusion.paper import ATTENTION_SIDE, Block, PaperNetwork, PaperSettings

STEPS = 1000


def unet(settings: PaperSettings | None = None) -> UNet2DModel:
    """float [B, 5, h, w] and timesteps -> float [B, 2, h, w], as `paper.UNet`."""
    s = settings or PaperSettings()
    kinds = ["AttnDownBlock2D" if side == ATTENTION_SIDE else "DownBlock2D" for side in s.sides]
    return UNet2DModel(
        sample_size=s.mask_size,
        in_channels=5,
        out_channels=2,
        layers_per_block=2,
        block_out_channels=tuple(s.channels * multiplier for multiplier in s.multipliers),
        down_block_types=tuple(kinds),
        up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(kinds)),
        attention_head_dim=None,
        flip_sin_to_cos=True,  # the order of the embedding's halves
    )


def with_weights_of(network: PaperNetwork) -> UNet2DModel:
    """The peer's U-Net that computes what ours does.

    Raises:
        ValueError: one of them has weights that the other lacks.
    """
    ours, theirs = network.unet, unet(network.settings)
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (ours.time[0], theirs.time_embedding.linear_1),
        (ours.time[2], theirs.time_embedding.linear_2),
        (ours.inlet, theirs.conv_in),
        (ours.out[0], theirs.conv_norm_out),
        (ours.out[2], theirs.conv_out),
    ]
    for down, level in zip(ours.down, theirs.down_blocks, strict=True):
        pairs += _blocks(down.blocks, level.resnets, getattr(level, "attentions", ()))
        pairs += [] if down.shrink is None else [(down.shrink, level.downsamplers[0].conv)]
    pairs += _blocks(ours.middle, theirs.mid_block.resnets, theirs.mid_block.attentions)
    for up, level in zip(ours.up, theirs.up_blocks, strict=True):
        pairs += _blocks(up.blocks, level.resnets, getattr(level, "attentions", ()))
        pairs += [] if up.enlarge is None else [(up.enlarge, level.upsamplers[0].conv)]
    copied = 0
    for source, target in pairs:
        for name, value in source.named_parameters():
            parameter = target.get_parameter(name)
            parameter.data.copy_(value.reshape(parameter.shape))
            copied += value.numel()
    if any(copied != sum(each.numel() for each in side.parameters()) for side in (network, theirs)):
        raise ValueError(f"{copied} weights were found on both sides, which is not all of them: is diffusers of another version?")
    return theirs.eval().requires_grad_(False)


def _blocks(blocks: Iterable[Block], residuals: Iterable[nn.Module], attentions: Iterable[nn.Module]) -> list[tuple]:
    """Pairs of what has weights, of the blocks of a level."""
    pairs: list[tuple] = []
    left = iter(attentions)
    for block, theirs in zip(blocks, residuals, strict=True):
        ours = block.residual
        names = {"norm_1": "norm1", "conv_1": "conv1", "time": "time_emb_proj", "norm_2": "norm2", "conv_2": "conv2"}
        pairs += [(getattr(ours, name), getattr(theirs, other)) for name, other in names.items()]
        if not isinstance(ours.skip, nn.Identity):
            pairs.append((ours.skip, theirs.conv_shortcut))
        if not isinstance(block.attention, nn.Identity):
            attention = next(left)
            pairs += [(block.attention.norm, attention.group_norm), (block.attention.out, attention.to_out[0])]
            pairs += zip(_thirds(block.attention.qkv), (attention.to_q, attention.to_k, attention.to_v), strict=True)
    return pairs


def _thirds(qkv: nn.Conv2d) -> list[nn.Linear]:
    """Queries, keys and values by themselves."""
    parts = []
    for weight, bias in zip(qkv.weight.flatten(1).chunk(3), qkv.bias.chunk(3), strict=True):
        part = nn.Linear(weight.shape[1], len(weight))
        part.load_state_dict({"weight": weight, "bias": bias})
        parts.append(part)
    return parts


@torch.no_grad()
def sample(network: UNet2DModel, condition: Tensor, generator: torch.Generator, calls: int) -> Tensor:
    """What the first `calls` of 1000 steps of `DDPMScheduler` leave of one layer, float [K, 1, h, w]; after all of them x0.

    Args:
        condition: image and cumulative mask, float [K, 4, h, w].
        generator: gives x_T, and the noise of each step but the last.
    """
    scheduler = DDPMScheduler(STEPS, 1e-4, 0.02, "linear", variance_type="learned_range")
    x = torch.randn(len(condition), 1, *condition.shape[2:], device=condition.device, generator=generator)
    for t in scheduler.timesteps[:calls]:
        predicted = network(torch.cat([condition, x], dim=1), t).sample
        x = scheduler.step(predicted, int(t), x, generator=generator).prev_sample
    return x

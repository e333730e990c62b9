# SPDX-License-Identifier: Apache-2.0
"""The `fast` network with a head on its encoder that training alone knows: what it learns, the features have to tell."""

from torch import Tensor, nn

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings


class TaughtNetwork(FastNetwork):
    """See `FastNetwork`; the head is left out of what is exported.

    Attributes:
        edges: finest features -> both sides of occlusion edges, see training.edges.
    """

    HEADS = ("edges.",)  # how the names of its weights begin

    def __init__(self, settings: FastSettings):
        super().__init__(settings)
        self.edges = nn.Conv2d(settings.encoder_channels[0], 2, 1)


def without_heads(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the `fast` network alone."""
    return {name: value for name, value in state.items() if not name.startswith(TaughtNetwork.HEADS)}

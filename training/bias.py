# SPDX-License-Identifier: Apache-2.0
"""The bias of the `fast` network, which its file has taken off the log-odds of every pixel, and training gives back."""

from torch import Tensor

from seqamodal_ros.diffusion.weights import Model

_NAME = "denoiser.out.3.bias"


def without_bias(model: Model) -> dict[str, Tensor]:
    """The weights as they were trained, before `settings.bias` was taken off."""
    state = model.network.state_dict()
    take_off(state, -model.settings.bias)
    return state


def take_off(state: dict[str, Tensor], bias: float) -> None:
    """Take so much from the log-odds of every pixel, in `state` itself. The paper's network draws none, and its bias is 0."""
    if bias:
        state[_NAME] = state[_NAME] - bias

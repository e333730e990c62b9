# SPDX-License-Identifier: Apache-2.0
"""The networks by their settings: the one place that knows which there are."""

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings

NetworkSettings = FastSettings | PaperSettings  # a mapping without `kind` is of the first


def build_network(settings: NetworkSettings) -> FastNetwork | PaperNetwork:
    """The network of these settings, with random weights."""
    return FastNetwork(settings) if isinstance(settings, FastSettings) else PaperNetwork(settings)

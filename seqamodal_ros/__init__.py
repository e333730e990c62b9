# SPDX-License-Identifier: Apache-2.0
"""Sequential amodal segmentation: the complete mask of every object in an image, layer by layer from the top."""

from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.scene.scene import LayeredScene, SceneObject

__version__ = "0.1.0"
__all__ = ["LayeredScene", "Perceiver", "SceneObject", "__version__"]

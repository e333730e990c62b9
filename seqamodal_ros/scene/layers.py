# SPDX-License-Identifier: Apache-2.0
"""Layer order of a scene: occlusions, layers, cumulative and visible masks (Eq. 1-3 of the paper)."""

import numpy as np


def occlusions(amodal: np.ndarray, depth_order: np.ndarray) -> np.ndarray:
    """Z of Eq. 1: which object is occluded by which.

    Args:
        amodal: bool [N, h, w], the amodal mask of each object.
        depth_order: [N], smaller is nearer to the camera; equal values occlude one another nowhere.

    Returns:
        bool [N, N]; ``Z[i, j]`` is true if object i is occluded by object j, that is, their amodal masks share a
        pixel and j is in front.
    """
    flat = np.asarray(amodal, dtype=bool).reshape(len(amodal), int(np.prod(amodal.shape[1:]))).astype(np.float32)
    order = np.asarray(depth_order)
    return (flat @ flat.T > 0) & (order[None, :] < order[:, None])


def layer_indices(occluded_by: np.ndarray) -> np.ndarray:
    """L of Eq. 2: 1 for an unoccluded object, else one more than the deepest of its occluders.

    Args:
        occluded_by: bool [N, N], Z of Eq. 1.

    Returns:
        int64 [N], from 1.

    Raises:
        ValueError: objects occlude one another in a cycle, so that no layer order exists.
    """
    z = np.asarray(occluded_by, dtype=bool)
    layers = np.ones(len(z), dtype=np.int64)
    for _ in range(len(z)):
        deeper = np.maximum(1, 1 + np.where(z, layers[None, :], 0).max(axis=1, initial=0))
        if np.array_equal(deeper, layers):
            return layers
        layers = deeper
    if len(z):
        raise ValueError("objects occlude one another in a cycle; there is no layer order for such a scene")
    return layers


def layer_masks(amodal: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """The union of the amodal masks of each layer's objects.

    Args:
        amodal: bool [N, h, w].
        layers: int [N], from 1, as `layer_indices` returns them.

    Returns:
        bool [L, h, w], front first; L is the deepest layer (0 with no object).
    """
    amodal = np.asarray(amodal, dtype=bool)
    count = int(layers.max()) if len(layers) else 0
    stack = [amodal[layers == index].any(axis=0) for index in range(1, count + 1)]
    return np.array(stack, dtype=bool).reshape(count, *amodal.shape[1:])


def cumulative_masks(stack: np.ndarray) -> np.ndarray:
    """CM of Eq. 3 for each layer, and the one for the layer after the last.

    Args:
        stack: bool [L, h, w], amodal masks of the layers, front first.

    Returns:
        bool [L + 1, h, w]; entry i is the union of the layers before layer i + 1, so entry 0 is blank.
    """
    stack = np.asarray(stack, dtype=bool)
    before = np.zeros((len(stack) + 1, *stack.shape[1:]), dtype=bool)
    for index, mask in enumerate(stack):  # of large masks `logical_or.accumulate` takes fifty times as long
        np.logical_or(before[index], mask, out=before[index + 1])
    return before


def visible_masks(stack: np.ndarray) -> np.ndarray:
    """Each layer minus everything in front of it: bool [L, h, w] from bool [L, h, w], front first."""
    stack = np.asarray(stack, dtype=bool)
    return stack & ~cumulative_masks(stack)[:-1]

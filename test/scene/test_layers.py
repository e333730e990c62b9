# SPDX-License-Identifier: Apache-2.0
"""Eq. 1-3: occlusions, layers, cumulative and visible masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seqamodal_ros.scene.layers import cumulative_masks, layer_indices, layer_masks, occlusions, visible_masks

STACKS = arrays(bool, st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 6)))


def relation(count: int, *pairs: tuple[int, int]) -> np.ndarray:
    """Z with Z[i, j] for each pair (i, j): i is occluded by j."""
    z = np.zeros((count, count), bool)
    for i, j in pairs:
        z[i, j] = True
    return z


class TestOcclusions:
    def test_shared_pixel_and_depth_make_an_occlusion(self, rectangles):
        masks = rectangles((0, 0, 10, 10), (9, 9, 20, 20), (15, 0, 20, 5))
        assert occlusions(masks, np.array([0, 1, 2])).tolist() == relation(3, (1, 0)).tolist()
        assert occlusions(masks, np.array([1, 0, 2])).tolist() == relation(3, (0, 1)).tolist()

    def test_touching_without_a_shared_pixel_is_no_occlusion(self, rectangles):
        assert not occlusions(rectangles((0, 0, 10, 10), (10, 0, 20, 10)), np.array([0, 1])).any()

    def test_equal_depth_occludes_nowhere(self, rectangles):
        assert not occlusions(rectangles((0, 0, 10, 10), (0, 0, 10, 10)), np.array([3, 3])).any()

    def test_no_object(self):
        assert occlusions(np.zeros((0, 4, 4), bool), np.array([])).shape == (0, 0)

    @given(STACKS)
    def test_never_symmetric_nor_reflexive(self, masks):
        z = occlusions(masks, np.arange(len(masks)))
        assert not (z & z.T).any()
        for i in range(len(masks)):
            for j in range(len(masks)):
                assert z[i, j] == (j < i and bool((masks[i] & masks[j]).any()))


class TestLayerIndices:
    @pytest.mark.parametrize(
        ("z", "expected"),
        [
            (relation(0), []),
            (relation(1), [1]),
            (relation(3), [1, 1, 1]),
            (relation(3, (1, 0), (2, 1)), [1, 2, 3]),
            (relation(4, (3, 0), (3, 2), (2, 1)), [1, 1, 2, 3]),  # the deepest occluder counts
            (relation(4, (1, 0), (2, 0), (3, 1), (3, 2)), [1, 2, 2, 3]),
        ],
    )
    def test_one_more_than_the_deepest_occluder(self, z, expected):
        assert layer_indices(z).tolist() == expected

    def test_a_chain_as_long_as_the_scene(self):
        assert layer_indices(relation(9, *[(k, k + 1) for k in range(8)])).tolist() == list(range(9, 0, -1))

    @pytest.mark.parametrize("cycle", [[(0, 0)], [(0, 1), (1, 0)], [(0, 1), (1, 2), (2, 0)]])
    def test_a_cycle_is_an_error(self, cycle):
        with pytest.raises(ValueError, match="cycle"):
            layer_indices(relation(4, *cycle))


def test_layer_masks_are_unions_of_their_objects(rectangles):
    masks = rectangles((0, 0, 4, 4), (2, 2, 8, 8), (20, 20, 24, 24))
    stack = layer_masks(masks, np.array([1, 2, 1]))
    assert stack.shape == (2, 32, 32)
    assert np.array_equal(stack[0], masks[0] | masks[2])
    assert np.array_equal(stack[1], masks[1])


def test_layer_masks_of_no_object_keep_their_size():
    assert layer_masks(np.zeros((0, 5, 7), bool), np.array([], int)).shape == (0, 5, 7)


@given(STACKS)
def test_cumulative_and_visible_masks(stack):
    cumulative = cumulative_masks(stack)
    visible = visible_masks(stack)
    assert cumulative.shape == (len(stack) + 1, *stack.shape[1:])
    assert not cumulative[0].any()
    for i in range(len(stack)):
        assert np.array_equal(cumulative[i + 1], stack[: i + 1].any(axis=0))
        assert np.array_equal(visible[i], stack[i] & ~stack[:i].any(axis=0))
    # every covered pixel is visible in one layer alone
    assert np.array_equal(visible.sum(axis=0), stack.any(axis=0).astype(int))

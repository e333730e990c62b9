# SPDX-License-Identifier: Apache-2.0
"""The objects of a layer: by what is connected, and by where its pixels point."""

import numpy as np
import pytest

from seqamodal_ros.scene.components import around_centres, components

SIDE = 32


def box(left: int, right: int, top: int = 4, bottom: int = 20) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = True
    return mask


def ways(*objects: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """From each pixel of the objects to the centroid of its own."""
    y, x = np.mgrid[:SIDE, :SIDE]
    found = np.random.default_rng(0).normal(size=(2, SIDE, SIDE)) * noise
    for mask in objects:
        found += np.stack([x[mask].mean() - x, y[mask].mean() - y]) * mask
    return found


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(found) == len(expected) and all((a == b).all() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("noise", [0, 1.0])
def test_things_that_touch_come_apart(noise):
    left, right = box(2, 14), box(14, 27)
    assert same(components(left | right, 10), [left | right])
    assert same(around_centres(left | right, ways(left, right, noise=noise), 10), [left, right])


def test_what_is_cut_in_two_does_not():
    rod = box(2, 8) | box(20, 28)
    assert len(components(rod, 10)) == 2
    assert same(around_centres(rod, ways(rod), 10), [rod])


def test_parts_that_are_too_small_go_to_the_nearest():
    large, speck = box(2, 14), box(14, 16, 4, 7)
    assert same(around_centres(large | speck, ways(large, speck), 10), [large | speck])


def test_a_few_pixels_that_point_elsewhere_stretch_no_part_across_another():
    left, right = box(2, 14), box(14, 27)
    toward = ways(left, right)
    toward[0, 10:12, 4:6] += 12  # of the left one, to the centre of the right one
    assert same(around_centres(left | right, toward, 10), [left, right])


def test_no_part_is_smaller_than_an_object():
    """However ways scatter: a part may lie in pieces, which go to others."""
    random = np.random.default_rng(0)
    for _ in range(100):
        boxes = []
        for left, top in random.integers(0, 22, (5, 2)):
            boxes.append(box(left, left + random.integers(4, 10), top, top + random.integers(4, 10)))
        mask = np.logical_or.reduce(boxes)
        toward = ways(*boxes, noise=random.uniform(0, 6))
        parts = around_centres(mask, toward, 10)
        assert all(part.sum() >= 10 for part in parts)
        assert (np.sum(parts, axis=0) == np.logical_or.reduce(components(mask, 10))).all()


def test_specks_belong_to_none():
    large, speck = box(2, 14), box(28, 30, 28, 30)
    assert same(around_centres(large | speck, ways(large), 10), [large])
    other = box(2, 5, 28, 30)
    assert around_centres(speck | other, ways(speck | other), 10) == []  # not even where they would be one


def test_a_disc_in_a_ring_is_one_with_it():
    """A limit: they have the same centre."""
    ring = box(4, 24, 4, 24) & ~box(8, 20, 8, 20)
    disc = box(10, 18, 10, 18)
    assert len(components(ring | disc, 10)) == 2
    assert same(around_centres(ring | disc, ways(ring, disc), 10), [ring | disc])


def test_a_mask_that_is_too_small_holds_no_object():
    speck = box(2, 4, 2, 4)
    assert around_centres(speck, ways(speck), 10) == components(speck, 10) == []
    assert around_centres(np.zeros((SIDE, SIDE), bool), np.zeros((2, SIDE, SIDE)), 1) == []


def test_left_to_right_then_top_to_bottom():
    first, second, third = box(2, 8, 2, 10), box(2, 8, 14, 22), box(12, 18, 2, 10)
    for found in (components(first | second | third, 4), around_centres(first | second | third, ways(first, second, third), 4)):
        assert same(found, [first, second, third])


def test_ways_out_of_the_picture_and_all_alike():
    mask = box(0, 6, 0, 6)
    assert same(around_centres(mask, np.full((2, SIDE, SIDE), -1e4), 10), [mask])
    assert same(around_centres(mask, np.zeros((2, SIDE, SIDE)), 36), [mask])  # each pixel its own centre, each too small

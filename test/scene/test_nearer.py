# SPDX-License-Identifier: Apache-2.0
"""What depth says against objects that are free by the colour image alone."""

import numpy as np
import pytest

from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.nearer import _interpolated, free_by_depth, nearer_beside

TABLE, TOP = 0.8, 0.7  # metres from the camera
WIDTH, HEIGHT = 256, 192  # of masks of 32x32: 8 source pixels each, 32 above the image


@pytest.fixture
def scene(make_scene, rectangles):
    """Objects 1 and 2 in layer 1, the second the surer one; 3 was drawn as lying under 2."""
    front = rectangles((4, 10, 14, 20)) | rectangles((15, 10, 25, 20))
    probability = np.where(front, 0.7, 0.1).astype(np.float32)
    probability[0, :, 15:25] *= 1.2
    stack = np.concatenate([front, rectangles((18, 16, 29, 26))])
    return make_scene(stack, WIDTH, HEIGHT, probability=np.concatenate([probability, np.where(stack[1:], 0.6, 0.1)]))


@pytest.fixture
def metres(scene):
    """Of flat things on a table, each true to its mask."""
    depth = np.full((HEIGHT, WIDTH), TABLE, np.float32)
    depth[scene.label() > 0] = TOP
    return depth


def cover(metres, left, top, right, bottom, by=0.05):
    """Something lies `by` metres over what is at these mask pixels."""
    x, y, right, bottom = (round(edge) for edge in (8 * left, 8 * top - 32, 8 * right, 8 * bottom - 32))
    metres[y:bottom, x:right] -= by
    return metres


def test_what_rises_from_the_table_is_free(scene, metres):
    assert nearer_beside(scene, metres) == {}
    assert [obj.id for obj in free_by_depth(scene, metres)] == [2, 1]
    assert [obj.id for obj in free_by_depth(scene, metres, min_score=0.8)] == [2]


def test_something_nearer_at_the_outline_is_told_by_its_object(scene, metres):
    metres[scene.label() == 3] -= 0.05
    assert nearer_beside(scene, metres) == {2: (3,)}
    assert [obj.id for obj in free_by_depth(scene, metres)] == [1]


def test_what_is_no_object_has_no_id(scene, metres):
    """The wall of a bin, on the left of object 1."""
    assert nearer_beside(scene, cover(metres, 0, 5, 4, 25, by=0.3)) == {1: ()}


@pytest.mark.parametrize("top", range(500, 600, 5))
def test_a_step_of_ten_millimetres_is_one_at_any_distance(scene, top):
    """Depth in whole millimetres becomes float32, of which such a difference is less than 0.01 at most distances."""
    millimetres = np.full((HEIGHT, WIDTH), top, np.uint16)
    cover(millimetres, 0, 5, 4, 25, by=10)
    assert nearer_beside(scene, millimetres.astype(np.float32) / 1000) == {1: ()}


def test_a_step_less_than_the_cameras_noise_says_nothing(scene, metres):
    metres[scene.label() == 1] = TABLE
    assert nearer_beside(scene, cover(metres.copy(), 0, 5, 4, 25, by=0.008)) == {}
    assert nearer_beside(scene, cover(metres.copy(), 0, 5, 4, 25, by=0.012)) == {1: ()}


def test_a_short_piece_of_outline_says_nothing(scene, metres):
    """Of a mask pixel, which is eight of the image's here."""
    few = metres.copy()
    few[60:66, :32] = 0.5
    assert nearer_beside(scene, few) == {}
    few[90:96, :32] = 0.5  # in another piece: together they would be enough
    assert nearer_beside(scene, few) == {}
    metres[60:70, :32] = 0.5
    assert nearer_beside(scene, metres) == {1: ()}


def test_what_is_nearer_a_mask_pixel_away_is_seen_and_no_farther(scene, metres):
    """Masks are not truer than that; in between is what the object stands on."""
    assert nearer_beside(scene, cover(metres.copy(), 0, 5, 2.5, 25, by=0.3)) == {}
    assert nearer_beside(scene, cover(metres.copy(), 0, 5, 3.25, 25, by=0.3)) == {1: ()}


@pytest.mark.parametrize("gap", [0, 2, 4])
def test_a_slope_is_no_step(make_scene, rectangles, gap):
    """A flat thing on a table that is seen aslant: what is lower in the image is nearer. No depth on a few pixels at its edge."""
    scene = make_scene(rectangles((8, 10, 24, 22)), WIDTH, HEIGHT)
    metres = np.repeat((1.0 - 0.0015 * np.arange(HEIGHT, dtype=np.float32))[:, None], WIDTH, axis=1)
    below = 8 * 22 - 32
    metres[below - gap : below + gap] = np.nan
    assert nearer_beside(scene, metres) == {}
    metres[below:] -= 0.03
    assert nearer_beside(scene, metres) == {1: ()}


def test_noise_and_gaps_change_nothing(scene, metres):
    """Four millimetres of noise; no depth on a tenth of the pixels, nor, as cameras have it, beside edges."""
    rng = np.random.default_rng(0)
    metres += rng.normal(scale=0.004, size=metres.shape).astype(np.float32)
    metres[rng.random(metres.shape) < 0.1] = np.nan
    assert nearer_beside(scene, metres) == {}
    flat = np.full_like(metres, TABLE) + rng.normal(scale=0.004, size=metres.shape).astype(np.float32)
    assert nearer_beside(scene, flat) == {}
    metres[scene.label() == 3] -= 0.05
    metres[8 * 20 - 32 - 3 : 8 * 20 - 32 + 3] = np.nan
    assert nearer_beside(scene, metres) == {2: (3,)}


def test_only_what_is_free_is_asked_about(scene, metres):
    """All around object 3, which lies under 2, something is nearer."""
    around = np.ones_like(metres, bool)
    around[:, 8 * 18 - 4 : 8 * 29 + 4] = False
    metres[(scene.label() != 3) & (scene.label() != 2)] -= 0.2
    assert 3 not in nearer_beside(scene, metres) and 2 in nearer_beside(scene, metres)


def test_all_that_is_nearer_is_named(make_scene, rectangles):
    """Object 2 lies under 1 by the image, and 3 under it, too; by depth both are nearer."""
    stack = np.concatenate([rectangles((10, 10, 20, 20)), rectangles((4, 12, 14, 18)) | rectangles((17, 12, 27, 18))])
    scene = make_scene(stack, WIDTH, HEIGHT)
    metres = np.full((HEIGHT, WIDTH), TABLE, np.float32)
    metres[scene.label() == 1] = TOP
    metres[scene.label() > 1] = TOP - 0.05
    assert nearer_beside(scene, metres) == {1: (2, 3)}


def test_an_object_at_the_edge_of_the_image_can_be_cut_off(make_scene, rectangles):
    scene = make_scene(rectangles((0, 0, 10, 10)), 256, 256)  # in the corner
    metres = np.full((256, 256), TABLE, np.float32)
    assert nearer_beside(scene, metres) == {}
    for beside in (np.s_[:, 80:], np.s_[80:]):
        covered = metres.copy()
        covered[beside] -= 0.3
        assert nearer_beside(scene, covered) == {1: ()}


def test_what_is_unknown_says_nothing(scene, metres):
    assert nearer_beside(scene, np.full_like(metres, np.nan)) == {}
    assert len(free_by_depth(scene, np.full_like(metres, np.nan))) == 2
    metres[scene.label() == 1] = np.inf
    assert nearer_beside(scene, metres) == {}


def test_zero_is_unknown_too(scene, metres):
    """As cameras and PNG files have it; holes lie at outlines, where it would be nearer than anything."""
    metres[scene.label() == 0] = 0
    assert nearer_beside(scene, metres) == {}


def test_an_object_that_falls_between_pixels_of_the_source_has_no_outline(make_scene, rectangles):
    scene = make_scene(rectangles((0, 0, 1, 5)), geometry=Geometry.letterbox(4, 4), area_min=4)
    assert len(scene.objects) == 1 and nearer_beside(scene, np.ones((4, 4), np.float32)) == {}


def test_an_object_without_depth_stays_free(scene, metres):
    """Object 1 is of glass; beside it the table is known, and a wall half a mask pixel away."""
    metres[scene.label() == 1] = np.nan
    assert nearer_beside(scene, cover(metres, 0, 5, 3.5, 25, by=0.3)) == {}


def test_of_a_thin_object_the_middle_is_asked(make_scene, rectangles):
    """It is a mask pixel high, eight of the image's; its outer rows have the depth of what lies beside it."""
    scene = make_scene(rectangles((4, 12, 28, 13)), WIDTH, HEIGHT)
    metres = np.full((HEIGHT, WIDTH), TOP - 0.05, np.float32)
    metres[8 * 12 - 32 + 2 : 8 * 12 - 32 + 6] = TOP
    assert nearer_beside(scene, metres) == {1: ()}


def test_at_the_edge_of_the_image_nothing_is_seen(make_scene, rectangles):
    scene = make_scene(rectangles((0, 4, 32, 28)), WIDTH, HEIGHT)  # all of the image
    assert nearer_beside(scene, np.full((HEIGHT, WIDTH), TABLE, np.float32)) == {}


@pytest.mark.parametrize(("width", "height"), [(64, 48), (33, 57), (3840, 2160)])
def test_images_of_any_size(make_scene, rectangles, width, height):
    """A step is found where the square shows it, and its depth is looked up there."""
    scene = make_scene(rectangles((10, 12, 20, 20)), width, height)
    scale_x, _, left, _ = scene.geometry.affine(32)
    metres = np.full((height, width), TABLE, np.float32)
    assert nearer_beside(scene, metres) == {}
    metres[:, round(left + 20 * scale_x) :] -= 0.1
    assert nearer_beside(scene, metres) == {1: ()}


def test_depth_outside_of_a_region_says_nothing(make_scene, rectangles):
    """The object reaches the region's edge, where the square shows no more of the image."""
    geometry = Geometry.region(WIDTH, HEIGHT, 64, 0, 128, HEIGHT)
    scene = make_scene(rectangles((6, 8, 20, 20)), geometry=geometry)
    metres = np.full((HEIGHT, WIDTH), TABLE, np.float32)
    metres[:, :64] = 0.3
    assert nearer_beside(scene, metres) == {}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.ones((32, 32), np.float32), r"depth is an array of \(32, 32\), the image of \(192, 256\)"),
        (np.ones((HEIGHT, WIDTH, 1), np.float32), "depth is an array of"),
        (np.full((HEIGHT, WIDTH), 700, np.uint16), "depth is of uint16: give metres"),
    ],
)
def test_what_is_no_depth_in_metres_is_refused(scene, wrong, words):
    with pytest.raises(ValueError, match=words):
        nearer_beside(scene, wrong)


def test_an_empty_scene(make_scene):
    assert nearer_beside(make_scene(np.zeros((0, 32, 32))), np.ones((32, 32), np.float32)) == {}


def test_unknown_depth_is_interpolated():
    none = np.nan
    for way, expected in [
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([none, 2, none, none, 8], [2, 2, 4, 6, 8]),
        ([none, none, 5, none, none], [5, 5, 5, 5, 5]),
    ]:
        assert _interpolated(np.array(way, np.float32)[:, None])[:, 0].tolist() == expected

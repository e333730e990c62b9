# SPDX-License-Identifier: Apache-2.0
"""Letterbox, crop and region; the affine of the messages against what `to_source` does."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seqamodal_ros.scene.geometry import PADDING, Geometry


@st.composite
def geometries(draw) -> Geometry:
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    kind = draw(st.sampled_from(["letterbox", "centre_crop", "region"]))
    if kind == "letterbox":
        return Geometry.letterbox(width, height)
    if kind == "centre_crop":
        return Geometry.centre_crop(width, height)
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return Geometry.region(width, height, x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))


SIZES = st.sampled_from([1, 2, 7, 32, 64])


def test_letterbox_holds_the_whole_image_centred():
    assert Geometry.letterbox(640, 480) == Geometry(640, 480, 0, -80, 640)
    assert Geometry.letterbox(480, 640) == Geometry(480, 640, -80, 0, 640)
    assert Geometry.letterbox(7, 4).top == -1.5


def test_centre_crop_is_the_largest_centred_square():
    assert Geometry.centre_crop(640, 480) == Geometry(640, 480, 80, 0, 480)


def test_region_is_the_smallest_square_around_it():
    assert Geometry.region(640, 480, 100, 50, 60, 40) == Geometry(640, 480, 100, 40, 60)
    assert Geometry.region(640, 480, 0, 0, 20, 60).left == -20


def test_resized_keeps_the_square_where_it_lies():
    assert Geometry.letterbox(640, 480).resized(320) == Geometry(320, 240, 0, -40, 320)
    assert Geometry.centre_crop(50, 100).resized(200) == Geometry(100, 200, 0, 50, 100)
    assert Geometry.letterbox(2000, 3).resized(100).height == 1


@pytest.mark.parametrize(
    "region",
    [(-1, 0, 10, 10), (0, -1, 10, 10), (0, 0, 0, 10), (0, 0, 10, -3), (90, 0, 11, 10), (0, 41, 10, 10), (200, 200, 1, 1)],
)
def test_a_region_outside_the_image_is_an_error_that_says_both(region):
    with pytest.raises(ValueError, match=r"region x=.* 100x50 image"):
        Geometry.region(100, 50, *region)


@given(geometries(), SIZES)
def test_mask_column_u_lies_at_the_source_pixel_that_the_affine_says(geometry, size):
    scale_x, scale_y, offset_x, offset_y = geometry.affine(size)
    ramp = np.tile(np.arange(size, dtype=np.float32), (size, 1))
    for soft, length, scale, offset in [
        (geometry.to_source(ramp).max(axis=0), geometry.width, scale_x, offset_x),
        (geometry.to_source(ramp.T).max(axis=1), geometry.height, scale_y, offset_y),
    ]:
        source = np.arange(length)
        column = (source + 0.5 - offset) / scale - 0.5  # x = offset_x + scale_x (u + 0.5) - 0.5, solved for u
        within = (source + 0.5 > offset) & (source + 0.5 < offset + scale * size)
        assert np.allclose(soft[within], column[within].clip(0, size - 1), atol=1e-3)


@given(geometries(), SIZES)
def test_outside_the_square_nothing_is_masked_and_inside_all_of_a_full_mask_is(geometry, size):
    full = geometry.to_source(np.ones((size, size), bool))
    columns = np.abs(np.arange(geometry.width) + 0.5 - geometry.left - geometry.side / 2) <= geometry.side / 2
    rows = np.abs(np.arange(geometry.height) + 0.5 - geometry.top - geometry.side / 2) <= geometry.side / 2
    assert full.shape == (geometry.height, geometry.width)
    assert np.array_equal(full, rows[:, None] & columns[None, :])


@given(geometries(), st.sampled_from([8, 32, 64]))
def test_model_input_has_the_size_asked_for_whatever_the_image(geometry, size):
    image = np.full((geometry.height, geometry.width, 3), 7, np.uint8)
    assert geometry.to_model(image, size).shape == (size, size, 3)


def test_padding_is_grey_and_its_mask_pixels_are_outside():
    geometry = Geometry.letterbox(640, 480)
    square = geometry.to_model(np.full((480, 640, 3), 200, np.uint8), 64)
    assert (square[:8] == PADDING).all()
    assert (square[56:] == PADDING).all()
    assert (square[8:56] == 200).all()
    assert np.array_equal(geometry.inside(64), (square == 200).all(axis=2))


def test_a_crop_has_no_padding():
    geometry = Geometry.centre_crop(640, 480)
    assert geometry.inside(64).all()
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, 80:560] = 255
    assert (geometry.to_model(image, 32) == 255).all()


def seen_at(geometry: Geometry, size: int, left: int, width: int, axis: int) -> float:
    """Where the model sees the middle of a bar across the image, in source pixels by the affine."""
    image = np.zeros((geometry.height, geometry.width, 3), np.uint8)
    bar = (slice(left, left + width), slice(None))
    image[bar if axis == 0 else bar[::-1]] = 255
    square = np.where(geometry.inside(size)[..., None], geometry.to_model(image, size), 0)[..., 0].astype(float)
    profile = square.sum(axis=1 - axis)
    scale, _, *offsets = geometry.affine(size)
    return offsets[1 - axis] + scale * ((np.arange(size) + 0.5) * profile).sum() / profile.sum()


LETTERBOXES = [(640, 480), (641, 479), (848, 480), (480, 848), (1280, 1024), (1616, 1240), (1920, 1080), (2448, 2048)]
LETTERBOXES += [(4024, 3036), (4096, 2160), (300, 299)]


@pytest.mark.parametrize("size", [(1, 640), (640, 1), (1, 1), (16384, 1), (1, 64), (2, 999)])
@pytest.mark.parametrize("fit", [Geometry.letterbox, Geometry.centre_crop])
def test_an_image_of_a_pixel_or_two_across_is_seen(size, fit):
    geometry = fit(*size)
    square = geometry.to_model(np.full((geometry.height, geometry.width, 3), 7, np.uint8), 64)
    assert (square[geometry.inside(64)] == 7).all() and geometry.inside(64).any()


def test_of_an_image_that_is_thinner_than_a_pixel_of_the_models_all_is_seen():
    image = np.zeros((7, 1000, 3), np.uint8)
    image[:4, :, 0], image[4:, :, 2] = 210, 210
    geometry = Geometry.letterbox(1000, 7)
    (seen,) = np.unique(geometry.to_model(image, 64)[geometry.inside(64)], axis=0)
    assert seen.tolist() == [120, 0, 90]


REGIONS = [(17, 5, 1001, 703), (0, 0, 4095, 2159), (333, 1, 620, 1501), (1, 900, 3000, 301), (5, 6, 101, 90)]


@pytest.mark.parametrize("size", [256, 100])
@pytest.mark.parametrize(
    "geometry",
    [
        *(Geometry.letterbox(*size) for size in LETTERBOXES),
        *(Geometry.centre_crop(*size) for size in [(641, 479), (848, 480), (4096, 2161), (2160, 3840)]),
        *(Geometry.region(4096, 2160, *region) for region in REGIONS),
    ],
    ids=str,
)
def test_the_model_sees_things_where_the_affine_says_they_are(geometry, size):
    """Things, that is, of some size: to half a source pixel, at sizes of usual cameras, odd ones, portrait, 4K, regions."""
    left, top, right, bottom = geometry.seen
    for axis, low, high in ((0, top, bottom), (1, left, right)):
        width = max(1, round((high - low) / 5))
        for start in np.linspace(low + (high - low) / 10, high - (high - low) / 10 - width, 4).astype(int):
            assert seen_at(geometry, size, start, width, axis) == pytest.approx(start + width / 2, abs=0.5)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (641, 479), (333, 100), (1920, 1080), (65, 64), (40, 31)])
@pytest.mark.parametrize("fit", [Geometry.letterbox, Geometry.centre_crop])
def test_a_rectangle_survives_the_way_to_the_model_and_back(size, fit):
    width, height = size
    geometry = fit(width, height)
    middle, share = np.array([width, height]) / 2, 0.3 * min(size)
    left, top = (middle - share).astype(int)
    right, bottom = (middle + share).astype(int)
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = 255
    back = geometry.to_source(geometry.to_model(image, 64)[..., 0] >= 128)
    rows, columns = np.nonzero(back)
    tolerance = 1 + geometry.side / 64
    assert columns.min() == pytest.approx(left, abs=tolerance)
    assert columns.max() + 1 == pytest.approx(right, abs=tolerance)
    assert rows.min() == pytest.approx(top, abs=tolerance)
    assert rows.max() + 1 == pytest.approx(bottom, abs=tolerance)
    drawn = image[..., 0] > 0
    assert (back & drawn).sum() / (back | drawn).sum() > 0.9


def test_an_aligned_rectangle_comes_back_to_the_pixel():
    geometry = Geometry.letterbox(640, 480)  # a mask pixel is 10 source pixels wide
    mask = np.zeros((64, 64), bool)
    mask[20:30, 8:50] = True
    back = geometry.to_source(mask)
    assert np.flatnonzero(back.any(axis=0))[[0, -1]].tolist() == [80, 499]
    assert np.flatnonzero(back.any(axis=1))[[0, -1]].tolist() == [120, 219]


def test_to_source_of_bool_is_the_float_one_thresholded():
    geometry = Geometry.letterbox(50, 37)
    mask = np.random.default_rng(0).random((16, 16)) > 0.5
    assert np.array_equal(geometry.to_source(mask), geometry.to_source(mask.astype(np.float32)) >= 0.5)


@given(st.integers(160, 700), st.integers(160, 700))
@example(640, 350)  # edges in the middle of a mask pixel
def test_the_outermost_masks_touch_the_border_and_those_two_further_in_do_not(width, height):
    geometry, turned = Geometry.region(800, 800, 40, 50, width, height), Geometry.region(800, 800, 50, 40, height, width)
    rows, columns = (np.flatnonzero(geometry.inside(64).any(axis=axis)) for axis in (1, 0))
    for row in (rows[0], rows[2], rows[-3], rows[-1]):
        mask = np.zeros((64, 64), bool)
        mask[row, columns[4:-4]] = True
        assert geometry.touches_border(mask) == (row in rows[[0, -1]])
        assert turned.touches_border(mask.T) == (row in rows[[0, -1]])


def test_nothing_outside_a_region_is_seen():
    image = np.full((480, 640, 3), 200, np.uint8)
    image[200:280] = 50
    geometry = Geometry.region(640, 480, 0, 200, 640, 80)
    square = geometry.to_model(image, 64)
    rows = np.flatnonzero((square == 50).all(axis=(1, 2)))
    assert rows.tolist() == list(range(28, 36))
    assert (np.delete(square, rows, axis=0) == PADDING).all()
    inside = geometry.inside(64)
    assert np.flatnonzero(inside.all(axis=1)).tolist() == rows.tolist()
    assert inside.any(axis=1).sum() == len(rows)
    np.testing.assert_array_equal(geometry.resized(320).inside(64), inside)

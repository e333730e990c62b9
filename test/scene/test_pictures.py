# SPDX-License-Identifier: Apache-2.0
"""Overlay and contact sheet: sizes, colours where the masks are, scenes without layers, files that cannot be written."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.pictures import LAYER_COLOURS, contact_sheet, dimmed_outside, layer_colour, overlay, write_image
from seqamodal_ros.scene.scene import LayeredScene

GREY = 90


@pytest.fixture
def image() -> np.ndarray:
    return np.full((480, 640, 3), GREY, np.uint8)


@pytest.fixture
def scene(make_scene, rectangles) -> LayeredScene:
    """Two rectangles in a 640x480 image: x 60-300, y 60-220 in front, x 200-500, y 140-340 behind it."""
    return make_scene(rectangles((6, 14, 30, 30), (20, 22, 50, 42), size=64), width=640, height=480)


def nearest_colour(pixel: np.ndarray) -> int:
    """Index of the palette's colour in whose direction from grey a pixel lies."""
    directions = np.array(LAYER_COLOURS, float) - GREY
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return int((directions @ (pixel.astype(float) - GREY)).argmax())


class TestOverlay:
    def test_source_size_and_the_image_is_left_alone(self, image, scene):
        before = image.copy()
        picture = overlay(image, scene)
        assert picture.shape == image.shape
        assert picture.dtype == np.uint8
        assert np.array_equal(image, before)

    def test_what_was_not_looked_at_is_dimmed(self, image, make_scene, rectangles):
        geometry = Geometry.region(640, 480, 100, 200, 300, 160)
        picture = overlay(image, make_scene(rectangles((4, 14, 8, 18)), geometry=geometry))
        assert (picture[:200] < GREY / 2).all()
        assert (picture[200:, :100] < GREY / 2).any(axis=2).mean() > 0.9  # the legend lies there
        assert (picture[200:360, 300:400] == GREY).all()
        whole = overlay(image, make_scene(rectangles((4, 14, 8, 18)), width=640, height=480))
        assert (whole[:100] == GREY).all()

    def test_of_a_region_thinner_than_a_pixel_of_the_sheet_something_is_left(self, make_scene):
        image = np.full((3000, 4000, 3), GREY, np.uint8)
        scene = make_scene(np.zeros((0, 32, 32)), geometry=Geometry.region(4000, 3000, 200, 200, 300, 3))
        small = scene.geometry.resized(480)
        bright = dimmed_outside(image[: small.height, : small.width], small)[..., 0] == GREY
        assert bright.any(axis=0).sum() in (36, 37)
        assert bright.any(axis=1).sum() == 1

    def test_visible_parts_take_their_layers_colour(self, image, scene):
        picture = overlay(image, scene)
        assert nearest_colour(picture[80, 80]) == 0
        assert nearest_colour(picture[320, 480]) == 1
        assert len(np.unique(picture[70:90, 70:100].reshape(-1, 3), axis=0)) == 1  # a tint, no hatching

    def test_hidden_parts_are_hatched(self, image, scene):
        hidden = overlay(image, scene)[150:210, 215:290].reshape(-1, 3)
        assert len(np.unique(hidden, axis=0)) > 1
        strongest = hidden[np.ptp(hidden.astype(int), axis=1).argmax()]
        assert nearest_colour(strongest) == 1

    def test_outlines_go_round_the_hidden_part_too(self, image, scene):
        picture = overlay(image, scene)
        colour = layer_colour(2)
        assert (picture[180, 196:206] == colour).all(axis=1).any()  # the left edge of the back one, under the front one

    def test_specks_that_belong_to_no_object_have_no_outline(self, image, make_scene, rectangles):
        """A speck of 3x3 mask pixels, x 400-430, y 200-230; layers that are specks alone have nothing else to show."""
        front, speck = rectangles((6, 14, 30, 30), size=64), rectangles((40, 28, 43, 31), size=64)
        around = slice(190, 241), slice(390, 441)
        both = overlay(image, make_scene(front | speck, width=640, height=480))[around]
        assert not (both == layer_colour(1)).all(axis=2).any()
        alone = overlay(image, make_scene(speck, width=640, height=480))[around]
        assert (alone == layer_colour(1)).all(axis=2).any()

    def test_a_line_parts_objects_that_touch(self, image, rectangles):
        """Two halves of a layer, which ways to their centres tell apart, x 60-300 and 300-540."""
        layer = rectangles((6, 14, 54, 30), size=64)
        ways = np.zeros((1, 2, 64, 64), np.float32)
        columns = np.arange(64)
        ways[0, 0] = np.where(columns < 30, 17.5, 41.5) - columns
        ways[0, 1] = (21.5 - np.arange(64))[:, None]
        geometry = Geometry.letterbox(640, 480)
        parts = {"probability": layer.astype(np.float32), "hypotheses": layer[:, None], "geometry": geometry}
        one = LayeredScene.assemble(layer, **parts)
        two = LayeredScene.assemble(layer, **parts, to_centres=ways)
        assert (len(one.objects), len(two.objects)) == (1, 2)
        middle = [(overlay(image, scene)[100, 294:306] == layer_colour(1)).all(axis=1).any() for scene in (one, two)]
        assert middle == [False, True]

    def test_a_hole_of_one_pixel_has_no_ring_and_a_large_one_has(self, image, make_scene, rectangles):
        layer = rectangles((6, 14, 54, 50), size=64)
        layer[0, 24, 20] = False  # at x 195-205, y 165-175
        layer[0, 30:36, 40:46] = False
        picture = overlay(image, make_scene(layer, width=640, height=480))
        ring = [
            (picture[rows, columns] == layer_colour(1)).all(axis=2).any()
            for rows, columns in ((slice(155, 185), slice(185, 215)), (slice(210, 300), slice(390, 470)))
        ]
        assert ring == [False, True]

    def test_nothing_is_drawn_far_from_masks_and_legend(self, image, scene):
        assert (overlay(image, scene)[:50] == GREY).all()
        assert (overlay(image, scene)[:, 560:] == GREY).all()

    def test_legend_holds_each_layers_colour(self, image, scene):
        corner = overlay(image, scene)[380:, :160]
        for layer in (1, 2):
            assert (corner == layer_colour(layer)).all(axis=2).sum() > 20
        assert not (corner == layer_colour(3)).all(axis=2).any()

    def test_badges_stand_on_the_visible_part(self, image, scene):
        picture = overlay(image, scene)
        for obj in scene.objects:
            within = scene.to_source(obj.visible)
            colour = (picture == layer_colour(obj.layer)).all(axis=2)
            core = cv2.erode(within.astype(np.uint8), np.ones((15, 15))) > 0  # away from the outline
            assert (colour & core).sum() > 50

    def test_badges_hold_id_and_pick_order(self, image, make_scene, rectangles, monkeypatch):
        """The second of two objects of a layer is the surer one."""
        left, right = rectangles((6, 14, 26, 30), size=64), rectangles((34, 14, 54, 30), size=64)
        probability = (0.7 * left + 0.9 * right).astype(np.float32)
        scene = make_scene(left | right, width=640, height=480, probability=probability)
        assert scene.pick_order == (2, 1)
        written: list[str] = []
        monkeypatch.setattr("seqamodal_ros.scene.pictures._text", lambda canvas, text, *_: written.append(text))
        overlay(image, scene)
        assert {("1", "2nd"), ("2", "1st")} <= set(pairwise(written))

    def test_without_layers_the_image_is_as_it_was_but_for_the_legend(self, image, make_scene):
        picture = overlay(image, make_scene(np.zeros((0, 64, 64)), width=640, height=480))
        assert (picture[:400] == GREY).all()
        assert (picture[400:] != GREY).any()

    def test_a_scene_that_nobody_can_tell_of_does_not_look_like_an_empty_one(self, image, make_scene):
        empty, doubtful = (make_scene(np.zeros((0, 64, 64)), width=640, height=480, doubt=doubt) for doubt in ("", "too dark"))
        for draw in (overlay, lambda image, scene: contact_sheet(image, scene, "one")):
            assert (draw(image, empty) != draw(image, doubtful)).any()

    def test_another_size_is_an_error(self, image, scene):
        with pytest.raises(ValueError, match=r"480, 640, 3.*not uint8 \[470, 640, 3\]"):
            overlay(image[10:], scene)

    @given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9), st.integers(0, 2**32 - 1))
    def test_any_size_and_depth(self, width, height, layers, seed):
        rng = np.random.default_rng(seed)
        amodal = rng.random((layers, 16, 16)) > 0.7
        scene = LayeredScene.assemble(
            amodal, amodal.astype(np.float32), amodal[:, None], Geometry.letterbox(width, height), area_min=1
        )
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert overlay(image, scene).shape == image.shape


class TestContactSheet:
    def test_more_layers_take_more_panels(self, image, scene, make_scene):
        one = contact_sheet(image, make_scene(scene.amodal[:1], width=640, height=480), "one")
        two = contact_sheet(image, scene, "two")
        assert one.dtype == np.uint8
        assert one.shape[2] == 3
        assert two.shape[0] * two.shape[1] > one.shape[0] * one.shape[1]
        assert min(two.shape[:2]) > 480

    def test_each_layer_has_a_panel_in_its_colour(self, image, scene):
        sheet = contact_sheet(image, scene, "frame")
        for layer in (1, 2):
            panels, _ = cv2.findContours(
                cv2.morphologyEx(
                    (np.abs(sheet.astype(int) - layer_colour(layer)).max(axis=2) < 40).astype(np.uint8),
                    cv2.MORPH_CLOSE,
                    np.ones((25, 25)),
                ),
                cv2.RETR_EXTERNAL,
                cv2.CHAIN_APPROX_SIMPLE,
            )
            assert sum(cv2.contourArea(panel) > 3000 for panel in panels) >= 2  # in the overlay and on its own

    def test_the_hidden_part_looks_unlike_the_visible_one(self, image, scene):
        sheet = contact_sheet(image, scene, "frame")
        height, width = 360, 480  # a panel; the fourth, in the second row, is layer 2
        top, left = sheet.shape[0] - 28 - 16 - 34 - height, 16 + 480 + 16
        panel = sheet[top : top + height, left : left + width]
        visible = panel[240:250, 200:360].reshape(-1, 3)
        hidden = panel[112:158, 160:215].reshape(-1, 3)
        assert len(np.unique(visible, axis=0)) == 1
        assert len(np.unique(hidden, axis=0)) > 2

    def test_a_scene_without_layers_says_so(self, image, make_scene):
        empty = make_scene(np.zeros((0, 64, 64)), width=640, height=480)
        sheet = contact_sheet(image, empty, "empty")
        assert sheet.shape[1] == 16 + 3 * (480 + 16)  # image, overlay and a panel with the words
        words = sheet[52 : 52 + 360, 16 + 2 * 496 : 16 + 2 * 496 + 480]
        assert (words.max(axis=2) > 100).sum() > 200
        assert (words.max(axis=2) < 40).mean() > 0.9

    @pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (1080, 1920), (37, 53)])
    def test_any_image_size(self, make_scene, rectangles, size):
        height, width = size
        scene = make_scene(rectangles((0, 0, 20, 20), (10, 10, 32, 32)), width=width, height=height)
        sheet = contact_sheet(np.zeros((height, width, 3), np.uint8), scene, "a title " * 40)
        assert sheet.shape[0] < 3000
        assert sheet.shape[1] < 3000

    def test_nine_layers_and_a_scene_from_a_message(self, image, make_scene, rectangles):
        """The palette starts again; a message may come without hypotheses."""
        amodal = rectangles(*[(k, 8 + k, 12 + 2 * k, 30 + k) for k in range(9)], size=64)
        scene = make_scene(amodal, width=640, height=480, samples=1, truncated=True)
        bare = make_scene(amodal, width=640, height=480, hypotheses=np.zeros((9, 0, 64, 64), bool), seconds=0.25)
        assert layer_colour(8) == layer_colour(1)
        assert contact_sheet(image, scene, "deep").shape == contact_sheet(image, bare, "deep").shape


class TestWriteImage:
    def test_the_colours_come_back(self, tmp_path):
        rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        write_image(tmp_path / "a.png", rgb)
        assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], rgb)

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(OSError, match="cannot write .*gone/a.png.*check that the folder exists"):
            write_image(tmp_path / "gone" / "a.png", np.zeros((4, 4, 3), np.uint8))

    def test_an_unknown_kind_of_image(self, tmp_path):
        with pytest.raises(OSError, match="use .png or .jpg"):
            write_image(tmp_path / "a.nothing", np.zeros((4, 4, 3), np.uint8))


def test_a_picture_that_cannot_be_encoded_is_told(tmp_path):
    with pytest.raises(OSError, match="wide.jpg: OpenCV cannot encode 70000x1 pixels"):
        write_image(tmp_path / "wide.jpg", np.zeros((1, 70_000, 3), np.uint8))  # a JPEG has 65,535 a side at most

# SPDX-License-Identifier: Apache-2.0
"""layers.json of a frame: strict JSON, boxes in source pixels; the line on the screen."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.report import COLUMNS, layers_json, row
from seqamodal_ros.scene.scene import LayeredScene


def test_what_a_frame_holds(make_scene, rectangles):
    scene = make_scene(
        rectangles((4, 8, 24, 24), (20, 20, 30, 28)), width=64, height=48, samples=3, seed=5, seconds=0.25, truncated=True
    )
    report = json.loads(json.dumps(layers_json(scene), allow_nan=False))
    assert report["source"] == {"width": 64, "height": 48}
    assert report["mask"] == {"width": 32, "height": 32}
    assert report["affine"] == {"scale_x": 2, "scale_y": 2, "offset_x": 0, "offset_y": -8}
    assert report["layers"] == [{"index": 1, "agreement": 1, "pixels": 320}, {"index": 2, "agreement": 1, "pixels": 80}]
    first, second = report["objects"]
    assert first["box"] == {"x": 8, "y": 8, "width": 40, "height": 32}
    assert second["box"] == {"x": 40, "y": 32, "width": 20, "height": 16}
    assert (second["id"], second["layer"], second["occluded_by"]) == (2, 2, [1])
    assert math.isclose(second["visible_ratio"], 64 / 80)
    assert math.isclose(second["uncertainty"], 4 * 0.9 * 0.1, rel_tol=1e-5)
    assert math.isclose(second["score"], 0.9, rel_tol=1e-5)
    assert report["pick_order"] == [1, 2]
    assert report["truncated"] is True
    assert (report["seconds"], report["num_samples"], report["seed"]) == (0.25, 3, 5)


def test_nan_becomes_null(make_scene, rectangles):
    report = layers_json(make_scene(rectangles((0, 0, 8, 8)), samples=1))
    assert report["layers"][0]["agreement"] is None
    assert report["seconds"] is None
    json.dumps(report, allow_nan=False)


def test_an_empty_scene(make_scene):
    report = json.loads(json.dumps(layers_json(make_scene(np.zeros((0, 8, 8)), width=3, height=9)), allow_nan=False))
    assert report["layers"] == report["objects"] == report["pick_order"] == []
    assert report["doubt"] == ""


def test_where_nobody_can_tell_what_is_there_that_is_said(make_scene):
    scene = make_scene(np.zeros((0, 8, 8)), width=3, height=9, doubt="97% of the image is white")
    assert layers_json(scene)["doubt"] == "97% of the image is white"
    assert row("one", scene).endswith("cannot tell: 97% of the image is white")


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_a_box_lies_in_the_source_and_holds_the_mask(width, height, seed):
    geometry = Geometry.letterbox(width, height)
    mask = (np.random.default_rng(seed).random((1, 16, 16)) > 0.9) & geometry.inside(16)
    scene = LayeredScene.assemble(mask, mask.astype(np.float32), mask[:, None], geometry, area_min=1)
    for obj in scene.objects:
        x, y, w, h = geometry.box(obj.amodal)
        assert x >= 0
        assert y >= 0
        assert w >= 1
        assert h >= 1
        assert x + w <= width
        assert y + h <= height
        outside = scene.to_source(obj.amodal).copy()
        outside[y : y + h, x : x + w] = False
        assert not outside.any()


def test_a_mask_in_padding_alone_has_a_box_in_the_image():
    mask = np.zeros((64, 64), bool)
    mask[2:5, 10:20] = True  # the image's rows are 8 to 55
    assert Geometry.letterbox(640, 480).box(mask) == (100, 0, 100, 1)


def test_there_is_no_box_around_a_blank_mask():
    with pytest.raises(ValueError, match="the mask is blank"):
        Geometry.letterbox(64, 48).box(np.zeros((64, 64), bool))


def test_the_page_on_files_has_each_key(make_scene, rectangles):
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
    of_frame, of_object = (set(re.findall(r"`(\w+)`", rows)) for rows in page.split("\n## ")[1].split("| of an object |"))
    report = layers_json(make_scene(rectangles((2, 10, 8, 20))))
    assert set(report) <= of_frame
    assert set(report["layers"][0]) <= of_frame
    assert set(report["objects"][0]) <= of_object


def test_an_object_without_a_mask_is_named(make_scene, rectangles):
    scene = make_scene(rectangles((0, 0, 8, 8)))
    blank = replace(scene, objects=(replace(scene.objects[0], amodal=np.zeros((32, 32), bool)),))
    with pytest.raises(ValueError, match="object 1: the mask is blank"):
        layers_json(blank)


def test_what_was_looked_at_and_what_reaches_its_edge(make_scene, rectangles):
    masks = rectangles((2, 10, 8, 20), (12, 10, 20, 20))
    report = layers_json(make_scene(masks, geometry=Geometry.region(640, 480, 100, 200, 64, 32)))
    assert report["seen"] == {"x": 100, "y": 200, "width": 64, "height": 32}
    assert [obj["touches_border"] for obj in report["objects"]] == [False, False]
    report = layers_json(make_scene(rectangles((0, 10, 8, 20)), geometry=Geometry.region(640, 480, 100, 200, 64, 32)))
    assert report["objects"][0]["touches_border"] is True
    assert layers_json(make_scene(masks, width=64, height=48))["seen"] == {"x": 0, "y": 0, "width": 64, "height": 48}


def test_row_stands_under_its_columns(make_scene, rectangles):
    line = row("frame_01", make_scene(rectangles((0, 0, 8, 8), (4, 4, 20, 20)), seconds=0.125))
    assert line.split() == ["frame_01", "2", "2", "0.12", "1", "2"]
    assert line.index("1 2") == COLUMNS.index("pick order")
    assert row("bare", make_scene(np.zeros((0, 8, 8)))).endswith("  -  EMPTY: no layer found")

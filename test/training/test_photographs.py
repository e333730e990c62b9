# SPDX-License-Identifier: Apache-2.0
"""Boxes in photographs: read, matched with what a model names, and told as a table."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import training.photographs
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.weights import ModelSettings, save_model
from training.photographs import BOXES, Answer, Photograph, box_iou, box_of, matches, picture, read_photographs, row

IMAGE = np.full((48, 64, 3), 90, np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    (tmp_path / "boxes.yaml").write_text("a.png: {free: [[4, 4, 24, 24]], covered: [[30, 10, 50, 40]]}\n")
    return tmp_path


def test_boxes_are_read_with_their_photographs(folder):
    (photograph,) = read_photographs(folder, folder / "boxes.yaml")
    assert photograph.name == "a.png" and np.array_equal(photograph.image, IMAGE)
    assert photograph.boxes == [(4, 4, 24, 24), (30, 10, 50, 40)] and photograph.free == 1
    assert photograph.region == (
        0,
        0,
        57,
        45,
    )  # 46x36 pixels from (4, 4) on, and 7 and 5 around them


@pytest.mark.parametrize(
    "text,words",
    [
        ("a.png: [", "is no YAML"),
        ("", "names no photographs"),
        ("a.png: [[1, 2, 3, 4]]", "needs `free` and `covered`"),
        ("a.png: {front: []}", "needs `free` and `covered`"),
        ("a.png: {covered: [[4, 4, 24, 24]]}", "no free object"),
        ("a.png: {free: [[4, 4, 24]]}", "is no box"),
        ("a.png: {free: [[4, 4, 65, 24]]}", "inside 64x48 pixels"),
        ("a.png: {free: [[24, 4, 4, 24]]}", "is no box"),
        ("a.png: {free: [[a, 4, 24, 24]]}", "is no box"),
    ],
)
def test_a_file_of_another_form_is_refused(folder, text, words):
    (folder / "boxes.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_photographs(folder, folder / "boxes.yaml")


def test_a_photograph_that_is_not_there_is_named(folder):
    (folder / "boxes.yaml").write_text("b.png: {free: [[4, 4, 24, 24]]}\n")
    with pytest.raises(OSError, match=r"b\.png"):
        read_photographs(folder, folder / "boxes.yaml")


def test_our_boxes_have_the_form():
    told = yaml.safe_load(BOXES.read_text())
    boxes = [box for each in told.values() for key in ("free", "covered") for box in each.get(key, [])]
    assert len(told) == 15 and len(boxes) == 126
    assert all(0 <= left < right and 0 <= top < bottom for left, top, right, bottom in boxes)


def test_boxes_match_once_and_the_nearest_first():
    mask = np.zeros((20, 30), bool)
    mask[3:8, 5:17] = True
    assert box_of(mask) == (5, 3, 17, 8)
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0
    named = [(0, 0, 10, 8), (0, 0, 10, 10), (50, 0, 60, 10)]
    assert matches(named, [(0, 0, 10, 10), (20, 0, 30, 10)]) == {1: 0}
    assert matches([], [(0, 0, 10, 10)]) == {}


def test_the_table_and_the_picture(make_scene, rectangles):
    """Of three things one is found free, one is said to be free and is covered, and one is missed."""
    scene = make_scene(rectangles((2, 2, 12, 12), (18, 18, 28, 28)).any(axis=0)[None], width=320, height=320)
    image = np.full((320, 320, 3), 90, np.uint8)
    photograph = Photograph("a.png", image, [(20, 20, 120, 120), (200, 20, 300, 120), (180, 180, 280, 280)], 2)
    answer = Answer.of(scene, photograph)
    assert sorted(answer.found.values()) == [0, 2]
    cells = row("whole", [photograph], [answer]).split(" | ")
    assert cells[0] == "| whole"
    assert cells[1].startswith("2 of 3: 66.7 [")
    assert cells[2].startswith("100.0 [") and cells[2].endswith("of 2")
    assert cells[3].startswith("50.0 [") and "of 2; first" in cells[3]
    drawn = picture([photograph], [answer])
    assert drawn.shape == (480, 1920, 3) and drawn.dtype == np.uint8
    assert row("none", [photograph], [Answer(make_scene(np.zeros((0, 32, 32)), width=320, height=320), {})]) == (
        "| none | 0 of 3: 0.0 [0.0, 79.3] % | - of 0 | - of 0; first 0 of 0 | - of 0; first 0 of 0 | - of 0; first 0 of 0 |"
    )


def test_the_command(folder, monkeypatch, capsys):
    torch.manual_seed(0)
    network, model = FastNetwork(FastSettings(64, 16, (8, 8, 8, 8), (8, 8, 8))), folder / "small.safetensors"
    save_model(model, network.state_dict(), ModelSettings(network.settings))
    words = ["photographs", folder, "--boxes", folder / "boxes.yaml", "--model", model, "--runtime", "torch", "--samples", 1]
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--sheet", str(folder / "sheet.png")])
    training.photographs.main()
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 4 and {line.count("|") for line in table} == {7}
    assert table[2].startswith("| the whole photograph | ") and table[3].startswith("| a region, 15% around")
    assert cv2.imread(str(folder / "sheet.png")).shape == (480, 1920, 3)
    for wrong, said in ((["--sheet", str(folder / "absent" / "s.png")], "there is no folder"), (["--boxes", "b"], "b")):
        monkeypatch.setattr(sys, "argv", [*map(str, words), *wrong])
        with pytest.raises(SystemExit):
            training.photographs.main()
        assert said in capsys.readouterr().err

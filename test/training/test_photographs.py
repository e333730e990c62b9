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
from seqamodal_ros.perceiver import Perceiver
from training.photographs import (
    BOXES,
    FOUND,
    MISSED,
    Answer,
    Photograph,
    box_iou,
    matches,
    picture,
    read_photographs,
    table_row,
)

IMAGE = np.full((48, 64, 3), 90, np.uint8)


@pytest.fixture
def folder(tmp_path) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    (tmp_path / "boxes.yaml").write_text("a.png: {free: [[4, 4, 24, 24]], covered: [[30, 10, 50, 40]]}\n")
    return tmp_path


def test_boxes_are_read_with_their_photographs(folder):
    (photograph,) = read_photographs(folder, folder / "boxes.yaml")
    assert np.array_equal(photograph.image, IMAGE)
    assert photograph.boxes == [(4, 4, 24, 24), (30, 10, 50, 40)] and photograph.free == 1
    assert photograph.region == (0, 0, 57, 45)  # 46x36 pixels from (4, 4) on, and 7 and 5 around them
    (folder / "boxes.yaml").write_text("a.png: {free: [[4, 4, 24, 24]], covered:}\n")
    assert read_photographs(folder, folder / "boxes.yaml")[0].boxes == [(4, 4, 24, 24)]


@pytest.mark.parametrize(
    "text,words",
    [
        ("a.png: [", "is no YAML"),
        ("a.png: \xff", "is no YAML"),
        ("", "names no photographs"),
        ("null: {free: [[4, 4, 24, 24]]}", "names no photographs"),
        ("a.png: [[1, 2, 3, 4]]", "one box at least under `free`"),
        ("a.png: {free: [[4, 4, 24, 24]], front: []}", "one box at least under `free`"),
        ("a.png: {covered: [[4, 4, 24, 24]]}", "one box at least under `free`"),
        ("a.png: {free: 4}", "4 is no box"),
        ("a.png: {free: [[4, 4, 24]]}", "is no box"),
        ("a.png: {free: [[4, 4, 65, 24]]}", "inside 64x48 pixels"),
        ("a.png: {free: [[24, 4, 4, 24]]}", "is no box"),
        ("a.png: {free: [[no, 4, yes, 24]]}", "is no box"),
    ],
)
def test_a_file_of_another_form_is_refused(folder, text, words):
    (folder / "boxes.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=words) as refused:
        read_photographs(folder, folder / "boxes.yaml")
    assert "boxes.yaml" in str(refused.value)


def test_depth_images_are_read_in_metres(folder):
    depth = np.full((48, 64), 1500, np.uint16)
    depth[0, 0] = 0
    cv2.imwrite(str(folder / "depth.png"), depth)
    (folder / "boxes.yaml").write_text("a.png: {free: [[4, 4, 24, 24]], depth: depth.png}\n")
    (photograph,) = read_photographs(folder, folder / "boxes.yaml")
    assert np.isnan(photograph.metres[0, 0]) and (photograph.metres.ravel()[1:] == 1.5).all()
    for wrong in (depth[:10], depth.astype(np.uint8)):
        cv2.imwrite(str(folder / "depth.png"), wrong)
        with pytest.raises(ValueError, match=r"depth\.png must be of 16 bits and 64x48 pixels"):
            read_photographs(folder, folder / "boxes.yaml")
    (folder / "boxes.yaml").write_text("a.png: {free: [[4, 4, 24, 24]], depth: 5}\n")
    with pytest.raises(OSError, match="5 cannot be read"):
        read_photographs(folder, folder / "boxes.yaml")
    (folder / "boxes.yaml").write_text("a.png: {free: [[4, 4, 24, 24]], depth: depth.png}\n")
    (folder / "depth.png").unlink()
    with pytest.raises(OSError, match=r"depth\.png cannot be read"):
        read_photographs(folder, folder / "boxes.yaml")


def test_depth_takes_picks_away(make_scene, rectangles):
    """Of two that are free by colour, something nearer lies at the edge of the surer one, which is wrong."""
    masks = rectangles((2, 2, 12, 12), (18, 18, 28, 28))
    probability = (0.7 * masks[0] + 0.9 * masks[1])[None].astype(np.float32)
    scene = make_scene(masks.any(axis=0)[None], 256, 256, probability=probability)
    metres = np.ones((256, 256), np.float32)
    metres[:, :146] = 0.9
    metres[:130] = 0.9
    photograph = Photograph(np.full((256, 256, 3), 90, np.uint8), [(16, 16, 96, 96), (100, 144, 224, 224)], 1, metres)
    answer = Answer.of(scene, photograph)
    (before, after) = (
        [cell.split(":")[0] for cell in table_row("x", [photograph], [answer], by_depth=by_depth).split(" | ")][3:5]
        for by_depth in (False, True)
    )
    assert (before, after) == (["1 of 2", "0 of 1"], ["1 of 1", "1 of 1"])


def test_a_photograph_that_is_not_there_is_named(folder):
    (folder / "boxes.yaml").write_text("b.png: {free: [[4, 4, 24, 24]]}\n")
    with pytest.raises(OSError, match=r"b\.png"):
        read_photographs(folder, folder / "boxes.yaml")


def test_our_boxes_have_the_form():
    told = yaml.safe_load(BOXES.read_text())
    boxes = [box for each in told.values() for key in ("free", "covered") for box in each.get(key, [])]
    assert len(told) == 15 and len(boxes) == 126
    assert all(0 <= left < right and 0 <= top < bottom for left, top, right, bottom in boxes)


def test_boxes_match_once_and_the_largest_iou_first():
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0
    named = [(0, 0, 10, 8), (0, 0, 10, 10), (50, 0, 60, 10)]
    assert matches(named, [(0, 0, 10, 10), (20, 0, 30, 10)]) == {1: 0}
    assert matches([], [(0, 0, 10, 10)]) == {}


def test_the_table_and_the_picture(make_scene, rectangles):
    """Of three things that are named the surest is a covered one, a less sure one is free, a speck is none; one is missed."""
    masks = rectangles((2, 2, 12, 12), (18, 18, 28, 28), (20, 2, 23, 5))
    probability = (0.7 * masks[0] + 0.9 * masks[1] + 0.5 * masks[2])[None].astype(np.float32)
    scene = make_scene(masks.any(axis=0)[None], width=240, height=320, probability=probability, area_min=4)
    boxes = [(0, 20, 80, 120), (190, 200, 230, 300), (140, 180, 240, 280)]
    photograph = Photograph(np.full((320, 240, 3), 90, np.uint8), boxes, 2)
    answer = Answer.of(scene, photograph)
    assert len(answer.named) == 3 and sorted(answer.found.values()) == [0, 2]
    cells = table_row("whole", [photograph], [answer]).split(" | ")
    told = [cell.split(":")[0] for cell in cells[1:]]
    assert cells[0] == "| whole" and told == ["2 of 3", "2 of 3", "1 of 3", "0 of 1", "0 of 1", "0 of 1"]
    assert cells[1].startswith("2 of 3: 66.7 [")
    drawn = picture([photograph], [answer])  # of a portrait, whose lower end is there, too
    assert drawn.shape == (480, 640, 3) and drawn.dtype == np.uint8
    assert np.abs(drawn[400, 0].astype(int) - 90).max() < 60 and not drawn[:, 360:].any()
    for colour, where in ((FOUND, (100, slice(0, 4))), (MISSED, (440, slice(282, 290)))):
        assert (np.abs(drawn[where].astype(int) - colour).max(axis=1) < 60).any()
    blank = Answer(make_scene(np.zeros((0, 32, 32))), [], {})
    assert table_row("none", [photograph], [blank]) == (
        "| none | 0 of 3: 0.0 [0.0, 79.3] % | 0 of 0 | 0 of 0 | 0 of 0 | 0 of 0 | 0 of 0 |"
    )


def test_the_command(folder, monkeypatch, capsys):
    torch.manual_seed(0)
    network, model = FastNetwork(FastSettings(64, 16, (8, 8, 8, 8), (8, 8, 8))), folder / "small.safetensors"
    save_model(model, network.state_dict(), ModelSettings(network.settings))
    words = ["photographs", folder, "--boxes", folder / "boxes.yaml", "--model", model, "--runtime", "torch", "--samples", 1]
    regions = []
    see = Perceiver.__call__

    def watched(*args, region):
        regions.append(region)
        return see(*args, region=region)

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Perceiver, "__call__", watched)
    monkeypatch.setattr(sys, "argv", [*map(str, words), "--sheet", str(folder / "sheet.png")])
    training.photographs.main()
    assert regions == [None, (0, 0, 57, 45)]
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 4 and {line.count("|") for line in table} == {8}
    assert table[2].startswith("| the whole photograph | ") and table[3].startswith("| a region, 15% around the boxes | ")
    assert cv2.imread(str(folder / "sheet.png")).shape == (480, 640, 3)
    monkeypatch.setattr(Perceiver, "__call__", full)
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    with pytest.raises(SystemExit) as ended:
        training.photographs.main()
    assert ended.value.code == 2 and "error: CUDA out of memory" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr(Perceiver, "__call__", watched)
    for wrong, said in (
        (["--sheet", folder / "absent" / "s.png"], "there is no folder"),
        (["--sheet", folder / "s.txt"], "use .png or .jpg"),
        (["--boxes", folder / "absent.yaml"], "absent.yaml"),
        (["--samples", 0], "must be a whole number in 1..64"),
    ):
        monkeypatch.setattr(sys, "argv", [*map(str, words), *map(str, wrong)])
        with pytest.raises(SystemExit) as ended:
            training.photographs.main()
        assert ended.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]

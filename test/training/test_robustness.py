# SPDX-License-Identifier: Apache-2.0
"""Scenes as worse cameras see them, and the table of what is left of a model's layers then."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch

import training.robustness
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.weights import ModelSettings, save_model
from seqamodal_ros.scene.geometry import PADDING
from training.data.disturbed import OF_IMAGES, disturbed
from training.data.scene import Scene


@pytest.fixture
def scene() -> Scene:
    """A grey image with a bright square, which is the one object."""
    image = np.full((128, 128, 3), 100, np.uint8)
    image[32:96, 32:96] = 200
    amodal = np.zeros((1, 64, 64), bool)
    amodal[0, 16:48, 16:48] = True
    return Scene(image, amodal, np.zeros((1, 1), bool))


def test_each_way_changes_the_image_and_only_from_afar_the_truth(scene):
    ways = disturbed(scene, seed=3)
    assert set(ways) == {*OF_IMAGES, "from afar"}
    for name, each in ways.items():
        assert each.image.dtype == np.uint8 and each.image.shape == scene.image.shape
        assert (each.image != scene.image).mean() > 0.005, name
        assert (each.amodal is scene.amodal) == (name != "from afar")
    assert np.array_equal(ways["noise"].image, disturbed(scene, seed=3)["noise"].image)
    assert not np.array_equal(ways["noise"].image, disturbed(scene, seed=4)["noise"].image)


def test_what_the_cameras_do(scene):
    ways = {name: each.image for name, each in disturbed(scene, seed=0).items()}
    assert ways["dark"].mean() < 0.5 * scene.image.mean()
    assert ways["too bright, clipped"][64, 64].tolist() == [255] * 3
    assert ways["light from one side"][64, 40, 0] < ways["light from one side"][64, 90, 0]
    red, _, blue = ways["warm light"][5, 5]
    assert red == 125 and blue == 65
    left = slice(30, 34)  # both sides of the square's left edge
    assert np.ptp(ways["out of focus"][64, left, 0]) < 95 and np.ptp(ways["moving"][64, left, 0]) < 80
    assert np.ptp(ways["moving"][30:34, 64, 0]) == 100  # it moves sideways
    assert ways["noise"][:20, :20].std() == pytest.approx(20, rel=0.1)


def test_from_afar_image_and_masks_agree(scene):
    far = disturbed(scene, seed=0)["from afar"]
    assert far.image[2, 2].tolist() == [PADDING] * 3
    bright = cv2.resize(far.image[..., 0], (64, 64), interpolation=cv2.INTER_AREA) > 140
    assert (bright ^ far.amodal[0]).sum() <= 0.1 * far.amodal[0].sum()
    assert far.amodal.sum() == pytest.approx(25 / 64 * scene.amodal.sum(), rel=0.1)
    assert not len(disturbed(scene, seed=0, area_min=500)["from afar"].amodal)


def run(monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["robustness", *map(str, words)])
    training.robustness.main()


def test_the_command(tmp_path, data, monkeypatch, capsys):
    torch.manual_seed(0)
    network, model = FastNetwork(FastSettings(64, 16, (8, 8, 8, 8), (8, 8, 8))), tmp_path / "small.safetensors"
    save_model(model, network.state_dict(), ModelSettings(network.settings))
    monkeypatch.setattr(training.robustness, "evaluation_compositor", _small_composites)
    words = ["--model", model, "--data", data, "--sprites", data / "rendered", "--count", 2, "--samples", 1]
    run(monkeypatch, *words, "--out", tmp_path / "out.json", "--sheet", tmp_path / "sheet.png")
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 1 + len(OF_IMAGES) + 1
    assert table[2].startswith("| as they are |") and table[2].endswith("|  |")
    assert {line.count("|") for line in table} == {8}
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert [len(each["iou_by_image"]) for each in results] == [2] * len(results)
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
    with pytest.raises(SystemExit):
        run(monkeypatch, *words, "--count", 0)
    assert "--count must be at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, *words, "--sheet", tmp_path / "absent" / "sheet.png")
    assert "there is no folder" in capsys.readouterr().err


def _small_composites(data, sprites, split, image_size):
    from training.data.compositor import CompositeSettings, Compositor
    from training.data.sprites import load_material

    return Compositor(
        load_material(data, sprites, "test"), CompositeSettings(image_size=64, mask_size=16, area_min=2, max_layers=2)
    )


def test_the_table_tells_what_is_lost():
    clean = {"name": "as they are", "iou_by_image": [[0.8, 0.5], [1.0], []], "stop_accuracy": 1.0}
    worse = {"name": "dark", "iou_by_image": [[0.7, 0.0], [0.9], []], "stop_accuracy": 0.5}
    far = {"name": "from afar", "iou_by_image": [[0.5], [], []], "stop_accuracy": 0.5}  # too small to be there
    table = training.robustness.markdown([clean, worse, far]).splitlines()
    assert table[2] == "| as they are | 90.0 | 50.0 | - | - | 100.0 % |  |"
    assert table[3] == "| dark | 80.0 | 0.0 | - | - | 50.0 % | 10.0 |"  # of two images: no interval
    assert table[4] == "| from afar | 50.0 | - | - | - | 50.0 % | 30.0 |"
    clean["iou_by_image"], worse["iou_by_image"] = [[0.8]] * 6, [[0.7], [0.6], [0.5]] * 2
    assert " | 20.0 [" in training.robustness.markdown([clean, worse]).splitlines()[3]


def test_a_lack_of_memory_is_told_in_a_line(tmp_path, data, monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    network, model = FastNetwork(FastSettings(64, 16, (8, 8, 8, 8), (8, 8, 8))), tmp_path / "small.safetensors"
    save_model(model, network.state_dict(), ModelSettings(network.settings))
    monkeypatch.setattr(training.robustness, "evaluation_compositor", _small_composites)
    monkeypatch.setattr(training.robustness, "free_running", full)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--model", model, "--data", data, "--sprites", data / "rendered", "--count", 1)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("error: CUDA out of memory. Tried to allocate 20 GiB")

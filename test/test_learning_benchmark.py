# SPDX-License-Identifier: Apache-2.0
"""What `make bench` says of training."""

import pytest

from benchmarks.learning import CONFIGS, boxes, learning
from benchmarks.page import text
from seqamodal_ros.scene.layers import layer_indices
from training.begin import begin
from training.settings import read_settings


def test_scenes_of_boxes_have_a_layer_each():
    batch = boxes(read_settings(CONFIGS / "fast.yaml"), 2)
    assert batch.image.shape == (2, 3, 256, 256) and batch.amodal.shape == (2, 3, 64, 64)
    assert layer_indices(batch.occluded_by[0].numpy()).tolist() == batch.layers[0].tolist() == [1, 2, 3]
    assert all((batch.amodal[0, k] & batch.amodal[0, k + 1]).any() for k in range(2))


def test_a_step_is_measured_and_told(monkeypatch):
    begun = []
    monkeypatch.setattr("benchmarks.learning.begin", lambda settings: begun.append(begin(settings)) or begun[0])
    monkeypatch.setattr("benchmarks.learning.matrix_rate", lambda *_: 1e9)
    found = learning("fast", "cpu", images=2, repeats=1)
    assert found["gflop_image"] == pytest.approx(10.3, rel=0.02)  # three times forward: an encoder call and three rows
    assert found["share"] == pytest.approx(found["gflop_image"] * found["images_per_second"]) and found["share"] > 0
    assert all(weight.grad is not None for weight in begun[0].parameters())
    missing = {"missing": "not here"}
    page = text(
        {"about": "", "methods": {"peer": missing}, "growth": missing, "floor": missing, "ros": missing}
        | {"learning": {"fast": found, "paper": missing}}
    )
    assert "Training of `fast`, 2 images a step, in " in page and "Training of `paper`: not run: not here" in page

# SPDX-License-Identifier: Apache-2.0
"""The sample frames: complete, small enough, and their truth consistent in itself."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from seqamodal_ros.scene.image_files import read_depth
from seqamodal_ros.scene.layers import layer_indices
from training.data.samples import decode_mask, encode_mask, read_samples, read_truth

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
TRUTH = read_truth(SAMPLES)
FRAMES = [pytest.param(index, id=frame["image"]) for index, frame in enumerate(TRUTH["frames"])]
SHAPE = (480, 640)


@pytest.fixture(scope="module")
def samples():
    return read_samples(SAMPLES)


def visible_masks_of(sample):
    return np.array([mask & ~sample.amodal[row].any(axis=0) for mask, row in zip(sample.amodal, sample.occluded_by, strict=True)])


def letterboxed(mask):
    """The 640x480 mask on the model's square of 64x64: each of its pixels stands for 10x10."""
    padded = np.pad(mask, ((80, 80), (0, 0)))
    return padded.reshape(64, 10, 64, 10).mean(axis=(1, 3)) >= 0.5


def test_a_dozen_frames_of_two_megabytes_at_most():
    images = sorted(path.name for path in SAMPLES.glob("frame_*"))
    assert images == [frame["image"] for frame in TRUTH["frames"]]
    assert len(images) == 12
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*")) <= 2_000_000


@pytest.mark.parametrize("index", FRAMES)
def test_images_and_masks_have_the_stated_size(samples, index):
    sample = samples[index]
    assert sample.image.shape == (*SHAPE, 3) and sample.image.dtype == np.uint8
    assert sample.amodal.shape == (len(TRUTH["frames"][index]["objects"]), *SHAPE) and sample.amodal.dtype == bool
    assert sample.occluded_by.shape == (len(sample.amodal),) * 2 and sample.occluded_by.dtype == bool
    assert TRUTH["image_size"] == {"width": SHAPE[1], "height": SHAPE[0]}


def test_depth_falls_from_what_is_covered_to_what_covers_it(samples):
    """So depth images and frames are of the same place, and by the same camera."""
    falls = []
    for path in (SAMPLES / "depth").iterdir():
        depth, sample = read_depth(path), samples[int(path.stem.removeprefix("frame_")) - 1]
        assert depth.shape == SHAPE and 300 < depth.min() and depth.max() < 1000  # millimetres
        visible = visible_masks_of(sample)
        near = [cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))) > 0 for mask in visible]
        for under, over in np.argwhere(sample.occluded_by):
            above, below = depth[visible[over] & near[under]], depth[visible[under] & near[over]]
            if min(above.size, below.size) > 30:
                falls.append(np.median(below) - np.median(above))
    assert len(falls) > 40
    assert np.mean(np.array(falls) > 0) > 0.9 and np.median(falls) > 30  # where they lean on one another, it hardly does


@pytest.mark.parametrize("index", FRAMES)
def test_layers_follow_from_the_occlusions(samples, index):
    objects = TRUTH["frames"][index]["objects"]
    stored = [item["layer"] for item in objects]
    assert layer_indices(samples[index].occluded_by).tolist() == stored
    assert stored == sorted(stored)


@pytest.mark.parametrize("index", FRAMES)
def test_two_objects_occlude_just_where_they_share_pixels(samples, index):
    sample = samples[index]
    flat = sample.amodal.reshape(len(sample.amodal), -1)
    for i, j in np.argwhere(sample.occluded_by):
        assert (flat[i] & flat[j]).any()
        assert not sample.occluded_by[j, i]
    for i in range(len(flat)):
        for j in range(i):
            if not (sample.occluded_by[i, j] or sample.occluded_by[j, i]):
                assert not (flat[i] & flat[j]).any()


@pytest.mark.parametrize("index", FRAMES)
def test_every_object_can_be_seen(samples, index):
    sample = samples[index]
    visible = visible_masks_of(sample)
    stored = [item["visible_pixels"] for item in TRUTH["frames"][index]["objects"]]
    assert visible.sum(axis=(1, 2)).tolist() == stored
    assert min(stored) >= 150
    small = sample._replace(amodal=np.array([letterboxed(mask) for mask in sample.amodal]))
    assert visible_masks_of(small).sum(axis=(1, 2)).min() >= 10


@pytest.mark.parametrize("index", FRAMES)
def test_no_object_is_cut_and_none_is_tiny(samples, index):
    for mask in samples[index].amodal:
        assert not (mask[[0, -1]].any() or mask[:, [0, -1]].any())
        assert max(cv2.minAreaRect(np.argwhere(mask).astype(np.float32))[1]) >= 0.18 * SHAPE[0]


def test_the_scenes_differ_in_depth_and_objects():
    depths = [max(item["layer"] for item in frame["objects"]) for frame in TRUTH["frames"]]
    assert max(depths) >= 5
    assert sum(2 <= depth <= 4 for depth in depths) >= 8
    assert len({item["name"] for frame in TRUTH["frames"] for item in frame["objects"]}) >= 12
    assert all(2 <= len(frame["objects"]) <= 7 for frame in TRUTH["frames"])


def test_camera_info_has_the_camera_matrix_of_the_truth():
    info = yaml.safe_load((SAMPLES / "camera_info.yaml").read_text())
    assert (info["image_height"], info["image_width"]) == SHAPE
    matrix = np.array(TRUTH["camera_matrix"])
    for name, columns in (("camera_matrix", 3), ("projection_matrix", 4)):
        block = info[name]
        assert (block["rows"], block["cols"]) == (3, columns)
        np.testing.assert_allclose(np.reshape(block["data"], (3, columns))[:, :3], matrix)
    assert info["rectification_matrix"]["data"] == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert info["distortion_model"] == "plumb_bob" and not any(info["distortion_coefficients"]["data"])


def test_attribution_names_every_object():
    text = (SAMPLES / "ATTRIBUTION.md").read_text()
    for name in {item["name"] for frame in TRUTH["frames"] for item in frame["objects"]}:
        row = next((line for line in text.splitlines() if line.startswith(f"| {name} |")), None)
        assert row is not None, f"{name} is not attributed"
        assert row.endswith("| MIT |") or row.endswith("| CC0 1.0 |")
    assert "Copyright (c)" in text and "Permission is hereby granted" in text


@pytest.mark.parametrize("fill", [0.0, 0.3, 1.0])
def test_run_lengths_keep_a_mask(fill):
    mask = np.random.default_rng(0).random((7, 5)) < fill
    encoded = encode_mask(mask)
    assert sum(encoded["counts"]) == mask.size
    np.testing.assert_array_equal(decode_mask(encoded), mask)


def test_run_lengths_go_down_the_columns():
    mask = np.array([[True, False], [True, True]])
    assert encode_mask(mask) == {"size": [2, 2], "counts": [0, 2, 1, 1]}


def test_damaged_run_lengths_are_refused():
    with pytest.raises(ValueError, match="damaged"):
        decode_mask({"size": [2, 2], "counts": [3]})


def test_a_missing_frame_is_named(tmp_path):
    (tmp_path / "truth.json").write_text('{"frames": [{"image": "frame_01.jpg", "objects": []}]}')
    with pytest.raises(FileNotFoundError, match="frame_01.jpg"):
        read_samples(tmp_path)

# SPDX-License-Identifier: Apache-2.0
"""Sets of composites from one's own cut-outs: the same for the same seed, as deep as asked for, and mistakes told in a line."""

import shutil
import sys
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest

import training.data.sets
import training.synthesize
from training.data.composites import composite_shard
from training.data.compositor import SET_COMPOSITES, Compositor
from training.data.packed import PackedScenes
from training.data.places import PLACES
from training.data.renders import RenderSettings
from training.data.scene import Scene
from training.data.sets import mini_sets, scanned_set
from training.data.sheets import contact_sheet
from training.data.sprites import Material, read_cutouts
from training.data.statistics import describe

from .conftest import split_of_texture, splits_of


@pytest.fixture
def own(tmp_path, data):
    """A user's folder: cut-outs of three classes and one background."""
    shutil.copytree(data / "fruits" / "train", tmp_path / "cutouts")
    shutil.copytree(data / "textures" / "train", tmp_path / "textures")
    return tmp_path


def run(monkeypatch, own, *words):
    given = ["composite", "--cutouts", own / "cutouts", "--textures", own / "textures", *words]
    monkeypatch.setattr(sys, "argv", ["synthesize", *map(str, given)])
    training.synthesize.main()


def test_ones_own_cutouts_become_a_set(own, monkeypatch, capsys):
    run(monkeypatch, own, "--count", 30, "--image-size", 64, "--out", own / "one")
    said = capsys.readouterr().out
    assert "30 images in" in said
    assert "objects an image" in said
    assert "the papers' sets: Intra-AFruit 3.2" in said
    packed = PackedScenes(own / "one", check=True)
    assert packed[0].image.shape == (64, 64, 3)
    assert cv2.imread(str(own / "one" / "sheet.png")).shape == (6 * 128, 4 * 256, 3)
    run(monkeypatch, own, "--count", 30, "--image-size", 64, "--out", own / "two")
    assert packed.meta["sha256"] == PackedScenes(own / "two").meta["sha256"]
    run(monkeypatch, own, "--count", 30, "--image-size", 64, "--split", "test", "--out", own / "three")
    assert packed.meta["sha256"] != PackedScenes(own / "three").meta["sha256"]


def hues(scene) -> int:
    """In how many of red, green and blue there is a thing; the background is grey."""
    pixels = scene.image.astype(int)
    return sum(int((2 * pixels[..., k] > pixels.sum(axis=2) + 30).sum() > 12) for k in range(3))


def test_classes_are_mixed_on_request_alone(material):
    fruits = Material({"fruits": material.sprites["fruits"]}, material.textures)
    same, mixed = (Compositor(fruits, replace(SET_COMPOSITES, same_class=share)) for share in (1.0, 0.0))
    assert {hues(scene) for scene in composite_shard(same, [0], 40, [], 0)[0]} == {1}
    assert max(hues(scene) for scene in composite_shard(mixed, [0], 40, [], 0)[0]) == 3


def test_a_stratified_set_has_as_many_scenes_of_each_depth(material):
    compositor = Compositor(material, SET_COMPOSITES)
    scenes, source, dropped = composite_shard(compositor, [0], 20, [1, 2, 3, 4, 5], 0)
    assert [len(scene.layers) for scene in scenes] == [1, 2, 3, 4, 5] * 4
    assert (source, dropped) == (list(range(20)), {})


def test_a_depth_that_no_scene_has_is_told(material, monkeypatch):
    monkeypatch.setattr("training.data.composites.TRIES", 20)
    compositor = Compositor(material, replace(SET_COMPOSITES, max_layers=2))
    with pytest.raises(ValueError, match="none of 20 composites has 3 layers: allow"):
        composite_shard(compositor, [0], 1, [3], 0)


def test_a_shard_is_the_same_whatever_others_are_made(material):
    compositor = Compositor(material, SET_COMPOSITES)
    first = composite_shard(compositor, [3], 300, [], 1)
    again = composite_shard(compositor, [3], 300, [], 1)
    assert len(first[0]) == 300 - 256
    assert first[1] == list(range(256, 300))
    assert all((one.image == other.image).all() for one, other in zip(first[0], again[0], strict=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "somewhere"], "give --cutouts and --textures, or --data and --sprites"),
        (["--textures", "absent"], "no textures under absent"),
        (["--image-size", "0"], "must be a whole number in 16..2048, not '0'"),
        (["--count", "0"], "must be a whole number in 1..1000000000, not '0'"),
    ],
)
def test_mistakes_are_told_in_a_line(own, monkeypatch, capsys, words, message):
    with pytest.raises(SystemExit):
        run(monkeypatch, own, "--out", own / "set", *words)
    assert message in capsys.readouterr().err
    assert not (own / "set").exists()


def test_a_tiny_texture_is_refused(own, monkeypatch, capsys):
    cv2.imwrite(str(own / "textures" / "dot.png"), np.zeros((1, 9, 3), np.uint8))
    with pytest.raises(SystemExit):
        run(monkeypatch, own, "--out", own / "set")
    assert "dot.png is 9x1 pixels, too small for a texture: remove it" in capsys.readouterr().err


def test_a_cutout_without_a_transparent_background_is_refused(own, monkeypatch, capsys):
    cv2.imwrite(str(own / "cutouts" / "red" / "1.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SystemExit):
        run(monkeypatch, own, "--out", own / "set")
    assert "1.png has nothing cut out: save it with a transparent background" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((8, 8), np.uint8), "is not in colour with 8 bits a channel"),
        (np.zeros((8, 8, 4), np.uint16), "is not in colour with 8 bits a channel"),
        (np.full((8, 8, 4), 255, np.uint8), "has nothing cut out"),
        (np.zeros((8, 8, 4), np.uint8), "has nothing cut out"),
    ],
)
def test_cutouts_of_other_kinds_are_refused(own, picture, message):
    cv2.imwrite(str(own / "cutouts" / "red" / "1.png"), picture)
    with pytest.raises(ValueError, match=message):
        read_cutouts(own / "cutouts")


def test_the_raw_material_has_no_unseen_objects(own, data, monkeypatch, capsys):
    words = [
        "composite",
        "--data",
        data,
        "--sprites",
        data / "rendered",
        "--family",
        "objects",
        "--split",
        "unseen",
        "--out",
        own / "set",
    ]
    monkeypatch.setattr(sys, "argv", ["synthesize", *map(str, words)])
    with pytest.raises(SystemExit):
        training.synthesize.main()
    assert "the raw material has no objects for unseen, but fruits" in capsys.readouterr().err


def test_without_the_simulator_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    def no_simulator(args):
        raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")

    monkeypatch.setitem(training.synthesize.MAKERS, "render", no_simulator)
    monkeypatch.setattr(sys, "argv", ["synthesize", "render", "--data", str(tmp_path), "--out", str(tmp_path / "set")])
    with pytest.raises(SystemExit):
        training.synthesize.main()
    assert capsys.readouterr().err.endswith("No module named 'mujoco': `pip install -r requirements/training.txt`\n")


def test_a_sheet_shows_as_many_scenes_as_there_are(own, monkeypatch):
    run(monkeypatch, own, "--count", 3, "--out", own / "set")
    assert contact_sheet(PackedScenes(own / "set")).shape == (128, 4 * 256, 3)


@pytest.mark.parametrize("name", sorted(PLACES))
def test_walls_stand_on_the_table_and_leave_room(name):
    place = PLACES[name]
    for seed in range(20):
        around = place.surroundings(np.random.default_rng(seed))
        for wall in around.walls:
            assert wall.centre[2] == wall.half[2]
            gap = np.abs(np.array(wall.centre[:2])) - np.array(wall.half[:2])
            assert gap.max() > 0.1 if 2 * wall.half[2] != place.ground else gap.max() < -0.1  # of what they fall on
        textured = [wall.colour for wall in around.walls].count(None) + (around.plain is None)
        assert textured == 1


def test_the_stand_in_for_intra_afruit(tmp_path, data):
    """A thousandth of the paper's images: all its splits, from scenes of their own, and a test set of all depths."""
    sets = mini_sets(tmp_path, data, data / "rendered", share=0.001, stratified=1, seed=0, image_size=64)
    found = {packed.folder.name: packed for packed in islice(sets, 5)}
    sets.close()
    counts = {name: len(packed) for name, packed in found.items()}
    assert counts == {"train": 187, "val": 3, "test": 3, "unseen": 3, "test-stratified": 5}
    assert [len(scene.layers) for scene in found["test-stratified"]] == [1, 2, 3, 4, 5]
    assert {packed.meta["split"] for packed in found.values()} == {"train", "val", "test", "unseen"}
    assert len({packed.meta["sha256"]["images"] for packed in found.values()}) == 5
    assert all(packed.folder.parent == tmp_path / "afruit-mini" for packed in found.values())


def test_each_stand_in_is_made_of_its_own_split(tmp_path, data, monkeypatch):
    made = []
    monkeypatch.setattr(training.data.sets, "composite_set", lambda out, material, *_: made.append((*out.parts[-2:], material)))
    monkeypatch.setattr(training.data.sets, "scanned_set", lambda *_, enough: range(enough))
    list(mini_sets(tmp_path, data, data / "rendered", share=0.001, stratified=1, seed=0, image_size=64))
    assert len(made) == 5 + 4
    for name, split, material in made:
        split = split.partition("-")[0]
        fruits = {split} if name == "afruit-mini" else set()
        assert splits_of(material) == (fruits, {"test" if split == "unseen" else split})
        objects = {"train": {"vessel"}, "test": {"fork"}}.get(split, set()) if name == "acom-mini" else set()
        assert set(material.sprites.get("objects", ())) == objects


def test_renders_are_of_the_objects_of_their_split_and_furniture_for_training_alone(tmp_path, data, monkeypatch):
    made = {}
    monkeypatch.setattr(training.data.sets, "compact_furniture", lambda *_: {"chair": (tmp_path, "chair")})
    monkeypatch.setattr(training.data.sets, "render_set", lambda out, *given: made.update({out.name: given[:2]}))
    for split in ("train", "test"):
        scanned_set(tmp_path / split, data, split, RenderSettings(), 1, 0, furniture=(tmp_path, tmp_path))
        assert {split_of_texture(texture) for texture in made[split][1]} == {split}
    names = {split: {family: set(models) for family, models in given[0].items()} for split, given in made.items()}
    assert names == {"train": {"objects": {"cup", "mug"}, "furniture": {"chair"}}, "test": {"objects": {"fork"}}}


def test_the_occlusion_rate_is_the_share_of_the_object_that_is_hidden():
    """Of one that is half covered; both are an eighth of the image."""
    amodal = np.zeros((2, 8, 8), bool)
    amodal[0, :2, :4] = amodal[1, 1:3, :4] = True
    told = describe([Scene(np.zeros((8, 8, 3), np.uint8), amodal, np.array([[False, False], [True, False]]))])
    assert "50% occluded; mean occlusion rate 25% over all, 50% over occluded" in told

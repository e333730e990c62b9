# SPDX-License-Identifier: Apache-2.0
"""Composites: what the masks say is what the pixels show; every draw comes from the seed."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from seqamodal_ros.scene.geometry import PADDING, Geometry
from seqamodal_ros.scene.layers import cumulative_masks, layer_indices, visible_masks
from training.data.batches import SceneBatches
from training.data.compositor import CompositeSettings, Compositor, evaluation_compositor
from training.data.painting import bend, retexture, worn
from training.data.rooms import room
from training.data.sprites import crop, load_material, shrink_pictures

from .conftest import disc, splits_of

SETTINGS = CompositeSettings(image_size=128)


@pytest.fixture(scope="module")
def scenes(material):
    """A hundred scenes of the default settings."""
    compositor = Compositor(material, SETTINGS)
    return [compositor(np.random.default_rng([0, k])) for k in range(100)]


def test_shapes_and_types(scenes):
    for scene in scenes:
        count = len(scene.amodal)
        assert scene.image.shape == (128, 128, 3)
        assert scene.image.dtype == np.uint8
        assert scene.amodal.shape == (count, 64, 64)
        assert scene.amodal.dtype == bool
        assert scene.occluded_by.shape == (count, count)
    assert {len(scene.amodal) for scene in scenes} == {0, 1, 2, 3, 4, 5}


def test_every_object_shows_area_min_pixels(scenes):
    for scene in scenes:
        assert (visible_masks(scene.amodal).sum(axis=(1, 2)) >= SETTINGS.area_min).all()


def test_occlusions_are_the_order_of_the_objects(scenes):
    """Nearest first: an object is occluded by every earlier one that shares a pixel, and by no later one."""
    for scene in scenes:
        for i in range(len(scene.amodal)):
            for j in range(len(scene.amodal)):
                shares = bool((scene.amodal[i] & scene.amodal[j]).any())
                assert scene.occluded_by[i, j] == (j < i and shares)
    assert sum(scene.occluded_by.any() for scene in scenes) > 50


def test_the_front_object_is_the_one_that_shows(material):
    """Where two objects of different colours overlap, the pixels have the colour of the one in front."""
    settings = replace(SETTINGS, same_class=0.0, shadow=0.0)
    compositor = Compositor(material, settings)
    told_apart = 0
    for k in range(60):
        scene = compositor(np.random.default_rng([1, k]), family="fruits", count=2)
        size = scene.image.shape[1::-1]
        front, back = (cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for mask in scene.amodal)
        kernel = np.ones((5, 5), np.uint8)
        both, front_alone, back_alone = (
            cv2.erode(mask.astype(np.uint8), kernel) > 0 for mask in (front & back, front & ~back, back & ~front)
        )
        if min(both.sum(), front_alone.sum(), back_alone.sum()) < 20:
            continue
        colour = [np.median(scene.image[mask], axis=0).argmax() for mask in (both, front_alone, back_alone)]
        if colour[1] != colour[2]:
            told_apart += 1
            assert colour[0] == colour[1]
    assert told_apart >= 10


def test_objects_are_where_their_masks_say(material):
    """Coloured pixels and the union of the masks are the same, but for the edges."""
    compositor = Compositor(material, replace(SETTINGS, letterbox=0.0, shadow=0.0))
    for k in range(20):
        scene = compositor(np.random.default_rng([2, k]), family="fruits", count=3)
        coloured = np.ptp(scene.image.astype(int), axis=2) > 60
        union = cv2.resize(scene.amodal.any(axis=0).astype(np.uint8), (128, 128), interpolation=cv2.INTER_NEAREST) > 0
        assert (coloured & union).sum() / (coloured | union).sum() > 0.9


@pytest.mark.parametrize("split", ["train", "val", "test", "unseen"])
def test_what_a_split_is_made_of_is_of_no_other(data, split):
    """But for the textures of `unseen`, which are those of `test`."""
    own = {split}, {"test" if split == "unseen" else split}
    for found in (load_material(data, data / "rendered", split), evaluation_compositor(data, data / "rendered", split).material):
        assert splits_of(found) == own
        objects = {"train": {"vessel"}, "test": {"fork"}}.get(split, set())
        assert set(found.sprites.get("objects", {})) == objects


def test_max_layers(material, scenes):
    assert max(len(scene.layers) for scene in scenes) > 2
    flat = Compositor(material, replace(SETTINGS, max_layers=2))
    assert max(len(flat(np.random.default_rng([3, k]), count=3).layers) for k in range(20)) == 2


def test_rules_that_no_scene_keeps_are_told(material, monkeypatch):
    monkeypatch.setattr("training.data.compositor.TRIES", 20)
    compositor = Compositor(material, replace(SETTINGS, area_min=5000))
    with pytest.raises(ValueError, match="none of 20 composites keeps the rules, 20 for: an object shows fewer than 5000 pixels"):
        compositor(np.random.default_rng(0), count=2)


def test_layers_are_those_of_eq_2(scenes):
    for scene in scenes:
        indices = layer_indices(scene.occluded_by)
        assert len(scene.layers) == (indices.max() if len(indices) else 0)
        for index, mask in enumerate(scene.layers, start=1):
            assert np.array_equal(mask, scene.amodal[indices == index].any(axis=0))
        # each layer after the first lies under the one before, somewhere
        for above, below in zip(scene.layers, scene.layers[1:], strict=False):
            assert (above & below).any()
        assert np.array_equal(cumulative_masks(scene.layers)[-1], scene.amodal.any(axis=0))


def test_a_letterbox_is_padded_as_geometry_does_it(material):
    compositor = Compositor(material, replace(SETTINGS, letterbox=1.0))
    shapes = set()
    for k in range(30):
        scene = compositor(np.random.default_rng([4, k]), count=3)
        padded = (scene.image == PADDING).all(axis=2)
        rows, columns = np.flatnonzero(~padded.all(axis=1)), np.flatnonzero(~padded.all(axis=0))
        height, width = len(rows), len(columns)
        shapes.add((height, width))
        inside = Geometry.letterbox(width, height).inside(64)
        assert not (scene.amodal & ~inside).any()
    assert shapes == {(96, 128), (72, 128), (128, 96), (128, 72)}


def test_no_objects_is_a_bare_texture(material):
    scene = Compositor(material, SETTINGS)(np.random.default_rng(0), count=0)
    assert scene.amodal.shape == (0, 64, 64)
    assert scene.layers.shape == (0, 64, 64)


def test_the_seed_decides_everything(material):
    compositor = Compositor(material, SETTINGS)
    first, again, other = (compositor(np.random.default_rng(seed), count=3) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.amodal, again.amodal)
    assert not np.array_equal(first.image, other.image)


def test_a_room_has_edges_around_a_free_middle():
    bright, dark = (np.full((64, 64, 3), value, np.float32) for value in (0.9, 0.1))
    rooms = [room(np.random.default_rng([7, k]), lambda rng: bright if rng.random() < 0.5 else dark) for k in range(60)]
    steps = []
    for each in rooms:
        assert each.shape == (64, 64, 3) and each.dtype == np.float32
        assert each.min() >= 0 and each.max() <= 1
        grey = each.mean(axis=2)
        steps.append([np.abs(np.diff(part)).max() for part in (grey, grey[28:36, 28:36])])
    edges, in_the_middle = np.array(steps).T
    assert (in_the_middle > 0.0005).sum() > 50  # of one colour, but unevenly lit
    assert (edges > 0.15).sum() > 10  # from left to right, where two surfaces differ
    assert (in_the_middle < 0.1).sum() > 50  # shadows are soft


def test_scenes_in_rooms_by_worse_cameras_keep_the_rules(material):
    compositor = Compositor(material, replace(SETTINGS, rooms=1.0, worn=1.0, letterbox=1.0))
    for k in range(20):
        scene = compositor(np.random.default_rng([8, k]), count=3)
        assert scene.image.dtype == np.uint8 and scene.image.shape == (128, 128, 3)
        assert (visible_masks(scene.amodal).sum(axis=(1, 2)) >= SETTINGS.area_min).all()
        padded = (scene.image == PADDING).all(axis=2)
        padded = padded.all(axis=0)[None, :] | padded.all(axis=1)[:, None]
        assert padded.any()
        assert not (
            scene.amodal & cv2.resize(padded.astype(np.uint8), (64, 64), interpolation=cv2.INTER_NEAREST).astype(bool)
        ).any()


@pytest.mark.parametrize("seed", range(12))
def test_a_worse_camera_keeps_the_picture(seed):
    picture = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(128, 128, 3)), (0, 0), 12)
    picture = (128 + 60 * picture / picture.std()).clip(0, 255).astype(np.uint8)
    seen = worn(np.random.default_rng(seed), picture)
    assert seen.dtype == np.uint8 and seen.shape == picture.shape
    assert (seen != picture).any()
    assert np.corrcoef(seen.ravel(), picture.ravel())[0, 1] > 0.85


@pytest.mark.parametrize("changes", [{"rooms": 1.0}, {"worn": 1.0}], ids=str)
def test_what_is_around_and_the_camera_are_as_often_so_as_is_said(material, changes):
    plain, other = (Compositor(material, replace(SETTINGS, letterbox=0.0, **each)) for each in ({}, changes))
    for k in range(4):
        assert (plain(np.random.default_rng(k), count=0).image != other(np.random.default_rng(k), count=0).image).any()


def test_objects_are_as_small_as_is_said(material):
    def area(size):
        compositor = Compositor(material, replace(SETTINGS, size=size, letterbox=0.0))
        return np.mean([compositor(np.random.default_rng(k), count=1).amodal.sum() for k in range(10)])

    assert area((0.15, 0.2)) < 0.25 * area((0.5, 0.6))


class TestBatches:
    def test_padding_and_layers(self, material):
        batch = SceneBatches(Compositor(material, SETTINGS), batch_size=8, batches=2, seed=0)[0]
        assert batch.image.shape == (8, 3, 128, 128)
        assert batch.amodal.shape == (8, 5, 64, 64)
        assert batch.occluded_by.shape == (8, 5, 5)
        assert ((batch.layers == 0) == ~batch.amodal.flatten(2).any(dim=2)).all()
        padding = batch.layers == 0
        assert not batch.occluded_by[padding].any()
        assert not batch.occluded_by.transpose(1, 2)[padding].any()

    def test_batch_n_is_the_same_whoever_draws_it(self, material):
        one = SceneBatches(Compositor(material, SETTINGS), 3, 10, seed=1)
        other = SceneBatches(Compositor(material, SETTINGS), 3, 10, seed=1)
        one[0]
        assert (one[4].image == other[4].image).all()
        assert not (one[4].image == one[5].image).all()
        assert not (one[4].image == SceneBatches(Compositor(material, SETTINGS), 3, 10, seed=2)[4].image).all()


class TestMaterial:
    def test_families_classes_and_splits(self, data):
        train = load_material(data, data / "rendered", "train")
        assert sorted(train.sprites["fruits"]) == ["blue", "green", "red"]
        assert {name: len(sprites) for name, sprites in train.sprites["objects"].items()} == {"vessel": 4}
        assert list(load_material(data, data / "rendered", "test").sprites["objects"]) == ["fork"]
        assert list(load_material(data, data / "rendered", "unseen").sprites) == ["fruits"]

    def test_sprites_are_cut_to_the_object_and_premultiplied(self, data):
        sprite = load_material(data, data / "rendered", "train").sprites["fruits"]["red"][0]
        assert sprite.shape == (44, 44, 4)
        assert (sprite[sprite[..., 3] == 0] == 0).all()
        assert np.abs(sprite[22, 22].astype(int) - (220, 30, 30, 255)).max() < 4

    def test_half_transparent_pixels_are_premultiplied(self):
        sprite = np.full((4, 4, 4), 200, np.uint8)
        sprite[..., 3] = 128
        assert crop(sprite)[0, 0].tolist() == [100, 100, 100, 128]

    def test_what_is_missing_says_what_makes_it(self, data, tmp_path):
        with pytest.raises(FileNotFoundError, match="no fruit classes under .*check --data"):
            load_material(tmp_path, data / "rendered", "train")
        with pytest.raises(FileNotFoundError, match="cup.npz is missing: run `python -m training.prepare sprites"):
            load_material(data, tmp_path, "train")


class TestRecolour:
    def test_it_changes_colours_and_nothing_else(self, material):
        plain, recoloured = (
            Compositor(material, replace(SETTINGS, recolour=share))._choose_sprites(np.random.default_rng(3), "fruits", 4)
            for share in (0.0, 1.0)
        )
        assert any((one.shape != other.shape) or (one != other).any() for one, other in zip(plain, recoloured, strict=True))
        for sprite in recoloured:
            assert (sprite[..., :3] <= sprite[..., 3:]).all()  # still premultiplied

    def test_none_draws_nothing_so_that_test_sets_stay_what_they_are(self, material):
        """After the sprites the generator stands where it stood before there was such a setting."""
        rng, other = np.random.default_rng(5), np.random.default_rng(5)
        Compositor(material, replace(SETTINGS, same_class=0.0))._choose_sprites(rng, "fruits", 2)
        other.random()
        other.choice(3, 2)
        other.integers(1), other.integers(1)
        assert rng.random() == other.random()


class TestShapesAndSurfaces:
    """What training varies beyond colours."""

    @pytest.fixture
    def sprite(self, material):
        return material.sprites["fruits"]["red"][0]

    def test_another_surface_keeps_the_outline(self, sprite):
        texture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        other = retexture(np.random.default_rng(1), sprite, texture)
        assert other.shape == sprite.shape
        assert other.dtype == np.uint8
        assert np.array_equal(other[..., 3], sprite[..., 3])
        assert (other[..., :3] <= other[..., 3:]).all()  # premultiplied
        inside = other[12:32, 12:32, :3].astype(int)
        assert np.ptp(inside, axis=(0, 1)).min() > 60  # the texture's variety, where the disc had one colour

    def test_light_and_shade_stay(self, sprite):
        shaded = sprite.copy()
        shaded[:22, :, :3] //= 4
        other = retexture(np.random.default_rng(1), shaded, np.full((40, 40, 3), 128, np.uint8))
        assert other[30:36, 18:26, :3].mean() > 1.5 * other[8:14, 18:26, :3].mean()

    def test_bending_moves_the_outline_and_keeps_the_colour(self, sprite):
        bent = [bend(np.random.default_rng(seed), sprite) for seed in range(5)]
        assert len({int((one[..., 3] > 127).sum()) for one in bent}) == 5
        for one in bent:
            assert (one[..., :3] <= one[..., 3:].astype(int) + 1).all()
            solid = one[one[..., 3] == 255][:, :3].astype(int)
            assert np.abs(solid - (220, 30, 30)).max() < 8
            assert 0.3 < (one[..., 3] > 127).sum() / (sprite[..., 3] > 127).sum() < 2

    def test_scenes_of_all_of_it_keep_the_rules(self, material):
        compositor = Compositor(material, replace(SETTINGS, recolour=1.0, retexture=1.0, bend=1.0))
        for k in range(20):
            scene = compositor(np.random.default_rng([7, k]))
            assert (visible_masks(scene.amodal).sum(axis=(1, 2)) >= SETTINGS.area_min).all()
            again = compositor(np.random.default_rng([7, k]))
            assert np.array_equal(scene.image, again.image)


class TestPictures:
    """Cut-out pictures as one more family of training sprites."""

    @pytest.fixture
    def pictures(self, tmp_path):
        folder = tmp_path / "pictures"
        folder.mkdir()
        cv2.imwrite(str(folder / "disc.png"), disc((10, 20, 30), 96))
        wire = np.zeros((96, 96, 4), np.uint8)
        wire[::16, :, :] = wire[:, ::48, :] = 255
        cv2.imwrite(str(folder / "wire.png"), wire)
        return folder

    def test_compact_ones_are_for_training_alone(self, pictures, data, tmp_path):
        rendered = tmp_path / "rendered"
        shutil.copytree(data / "rendered", rendered)
        written = shrink_pictures(pictures, rendered, 48)
        assert [path.stem for path in written] == ["disc", "wire"]
        sprites = load_material(data, rendered, "train").sprites["pictures"]
        assert {name: [sprite.shape for sprite in of] for name, of in sprites.items()} == {"disc": [(46, 46, 4)]}
        assert "pictures" not in load_material(data, rendered, "val").sprites
        assert shrink_pictures(pictures, rendered, 48) == []

    def test_what_is_no_cut_out_is_refused(self, pictures, tmp_path):
        with pytest.raises(FileNotFoundError, match="no pictures in .*transparent"):
            shrink_pictures(tmp_path / "none", tmp_path, 48)
        cv2.imwrite(str(pictures / "photo.png"), np.zeros((9, 9, 3), np.uint8))
        with pytest.raises(ValueError, match="photo.png has nothing cut out"):
            shrink_pictures(pictures, tmp_path / "out", 48)

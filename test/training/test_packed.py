# SPDX-License-Identifier: Apache-2.0
"""Packed sets: what goes in comes out, shards survive an interruption, and no partial or damaged set looks whole."""

import json
import pickle
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest

import training.data.packed
from training.data.batches import Mixture, SceneBatches, varied
from training.data.compositor import CompositeSettings, Compositor
from training.data.packed import MOST_OBJECTS, PackedScenes, fingerprint, pack, to_measure_on
from training.data.painting import camera
from training.data.scene import Scene


@pytest.fixture(scope="module")
def scenes(material):
    """Twelve composites, bare ones among them."""
    compositor = Compositor(material, CompositeSettings(image_size=32, mask_size=16, area_min=2))
    return [compositor(np.random.default_rng([0, k]), count=k % 6) for k in range(12)]


@dataclass(frozen=True)
class Cut:
    """Scenes cut into shards of `each`; told so, it fails at a shard, or has none."""

    scenes: tuple[Scene, ...]
    each: int = 5
    fails_at: int = -1

    def __call__(self, index: int):
        if index == self.fails_at:
            raise RuntimeError("interrupted here")
        numbers = range(len(self.scenes))[index * self.each : (index + 1) * self.each]
        return [self.scenes[k] for k in numbers], list(numbers), {"too hidden": 1}


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Shards are made in this process: what is tested here is the set; test_workers.py has the processes."""
    monkeypatch.setattr(training.data.packed, "in_parallel", lambda work, count, _: map(work, range(count)))


def packed_set(folder, scenes, each=5, about=None, **cut):
    return pack(folder, about or {"split": "train"}, Cut(tuple(scenes), each, **cut), -(-len(scenes) // each))


def test_depth_is_kept_of_what_is_measured_on(tmp_path, scenes):
    """Of training scenes it is not: they would take two thirds more memory for what training does not read."""
    rng = np.random.default_rng(0)
    deep = [replace(scene, depth=rng.integers(0, 65536, (32, 32)).astype(np.uint16)) for scene in scenes]
    kept = packed_set(tmp_path / "val", deep, about={"split": "val"})
    assert all((one.depth == other.depth).all() and one.depth.dtype == np.uint16 for one, other in zip(kept, deep, strict=True))
    assert to_measure_on(tmp_path / "val").meta["shapes"]["depth"] == [12, 32, 32]
    assert all(scene.depth is None for scene in packed_set(tmp_path / "train", deep))
    for some in (deep[:6] + scenes[6:], deep[:5] + scenes[5:], scenes[:5] + deep[5:]):  # within a shard, and of whole ones
        with pytest.raises(ValueError, match="have depth images and some have not|have a depth image"):
            packed_set(tmp_path / "mixed", some, about={"split": "val"})
        shutil.rmtree(tmp_path / "mixed.part")
    flip_a_byte(tmp_path / "val" / "depth.npy", b"NUMPY")
    with pytest.raises(ValueError, match="depth.npy is not what it was"):
        to_measure_on(tmp_path / "val")


def same(one: Scene, other: Scene) -> bool:
    return all((getattr(one, name) == getattr(other, name)).all() for name in ("image", "amodal", "occluded_by"))


def flip_a_byte(path, after):
    """A thousand bytes behind the first place where `after` stands."""
    content = bytearray(path.read_bytes())
    content[content.index(after) + 1000] ^= 255
    path.write_bytes(content)


def test_what_is_packed_comes_out(tmp_path, scenes):
    packed_set(tmp_path / "set", scenes)
    packed = PackedScenes(tmp_path / "set", check=True)
    assert len(packed) == 12
    assert all(same(one, other) for one, other in zip(packed, scenes, strict=True))
    assert packed[3].amodal.dtype == bool
    assert packed[0].amodal.shape == (0, 16, 16)
    assert packed.source.tolist() == list(range(12))
    expected = {"count": 12, "found": 12, "image_size": 32, "mask_size": 16, "split": "train", "dropped": {"too hidden": 3}}
    assert {key: packed.meta[key] for key in expected} == expected
    assert not (tmp_path / "set.part").exists()


def test_it_is_counted_as_a_sequence_is(tmp_path, scenes):
    packed = packed_set(tmp_path / "set", scenes)
    assert same(packed[-1], scenes[-1])
    assert same(packed[np.int64(2)], scenes[2])
    with pytest.raises(IndexError, match="scene 12 of a set of 12"):
        packed[12]


def test_another_process_is_sent_the_folder_and_maps_the_files_itself(tmp_path, scenes):
    packed = packed_set(tmp_path / "set", scenes)
    sent = pickle.dumps(packed)
    assert len(sent) < 1000
    assert same(pickle.loads(sent)[4], scenes[4])


def test_the_bytes_do_not_depend_on_how_it_was_cut_into_shards(tmp_path, scenes):
    one, other = packed_set(tmp_path / "one", scenes, each=5), packed_set(tmp_path / "other", scenes, each=1)
    assert one.meta["sha256"] == other.meta["sha256"]


def test_shards_survive_an_interruption_and_broken_ones_are_made_again(tmp_path, scenes):
    with pytest.raises(RuntimeError, match="interrupted here"):
        packed_set(tmp_path / "set", scenes, each=3, fails_at=3)
    with pytest.raises(FileNotFoundError, match="no packed set .*meta.json"):
        PackedScenes(tmp_path / "set")
    (tmp_path / "set.part" / "000001.npz").write_bytes(b"half of a shard")
    flip_a_byte(tmp_path / "set.part" / "000002.npz", b"images.npy")
    (tmp_path / "set.part" / "000003.npz").touch()
    found = set()

    def work(index):
        found.add(index)
        return Cut(tuple(scenes), each=3)(index)

    packed = pack(tmp_path / "set", {"split": "train"}, work, 4)
    assert found == {1, 2, 3}
    assert [same(one, other) for one, other in zip(packed, scenes, strict=True)] == [True] * 12


def test_a_whole_set_is_left_as_it_is_and_another_one_refused(tmp_path, scenes):
    first = packed_set(tmp_path / "set", scenes)
    again = packed_set(tmp_path / "set", scenes, fails_at=0)
    assert again.meta == first.meta
    with pytest.raises(FileExistsError, match="is there already, made from something else: remove it, or give another --out"):
        packed_set(tmp_path / "set", scenes, about={"split": "test"})


def test_an_unfinished_set_of_something_else_is_not_gone_on_with(tmp_path, scenes):
    with pytest.raises(RuntimeError):
        packed_set(tmp_path / "set", scenes, fails_at=1)
    with pytest.raises(FileExistsError, match="was begun from something else: remove it"):
        packed_set(tmp_path / "set", scenes, about={"split": "test"})


def test_a_set_begun_on_a_full_disk_goes_on(tmp_path, scenes, monkeypatch):
    def full(path, data):
        raise OSError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("training.data.packed.write_whole", full)
        with pytest.raises(OSError, match="cannot write .*about.json"):
            packed_set(tmp_path / "set", scenes)
    assert len(packed_set(tmp_path / "set", scenes)) == len(scenes)


def test_empty_shards_are_passed_over_and_an_empty_set_is_refused(tmp_path, scenes):
    def nothing(index):
        return [], [], {"missing image": 2}

    with pytest.raises(ValueError, match=r"nothing to put into .*dropped: \{'missing image': 4\}"):
        pack(tmp_path / "set", {}, nothing, 2)
    assert not (tmp_path / "set.part").exists()  # so the same command starts anew once the folder is right
    packed = pack(tmp_path / "set", {}, lambda index: (scenes[:2], [7, 7], {}) if index else nothing(index), 2)
    assert packed.source.tolist() == [7, 7]


def test_enough_is_enough(tmp_path, scenes):
    packed = pack(tmp_path / "set", {}, Cut(tuple(scenes), each=2), 6, enough=5)
    assert packed.source.tolist() == [0, 1, 2, 3, 4]
    assert packed.meta["found"] == 6


def test_a_damaged_set_is_not_measured_on(tmp_path, scenes):
    packed_set(tmp_path / "set", scenes, about={"split": "test"})
    assert len(to_measure_on(tmp_path / "set")) == len(scenes)
    flip_a_byte(tmp_path / "set" / "images.npy", b"NUMPY")
    with pytest.raises(ValueError, match="images.npy is not what it was"):
        to_measure_on(tmp_path / "set")


@pytest.mark.parametrize("written", ["", "{", "{}", "[]", '{"format": 1}'])
def test_what_is_no_meta_is_told(tmp_path, scenes, written):
    packed_set(tmp_path / "set", scenes)
    (tmp_path / "set" / "meta.json").write_text(written)
    with pytest.raises(ValueError, match=r"meta.json cannot be read \(.*\): make the set anew"):
        PackedScenes(tmp_path / "set")


def test_a_damaged_set_and_another_format_are_refused(tmp_path, scenes):
    packed_set(tmp_path / "set", scenes)
    amodal = tmp_path / "set" / "amodal.npy"
    whole = amodal.read_bytes()
    amodal.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    with pytest.raises(ValueError, match="amodal.npy is not what it was"):
        PackedScenes(tmp_path / "set", check=True)
    amodal.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"amodal.npy cannot be read \(.*\): make the set anew"):
        PackedScenes(tmp_path / "set")
    meta = tmp_path / "set" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 0}))
    with pytest.raises(ValueError, match="of format 0, this reads 1: make it anew"):
        PackedScenes(tmp_path / "set")


def test_fingerprints_tell_content_apart():
    one = fingerprint({"a": [np.arange(3)]}, "b")
    assert one == fingerprint({"a": [np.arange(3)]}, "b")
    others = [
        fingerprint({"a": [np.arange(4)]}, "b"),
        fingerprint({"a": [np.arange(3)], "b": []}),
        fingerprint({"a": [np.arange(3.0)]}, "b"),
    ]
    assert len({one, *others}) == 4


def test_more_objects_than_the_format_takes_are_refused(tmp_path):
    count = MOST_OBJECTS + 1
    crowd = Scene(np.zeros((32, 32, 3), np.uint8), np.zeros((count, 16, 16), bool), np.zeros((count, count), bool))
    with pytest.raises(ValueError, match=f"a scene of {count} objects"):
        packed_set(tmp_path / "set", [crowd])


def test_batches_mix_in_their_share(tmp_path, scenes, material):
    compositor = Compositor(material, CompositeSettings(image_size=32, mask_size=16, area_min=2, counts=(1.0,)))
    packed = packed_set(tmp_path / "set", [scene for scene in scenes if len(scene.amodal)])
    batches = SceneBatches(Mixture(packed, 0.25, compositor), 400, 1, 0)
    drawn = batches[0].layers.amax(dim=1) > 0  # composites here are bare
    assert 70 < int(drawn.sum()) < 130
    assert (batches[0].image == batches[0].image).all()


def test_varied_scenes_turn_masks_with_the_image():
    """White where the object is, black elsewhere: still so however it is turned, and padding stays padding."""
    image = np.full((32, 32, 3), 0, np.uint8)
    amodal = np.zeros((1, 16, 16), bool)
    amodal[0, 5:8, 3:12] = True
    image[amodal[0].repeat(2, 0).repeat(2, 1)] = 255
    image[:8] = 128
    scene = Scene(image, amodal, np.zeros((1, 1), bool))
    seen = set()
    for seed in range(40):
        other = varied(scene, np.random.default_rng(seed))
        bright = other.image[::2, ::2].min(axis=2) > 150
        inside = other.amodal[0]
        assert bright[inside].mean() > 0.8
        assert not bright[~inside].any()
        assert (other.image == 128).all(axis=2).sum() == 8 * 32
        seen.add(other.amodal.tobytes())
    assert len(seen) == 8


def test_a_set_is_seen_by_worse_cameras_too(tmp_path, scenes):
    """Which must not bring the padding's grey into the picture: what is white up to the padding stays so."""
    image = np.full((256, 256, 3), 255, np.uint8)
    image[:59] = image[197:] = 128
    scene = Scene(image, np.zeros((0, 64, 64), bool), np.zeros((0, 0), bool))
    for seed in range(20):
        worse = varied(scene, np.random.default_rng(seed), 1.0).image
        grey = (worse == 128).all(axis=2)
        worse = worse if grey.all(axis=1).any() else worse.transpose(1, 0, 2)
        assert (worse[:59] == 128).all() and (worse[197:] == 128).all()
        rows = worse[59:197].mean(axis=(1, 2))
        assert rows[[0, 1, -2, -1]].min() > rows[10:20].mean() - 4
    packed = packed_set(tmp_path / "set", [scene for scene in scenes if len(scene.amodal)])
    usual, worn = (SceneBatches(Mixture(packed, 1.0, None, share), 4, 1, 0)[0] for share in (0.0, 1.0))
    assert (usual.image != worn.image).any()


def test_the_camera_keeps_the_picture():
    flat = np.full((16, 16, 3), 0.5, np.float32)
    assert 70 < camera(np.random.default_rng(0), flat).mean() < 180

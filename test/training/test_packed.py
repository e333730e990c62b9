# SPDX-License-Identifier: Apache-2.0
"""Packed sets: what goes in comes out, parts survive an interruption, and no partial or damaged set looks whole."""

import importlib
import json

import numpy as np
import pytest

from training.data.batches import CompositeBatches, Mixture, varied
from training.data.compositor import Composite, CompositeSettings, Compositor, camera
from training.data.packed import MOST_OBJECTS, PackedScenes, Packer


@pytest.fixture(scope="module")
def scenes(material):
    """Twelve composites, bare ones among them."""
    compositor = Compositor(material, CompositeSettings(image_size=32, mask_size=16, area_min=2))
    return [compositor(np.random.default_rng([0, k]), count=k % 6) for k in range(12)]


def pack(folder, scenes, each=5):
    packer = Packer(folder, {"split": "train"})
    for index, first in enumerate(range(0, len(scenes), each)):
        part = scenes[first : first + each]
        packer.add(index, (part, range(first, first + len(part)), {}))
    return packer.finish()


def same(one: Composite, other: Composite) -> bool:
    return all((getattr(one, name) == getattr(other, name)).all() for name in ("image", "amodal", "occluded_by"))


def test_what_is_packed_comes_out(tmp_path, scenes):
    pack(tmp_path / "set", scenes)
    packed = PackedScenes(tmp_path / "set", check=True)
    assert len(packed) == 12
    assert all(same(one, other) for one, other in zip(packed, scenes, strict=True))
    assert packed[3].amodal.dtype == bool
    assert packed[0].amodal.shape == (0, 16, 16)
    assert packed.source.tolist() == list(range(12))
    assert {key: packed.meta[key] for key in ("count", "image_size", "mask_size", "split")} == {
        "count": 12,
        "image_size": 32,
        "mask_size": 16,
        "split": "train",
    }
    assert not (tmp_path / "set.part").exists()


def test_the_bytes_do_not_depend_on_how_it_was_cut_into_parts(tmp_path, scenes):
    one, other = pack(tmp_path / "one", scenes, each=5), pack(tmp_path / "other", scenes, each=1)
    assert one.meta["sha256"] == other.meta["sha256"]


def test_parts_survive_an_interruption(tmp_path, scenes):
    Packer(tmp_path / "set", {}).add(0, (scenes[:5], range(5), {}))
    (tmp_path / "set.part" / ".000001.npz").write_bytes(b"half of a part")
    with pytest.raises(FileNotFoundError, match="no packed set .*meta.json"):
        PackedScenes(tmp_path / "set")
    again = Packer(tmp_path / "set", {})
    assert again.path(0).is_file()
    assert not again.path(1).is_file()
    again.add(1, (scenes[5:], range(5, 12), {}))
    assert [same(one, other) for one, other in zip(again.finish(), scenes, strict=True)] == [True] * 12


def test_empty_parts_are_passed_over_and_an_empty_set_is_refused(tmp_path, scenes):
    packer = Packer(tmp_path / "set", {})
    packer.add(0, ([], [], {"too hidden": 3}))
    with pytest.raises(ValueError, match="no scene in .*set.part"):
        packer.finish()
    packer.add(1, (scenes[:2], [7, 7], {"too hidden": 1}))
    packed = packer.finish()
    assert packed.source.tolist() == [7, 7]
    assert packed.meta["dropped"] == {"too hidden": 4}


def test_a_damaged_set_and_another_format_are_refused(tmp_path, scenes):
    pack(tmp_path / "set", scenes)
    with pytest.raises(FileExistsError, match="remove it, or give another --out"):
        Packer(tmp_path / "set", {})
    amodal = tmp_path / "set" / "amodal.npy"
    amodal.write_bytes(amodal.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ValueError, match="amodal.npy is not what it was"):
        PackedScenes(tmp_path / "set", check=True)
    meta = tmp_path / "set" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 0}))
    with pytest.raises(ValueError, match="of format 0, this reads 1: make it anew"):
        PackedScenes(tmp_path / "set")


def test_more_objects_than_the_format_takes_are_refused(tmp_path):
    count = MOST_OBJECTS + 1
    crowd = Composite(np.zeros((32, 32, 3), np.uint8), np.zeros((count, 16, 16), bool), np.zeros((count, count), bool))
    with pytest.raises(ValueError, match=f"a scene of {count} objects"):
        Packer(tmp_path / "set", {}).add(0, ([crowd], [0], {}))


def test_batches_mix_in_their_share(tmp_path, scenes, material):
    compositor = Compositor(material, CompositeSettings(image_size=32, mask_size=16, area_min=2, counts=(1.0,)))
    packed = pack(tmp_path / "set", [scene for scene in scenes if len(scene.amodal)])
    batches = CompositeBatches(Mixture(packed, 0.25, compositor), 400, 1, 0)
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
    scene = Composite(image, amodal, np.zeros((1, 1), bool))
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


def test_the_camera_keeps_the_picture():
    flat = np.full((16, 16, 3), 0.5, np.float32)
    assert 70 < camera(np.random.default_rng(0), flat).mean() < 180


def test_an_unfinished_set_of_other_settings_is_not_gone_on_with(tmp_path):
    Packer(tmp_path / "set", {"seed": 0})
    with pytest.raises(FileExistsError, match="was begun with other settings: remove it"):
        Packer(tmp_path / "set", {"seed": 1})


BARE = """
import numpy as np
from training.data.compositor import Composite

def bare(index):
    '''Shard `index`: as many bare scenes as its number says.'''
    scene = Composite(np.full((32, 32, 3), index, np.uint8), np.zeros((0, 16, 16), bool), np.zeros((0, 0), bool))
    return [scene] * index, [index] * index, {}
"""


def test_shards_are_made_by_workers_and_enough_is_enough(tmp_path, monkeypatch):
    (tmp_path / "bare_shards.py").write_text(BARE)  # a module of its own, for the workers to import
    monkeypatch.syspath_prepend(tmp_path)
    packer = Packer(tmp_path / "set", {})
    packer.fill(importlib.import_module("bare_shards").bare, 6, enough=5)
    packed = packer.finish(enough=5)
    assert packed.source.tolist() == [1, 2, 2, 3, 3]
    assert [scene.image[0, 0, 0] for scene in packed] == [1, 2, 2, 3, 3]

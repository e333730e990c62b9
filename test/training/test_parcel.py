# SPDX-License-Identifier: Apache-2.0
"""What travels to a GPU comes out as it went in, but for what WebP loses."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

import training.data.packed
import training.parcel
from training.data.compositor import CompositeSettings, Compositor
from training.data.packed import PackedScenes
from training.data.sprites import load_material

COMPOSITES = CompositeSettings(image_size=64, mask_size=16, area_min=2)


@pytest.fixture
def here(monkeypatch):
    """No processes: what they would do is done here."""
    for module in (training.data.packed, training.parcel):
        monkeypatch.setattr(module, "in_parallel", lambda work, count, _: map(work, range(count)))


@pytest.fixture
def a_set(tmp_path, material, here):
    scenes = [Compositor(material, COMPOSITES)(np.random.default_rng(k), count=1 + k % 3) for k in range(5)]
    about = {"split": "train", "settings": asdict(COMPOSITES)}
    return training.data.packed.pack(tmp_path / "piles", about, lambda _: (scenes, range(5), {}), 1)


@pytest.fixture
def sprites(tmp_path):
    """Of an object, of a picture that is opaque all over, and of a model of which no view was kept."""
    folder = tmp_path / "rendered"
    (folder / "pictures").mkdir(parents=True)
    seen = np.zeros((2, 16, 12, 4), np.uint8)
    seen[:, 3:13, 2:10] = (200, 90, 30, 255)
    for path, views in {"cup": seen, "mug": seen[:1], "pictures/card": seen[:1, 3:13, 2:10], "pictures/net": seen[:0]}.items():
        np.savez_compressed(folder / f"{path}.npz", sprites=views, drawn=2)
    return folder


def test_depth_travels(tmp_path, material, here, monkeypatch):
    scene = Compositor(material, COMPOSITES)(np.random.default_rng(0), count=2)
    scenes = [replace(scene, depth=np.full((64, 64), k, np.uint16)) for k in (700, 900)]
    about = {"split": "val", "settings": asdict(COMPOSITES)}
    packed = training.data.packed.pack(tmp_path / "views", about, lambda _: (scenes, range(2), {}), 1)
    run(monkeypatch, "pack", "--packed", packed.folder, "--out", tmp_path / "parcel")
    run(monkeypatch, "unpack", tmp_path / "parcel", "--out", tmp_path / "out")
    assert [scene.depth[0, 0] for scene in PackedScenes(tmp_path / "out" / "sets" / "views", check=True)] == [700, 900]


def test_a_damaged_set_is_not_sent(tmp_path, a_set, monkeypatch, capsys):
    masks = a_set.folder / "amodal.npy"
    masks.write_bytes(masks.read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit):
        run(monkeypatch, "pack", "--packed", a_set.folder, "--out", tmp_path / "parcel")
    assert "amodal.npy is not what it was when the set was made" in capsys.readouterr().err


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["parcel", *map(str, arguments)])
    training.parcel.main()


def test_there_and_back(tmp_path, data, sprites, a_set, monkeypatch, capsys):
    parcel, out = tmp_path / "parcel", tmp_path / "out"
    run(monkeypatch, "pack", "--data", data, "--sprites", sprites, "--packed", a_set.folder, "--out", parcel)
    run(monkeypatch, "unpack", parcel, "--out", out)
    assert capsys.readouterr().out.startswith(f"{parcel}: ")
    for path in sprites.rglob("*.npz"):
        with np.load(path) as before, np.load(out / "sprites" / path.relative_to(sprites)) as after:
            assert (after["sprites"].shape, after["drawn"]) == (before["sprites"].shape, before["drawn"])
            assert np.array_equal(after["sprites"][..., 3], before["sprites"][..., 3])
            seen = before["sprites"][..., 3] > 0
            assert not seen.any() or np.abs(after["sprites"][seen].astype(int) - before["sprites"][seen]).max() < 40
    came = PackedScenes(out / "sets" / "piles", check=True)
    assert len(came) == 5 and came.meta["webp_quality"] == 80 and came.meta["settings"] == a_set.meta["settings"]
    for before, after in zip(a_set, came, strict=True):
        assert np.array_equal(before.amodal, after.amodal) and np.array_equal(before.occluded_by, after.occluded_by)
        assert 0 < np.abs(before.image.astype(int) - after.image).mean() < 12
    loaded = load_material(out / "data", out / "sprites", "train")
    assert set(loaded.sprites) == {"fruits", "objects", "pictures"} and len(loaded.textures) == 1
    assert not (out / "data" / "fruits" / "test").exists()


def test_a_part_alone(tmp_path, a_set, monkeypatch):
    run(monkeypatch, "pack", "--packed", a_set.folder, "--quality", "30", "--out", tmp_path / "parcel")
    run(monkeypatch, "unpack", tmp_path / "parcel", "--out", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sets"]


def test_an_image_that_was_damaged_on_the_way(tmp_path, a_set, monkeypatch, capsys):
    parcel = tmp_path / "parcel"
    training.parcel.pack(parcel, None, None, [a_set.folder], ["train"], 80)
    file = parcel / "sets" / "piles" / "scenes.npz"
    with np.load(file) as held:
        arrays = dict(held)
    arrays["webp"][:40] = 0
    np.savez(file, **arrays)
    with pytest.raises(SystemExit):
        run(monkeypatch, "unpack", parcel, "--out", tmp_path / "out")
    assert "scenes.npz is damaged (an image cannot be read): send it again" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [0, 40, -30])
def test_a_file_that_was_cut_off_on_the_way(tmp_path, sprites, here, monkeypatch, capsys, kept):
    parcel = tmp_path / "parcel"
    training.parcel.pack(parcel, None, sprites, [], ["train"], 80)
    file = parcel / "sprites" / "cup.npz"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(SystemExit):
        run(monkeypatch, "unpack", parcel, "--out", tmp_path / "out")
    assert "cup.npz is damaged (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "--out", "new"], "give --data, --sprites or --packed"),
        (["pack", "--packed", "piles", "--out", "piles"], "is there already"),
        (["pack", "--packed", "piles", "piles", "--out", "new"], "two of the sets have one name"),
        (["pack", "--packed", "piles", "--quality", "0", "--out", "new"], "the quality must be in 1..100, not 0"),
        (["pack", "--packed", "nowhere", "--out", "new"], "nowhere: it has no meta.json"),
        (["pack", "--sprites", "piles", "--out", "new"], "no sprites in piles"),
        (["pack", "--data", "nowhere", "--out", "new"], "no raw material in nowhere"),
        (["unpack", "nowhere", "--out", "new"], "no parcel in nowhere"),
        (["unpack", "piles", "--out", "new"], "piles is no parcel"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, a_set, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    assert message in capsys.readouterr().err
    assert not Path("new").exists()

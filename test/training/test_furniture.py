# SPDX-License-Identifier: Apache-2.0
"""Furniture archives: which models they list, and how sprites of them are kept; the archive here is made on the spot."""

import zipfile

import numpy as np
import pytest

from training.data.catalogue import FURNITURE, KINDS
from training.data.furniture import furniture_models, read_furniture
from training.data.sprites import _compact, _save_sprites, compact_furniture, load_material

CUBE = """mtllib cube.mtl
v 0 0 0\nv 2 0 0\nv 2 4 0\nv 0 4 0\nv 0 0 1\nv 2 0 1\nv 2 4 1\nv 0 4 1
usemtl red
f 1 4 3 2\nf 5 6 7 8\nf 1 2 6 5\nf 2 3 7 6\nf 3 4 8 7\nf 4 1 5 8
"""


@pytest.fixture
def archives(tmp_path):
    """A folder with one archive of a cube and of a kind that the sample frames show."""
    shown = next(kind.file for kind in KINDS.values() if not kind.robosuite)
    with zipfile.ZipFile(tmp_path / "some.sh3f", "w") as archive:
        models = [f"/{FURNITURE}/{shown}/{shown}.obj", f"/{FURNITURE}/cube/cube.obj"]
        lines = [f"model#{k + 1}={path}" for k, path in enumerate(models)]
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join(lines))
        for path in models:
            archive.writestr(path[1:], CUBE)
            archive.writestr(f"{path[1:].rsplit('/', 1)[0]}/cube.mtl", "newmtl red\nKd 1 0 0\n")
    return tmp_path


def test_models_of_the_archives_but_for_those_of_the_sample_frames(archives):
    models = furniture_models(archives)
    assert list(models) == [f"{FURNITURE}-cube"]
    model = read_furniture(*models[f"{FURNITURE}-cube"])
    (part,) = model.parts
    assert part.colour == (1, 0, 0)
    assert np.ptp(part.vertices, axis=0).tolist() == [0.5, 0.25, 1.0]  # upright: y of the file is up
    assert (part.vertices.max(axis=0) == -part.vertices.min(axis=0)).all()


def test_both_sides_and_sizes(archives):
    model = read_furniture(*furniture_models(archives)[f"{FURNITURE}-cube"])
    both = model.two_sided().parts
    assert (both[1].faces == both[0].faces[:, ::-1]).all()
    assert np.ptp(model.scaled(0.2).parts[0].vertices[:, 2]) == pytest.approx(0.2)


def test_a_folder_without_archives_says_what_to_install(tmp_path):
    with pytest.raises(FileNotFoundError, match="install Debian's sweethome3d-furniture"):
        furniture_models(tmp_path)


def test_one_solid_piece_is_compact_and_a_railing_is_not():
    disc = np.hypot(*np.mgrid[-20:20, -20:20]) < 15
    assert _compact(disc)
    railing = np.zeros((40, 40), bool)
    railing[::8] = railing[:, ::20] = True
    assert not _compact(railing)
    assert not _compact(disc & (np.abs(np.arange(40) - 20) > 2))  # two pieces
    assert not _compact(np.zeros((40, 40), bool))


def test_a_class_whose_writing_was_interrupted_is_no_class(tmp_path, monkeypatch):
    def interrupted(file, **_):
        file.write(b"half of")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _save_sprites(tmp_path / "box.npz", np.zeros((1, 8, 8, 4), np.uint8), 1)
    assert not list(tmp_path.glob("*.npz"))


def test_compact_models_are_those_of_which_most_views_were_kept(archives, tmp_path):
    with pytest.raises(FileNotFoundError, match="no furniture in .*training.prepare sprites` with --furniture"):
        compact_furniture(archives, tmp_path)
    (tmp_path / "furniture").mkdir()
    path = tmp_path / "furniture" / f"{FURNITURE}-cube.npz"
    for kept, names in ((3, [f"{FURNITURE}-cube"]), (2, [])):
        np.savez(path, sprites=np.zeros((kept, 8, 8, 4), np.uint8), drawn=4)
        if names:
            assert list(compact_furniture(archives, tmp_path)) == names
    with pytest.raises(FileNotFoundError, match="no furniture"):
        compact_furniture(archives, tmp_path)


def test_furniture_is_material_for_training_alone(data, tmp_path):
    import shutil

    rendered = tmp_path / "rendered"
    shutil.copytree(data / "rendered", rendered)
    (rendered / "furniture").mkdir()
    np.savez(rendered / "furniture" / "box.npz", sprites=np.full((2, 8, 8, 4), 255, np.uint8), drawn=2)
    np.savez(rendered / "furniture" / "wire.npz", sprites=np.zeros((0, 8, 8, 4), np.uint8), drawn=2)
    assert {name: len(views) for name, views in load_material(data, rendered, "train").sprites["furniture"].items()} == {"box": 2}
    assert "furniture" not in load_material(data, rendered, "test").sprites

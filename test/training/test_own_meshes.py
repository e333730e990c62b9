# SPDX-License-Identifier: Apache-2.0
"""A user's own meshes: read from OBJ files, refused where they cannot be used, rendered into a set."""

import os
import sys

import cv2
import numpy as np
import pytest

import training.synthesize
from training.data.meshes import read_own_meshes
from training.data.packed import PackedScenes

os.environ.setdefault("MUJOCO_GL", "osmesa")  # MuJoCo reads it when it is imported

BOX = """v 0 0 0
v 1 0 0
v 1 2 0
v 0 2 0
v 0 0 3
v 1 0 3
v 1 2 3
v 0 2 3
f 4 3 2 1
f 5 6 7 8
f 1 2 6 5
f 2 3 7 6
f 3 4 8 7
f 4 1 5 8
"""


def turned(mesh: str) -> str:
    """The same faces, looking the other way."""
    lines = [line.split() for line in mesh.splitlines()]
    return "".join(" ".join([kind, *(reversed(rest) if kind == "f" else rest)]) + "\n" for kind, *rest in lines)


SECOND = """v 5 5 5
v 6 5 5
v 6 6 5
v 5 6 5
v 5 5 6
v 6 5 6
v 6 6 6
v 5 6 6
f 12 11 10 9
f 13 14 15 16
f 9 10 14 13
f 10 11 15 14
f 11 12 16 15
f 12 9 13 16
"""


@pytest.fixture
def folders(tmp_path):
    """Two boxes, one with a material in a folder of its own, and a texture."""
    meshes, textures = tmp_path / "meshes", tmp_path / "textures"
    (meshes / "tins").mkdir(parents=True)
    textures.mkdir()
    (meshes / "box.obj").write_text(BOX)
    (meshes / "tins" / "red.obj").write_text("mtllib red.mtl\nusemtl paint\n" + BOX)
    (meshes / "tins" / "red.mtl").write_text("newmtl paint\nKd 0.9 0.1 0.1\n")
    cv2.imwrite(str(textures / "wood.png"), np.full((64, 64, 3), 120, np.uint8))
    return meshes, textures


def test_they_are_named_by_their_path_and_a_metre_long(folders):
    found = read_own_meshes(folders[0])
    assert sorted(found) == ["box", "tins/red"]
    assert found["tins/red"].parts[0].colour == (0.9, 0.1, 0.1)
    corners = found["box"].parts[0].vertices
    assert np.ptp(corners, axis=0).max() == pytest.approx(1)


@pytest.mark.parametrize("coding", ["utf-8", "latin-1"])
def test_names_may_have_letters_of_other_languages_and_backslashes_between_folders(folders, coding):
    """As exporters on Windows write them."""
    tins = folders[0] / "tins"
    (tins / "bön").mkdir()
    (tins / "red.mtl").rename(tins / "bön" / "rot grün.mtl")
    (tins / "red.obj").write_bytes(("mtllib bön\\rot grün.mtl\nusemtl paint\n" + BOX).encode(coding))
    cv2.imwrite(str(tins / "bön" / "rot.png"), np.full((8, 8, 3), 77, np.uint8))
    (tins / "bön" / "rot grün.mtl").write_text("newmtl paint\nmap_Kd .\\rot.png\n")
    (tins / "red.obj").rename(tins / "RED.OBJ")
    assert (read_own_meshes(folders[0])["tins/RED"].parts[0].texture == 77).all()


@pytest.mark.parametrize("named", ["dark wood.png", "-s 2 2 1 wood.png"])
def test_a_texture_may_have_spaces_in_its_name_or_options_before_it(folders, named):
    tins = folders[0] / "tins"
    cv2.imwrite(str(tins / named.rpartition("1 ")[2]), np.full((8, 8, 3), 77, np.uint8))
    (tins / "red.mtl").write_text(f"newmtl paint\nmap_Kd {named}\n")
    assert (read_own_meshes(folders[0])["tins/red"].parts[0].texture == 77).all()


@pytest.mark.parametrize(
    "faces,solid",
    [
        (BOX, True),
        (BOX.replace("f 4 1 5 8\n", ""), False),  # open
        (BOX.replace("f 4 1 5 8", "f 8 5 1 4"), False),  # one face looks inwards
        (turned(BOX), False),  # all do
        (BOX + SECOND, True),  # two shells
        (BOX + turned(SECOND), False),  # the smaller one does
    ],
)
def test_what_is_seen_from_behind_is_no_solid(tmp_path, faces, solid):
    (tmp_path / "box.obj").write_text(faces)
    assert read_own_meshes(tmp_path)["box"].solid() == solid


@pytest.mark.parametrize(
    "text,words",
    [
        ("v 0 0 0\n", "holds no face"),
        ("f 1 2 3\n", "is no mesh"),
        ("v a b c\n", "is no mesh"),
        ("v 0 0 0\nf 1 2 9\n", "is no mesh"),
        ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "bad.obj is no mesh that can be used .* holds no face that has an area"),
    ],
    ids=["no face", "no vertices", "no numbers", "no such vertex", "no area"],
)
def test_what_is_no_mesh_is_refused(folders, text, words):
    (folders[0] / "bad.obj").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_own_meshes(folders[0])


def test_a_colour_before_the_first_material_is_passed_over(folders):
    path = folders[0] / "tins" / "red.mtl"
    expected = read_own_meshes(folders[0])
    path.write_text("Kd 0 0 1\n" + path.read_text())
    assert {name: model.parts[0].colour for name, model in read_own_meshes(folders[0]).items()} == {
        name: model.parts[0].colour for name, model in expected.items()
    }


def test_what_is_missing_is_named(folders, tmp_path):
    (folders[0] / "tins" / "red.mtl").unlink()
    with pytest.raises(FileNotFoundError, match="red.mtl"):
        read_own_meshes(folders[0])
    with pytest.raises(FileNotFoundError, match="no meshes under"):
        read_own_meshes(tmp_path / "textures")


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["synthesize", "render", *map(str, words)])
    training.synthesize.main()


@pytest.mark.parametrize("words", [["--meshes", "M"], ["--textures", "T"], ["--meshes", "M", "--textures", "T", "--data", "D"]])
def test_half_of_what_is_needed_is_refused(monkeypatch, tmp_path, capsys, words):
    with pytest.raises(SystemExit):
        run(monkeypatch, *words, "--out", tmp_path / "set")
    assert "give --meshes and --textures, or --data" in capsys.readouterr().err


def test_the_command_makes_a_set_of_them(folders, tmp_path, monkeypatch, capsys):
    pytest.importorskip("mujoco", reason="MuJoCo is not installed (requirements/training.txt)")
    meshes, textures = folders
    out = tmp_path / "set"
    run(monkeypatch, "--meshes", meshes, "--textures", textures, "--tables", 1, "--out", out)
    packed = PackedScenes(out, check=True)
    assert len(packed) > 10
    assert packed.meta["split"] == "train"
    assert max(len(scene.amodal) for scene in packed) > 1
    assert "objects an image" in capsys.readouterr().out

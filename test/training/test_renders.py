# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes, with MuJoCo where it is installed: what the masks say is what the pixels show."""

import os

import cv2
import numpy as np
import pytest

from training.data.meshes import Model, Part

os.environ.setdefault("MUJOCO_GL", "osmesa")  # MuJoCo reads it when it is imported, which importorskip does

CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
SIDES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
FACES = np.array([[side[0], side[k], side[k + 1]] for side in SIDES for k in (1, 2)])


def box(colour) -> Model:
    return Model((Part(CORNERS, np.zeros((8, 2)), None, FACES, colour, None, 0.0),))


@pytest.mark.parametrize("place", ["table", "bin", "shelf", "desk"])
def test_a_table_of_boxes(place):
    pytest.importorskip("mujoco", reason="MuJoCo is not installed (requirements/training.txt)")
    from training.data.renders import RenderSettings, render_table

    settings = RenderSettings(stock=3, scenes=4, objects=(2, 3), views=3, places=(place,))
    families = {"boxes": {"red": lambda: box((0.9, 0.05, 0.05))}}
    tables = [np.full((32, 32, 3), 120, np.uint8)]
    views, source, dropped = render_table(families, tables, settings, [0], 2)
    assert len(views) == len(source) > 3
    assert set(source) <= {8, 9, 10, 11}
    assert all(rule.startswith(("scene: ", "view: ")) for rule in dropped)
    for view in views:
        assert view.image.shape == (settings.image_size, settings.image_size, 3)
        assert view.amodal.shape[1:] == (64, 64)
        assert view.depth.shape == view.image.shape[:2] and view.depth.dtype == np.uint16
        depth = view.occluded_by.sum(axis=1)
        assert depth[0] == 0  # the first is in front
        shown = cv2.resize(view.image, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
        ratio = shown[..., 0] / (shown.sum(axis=2) + 1)
        inside, outside = ratio[view.amodal.any(axis=0)].mean(), ratio[~view.amodal.any(axis=0)].mean()
        assert inside > outside  # tinted, the boxes are redder than the table still
    again, *_ = render_table(families, tables, settings, [0], 2)
    assert all((one.image == other.image).all() for one, other in zip(views, again, strict=True))


def test_what_hides_from_the_camera_is_no_part_of_the_scene_nor_of_the_picture():
    """A green box under a red one: it is in the depths, and neither in the truth nor to be seen, even from aside."""
    pytest.importorskip("mujoco", reason="MuJoCo is not installed (requirements/training.txt)")
    from training.data.renders import RenderSettings, _view
    from training.data.scene import Rejected
    from training.data.stage import Stage

    red, green = box((0.9, 0.05, 0.05)).scaled(0.15), box((0.05, 0.9, 0.05)).scaled(0.08)
    with Stage([red, green], [(1, 1, 1)] * 2, np.full((32, 32, 3), 120, np.uint8), supersampling=1) as stage:
        rng = np.random.default_rng(0)
        poses = stage.data.qpos.reshape(2, 7)
        poses[:] = [[0, 0, 0.2, 1, 0, 0, 0], [0, 0, 0.06, 1, 0, 0, 0]]
        stage.mujoco.mj_forward(stage.model, stage.data)
        stage.aim((0, 1), (0.5, 0.6), rng)
        assert np.isfinite(stage.depths()).any(axis=(1, 2)).all()
        scene = _view(stage, RenderSettings(objects=(1, 2)), rng)
        assert len(scene.amodal) == 1
        assert np.isfinite(stage.depths()).any(axis=(1, 2)).all()  # of the next view it is a part again
        with pytest.raises(Rejected, match="fewer than 2 objects show"):
            _view(stage, RenderSettings(objects=(2, 2)), rng)
        stage.show([0])
        stage.aim((60, 61), (0.5, 0.6), rng)
        without = stage.photograph(rng, lamps=1, sky=1).astype(int)
        stage.show([0, 1])
        whole = stage.photograph(rng, lamps=1, sky=1).astype(int)
    assert (without[..., 1] - without[..., 0]).max() < 40 < (whole[..., 1] - whole[..., 0]).max()


def test_a_mesh_without_volume_is_counted():
    pytest.importorskip("mujoco", reason="MuJoCo is not installed (requirements/training.txt)")
    from training.data.renders import RenderSettings, render_table

    flat = Model((Part(CORNERS[:4], np.zeros((4, 2)), None, np.array([[0, 0, 0]]), (1, 1, 1), None, 0.0),))
    views, source, dropped = render_table(
        {"flat": {"dot": lambda: flat}}, [np.zeros((8, 8, 3), np.uint8)], RenderSettings(), [0], 0
    )
    assert (views, source, dropped) == ([], [], {"table: a mesh was refused": 1})

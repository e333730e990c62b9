# SPDX-License-Identifier: Apache-2.0
"""Renders sprites (cut-out views, RGBA) of textured meshes with MuJoCo, headless."""

import os
import tempfile
from pathlib import Path

import cv2
import numpy as np

from training.data.objects import TexturedMesh

os.environ.setdefault("MUJOCO_GL", "osmesa")

SUPERSAMPLING = 3


def _model_xml(mesh_file: str, scale: float, side: int) -> str:
    return f"""
<mujoco>
  <visual>
    <global offwidth="{side}" offheight="{side}"/>
    <headlight ambient=".35 .35 .35" diffuse=".35 .35 .35" specular="0 0 0"/>
    <quality offsamples="0"/>
  </visual>
  <asset>
    <mesh name="object" file="{mesh_file}.obj" scale="{scale} {scale} {scale}" inertia="shell"/>
    <texture name="object" type="2d" file="{mesh_file}.png"/>
    <material name="object" texture="object" specular=".2" shininess=".3"/>
  </asset>
  <worldbody>
    <light name="key" mode="fixed" pos="0 0 4" dir="0 0 -1" directional="true" castshadow="false" diffuse=".6 .6 .6"/>
    <camera name="view" pos="0 0 6" fovy="20"/>
    <body name="object" mocap="true"><geom type="mesh" mesh="object" material="object"/></body>
  </worldbody>
</mujoco>"""


def render_sprites(mesh: TexturedMesh, views: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Views of a mesh from random directions, under a random light.

    Args:
        mesh: the object; its size does not matter, each view fills about the whole sprite.
        views: number of views.
        side: side of a sprite, pixels.
        rng: draws orientations and lights.

    Returns:
        uint8 [views, side, side, 4] RGBA.
    """
    import mujoco  # here, so that a machine without a renderer can still read what was rendered

    large = side * SUPERSAMPLING
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    with tempfile.TemporaryDirectory() as folder:
        mesh.write_obj(Path(folder) / "object.obj")
        xml = _model_xml(str(Path(folder) / "object"), 1.2 / extent, large)
        model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    sprites = np.zeros((views, side, side, 4), np.uint8)
    with mujoco.Renderer(model, large, large) as renderer:
        for view in range(views):
            quaternion = rng.normal(size=4)
            data.mocap_quat[0] = quaternion / np.linalg.norm(quaternion)
            tilt = rng.normal(size=2) * 0.7
            model.light_dir[0] = np.array([*tilt, -1.0]) / np.linalg.norm([*tilt, 1.0])
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, "view")
            colour = renderer.render().copy()
            renderer.enable_segmentation_rendering()
            renderer.update_scene(data, "view")
            alpha = (renderer.render()[..., 0] >= 0).astype(np.float32)
            renderer.disable_segmentation_rendering()
            sprites[view] = _downsample(colour, alpha, side)
    return sprites


def _downsample(colour: np.ndarray, alpha: np.ndarray, side: int) -> np.ndarray:
    """Average over the object's pixels alone, so that no background bleeds into its edge."""
    small_alpha = cv2.resize(alpha, (side, side), interpolation=cv2.INTER_AREA)
    premultiplied = cv2.resize(colour.astype(np.float32) * alpha[..., None], (side, side), interpolation=cv2.INTER_AREA)
    straight = premultiplied / np.maximum(small_alpha, 1e-3)[..., None]
    return np.dstack([straight, 255 * small_alpha]).round().clip(0, 255).astype(np.uint8)

# SPDX-License-Identifier: Apache-2.0
"""Renders sprites (cut-out views, RGBA) of models with MuJoCo, headless."""

import os

import cv2
import numpy as np

from training.data.meshes import Model

os.environ.setdefault("MUJOCO_GL", "osmesa")

SUPERSAMPLING = 3


def _model_xml(model: Model, side: int) -> tuple[str, dict[str, bytes]]:
    """MuJoCo's XML of the object under a camera, and the files that it names."""
    assets: dict[str, bytes] = {}
    looks, geoms = [], []
    corners = np.concatenate([part.vertices for part in model.parts])
    scale = 1.2 / float(np.ptp(corners, axis=0).max())
    for p, part in enumerate(model.parts):
        assets[f"{p}.obj"] = part.to_obj()
        looks.append(f'<mesh name="{p}" file="{p}.obj" scale="{scale} {scale} {scale}" inertia="shell"/>')
        rgba = f'rgba="{" ".join(f"{c:.4f}" for c in part.colour)} 1"'
        if part.texture is not None:
            assets[f"{p}.png"] = cv2.imencode(".png", cv2.cvtColor(part.texture, cv2.COLOR_RGB2BGR))[1].tobytes()
            looks.append(f'<texture name="{p}" type="2d" file="{p}.png"/>')
            rgba = f'texture="{p}"'
        looks.append(f'<material name="{p}" {rgba} specular="{part.specular:.3f}" shininess=".3"/>')
        geoms.append(f'<geom type="mesh" mesh="{p}" material="{p}" contype="0" conaffinity="0"/>')
    xml = f"""
<mujoco>
  <visual>
    <global offwidth="{side}" offheight="{side}"/>
    <headlight ambient=".35 .35 .35" diffuse=".35 .35 .35" specular="0 0 0"/>
    <quality offsamples="0"/>
  </visual>
  <asset>{"".join(looks)}</asset>
  <worldbody>
    <light name="key" mode="fixed" pos="0 0 4" dir="0 0 -1" directional="true" castshadow="false" diffuse=".6 .6 .6"/>
    <camera name="view" pos="0 0 6" fovy="20"/>
    <body name="object" mocap="true">{"".join(geoms)}</body>
  </worldbody>
</mujoco>"""
    return xml, assets


def render_sprites(model: Model, views: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Views of an object from random directions, under a random light.

    Args:
        model: the object; its size does not matter, each view fills about the whole sprite.
        views: number of views.
        side: side of a sprite, pixels.
        rng: draws orientations and lights.

    Returns:
        uint8 [views, side, side, 4] RGBA.

    Raises:
        ValueError: MuJoCo takes no such mesh.
    """
    import mujoco  # here, so that a machine without a renderer can still read what was rendered

    large = side * SUPERSAMPLING
    scene = mujoco.MjModel.from_xml_string(*_model_xml(model, large))
    data = mujoco.MjData(scene)
    sprites = np.zeros((views, side, side, 4), np.uint8)
    with mujoco.Renderer(scene, large, large) as renderer:
        for view in range(views):
            quaternion = rng.normal(size=4)
            data.mocap_quat[0] = quaternion / np.linalg.norm(quaternion)
            tilt = rng.normal(size=2) * 0.7
            scene.light_dir[0] = np.array([*tilt, -1.0]) / np.linalg.norm([*tilt, 1.0])
            mujoco.mj_forward(scene, data)
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

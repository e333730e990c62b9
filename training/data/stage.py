# SPDX-License-Identifier: Apache-2.0
"""The stage of a pile in MuJoCo: objects fall on a table, a camera is aimed, depths and the picture are rendered, headless."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from training.data.meshes import Model
from training.data.scene import Rejected
from training.data.surfaces import TABLE

if TYPE_CHECKING:
    import mujoco

os.environ.setdefault("MUJOCO_GL", "osmesa")

WIDTH, HEIGHT = 640, 480
FOCAL = 620.0  # pixels, both axes
SUPERSAMPLING = 2
STEP = 0.002  # seconds of physics
LAMP = 0.9  # metres from the table's centre; its shadows reach a little farther than twice that
SHOWN, TABLE_GROUP, HIDDEN = 1, 2, 4  # groups of geoms: objects, table and walls, objects that are not rendered; 3 collides

Cells = tuple[int, int, int]
Colour = tuple[float, float, float]  # red, green and blue in [0, 1]


@dataclass(frozen=True)
class Wall:
    """A box that stands on the table: its centre and half its sides, metres, and its colour, or None for the table's texture."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    colour: Colour | None


def camera_matrix() -> np.ndarray:
    """K of the renderer's camera, float64 [3, 3], pixel centres at whole numbers."""
    return np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])


class Stage:
    """A MuJoCo model of a table, objects that wait beside it, a camera and a lamp.

    Args:
        models: the objects.
        cells: for each, how its box is cut into the convex pieces that collide, along x, y and z.
        table: uint8 [h, w, 3] RGB, the texture of the table, `TABLE` metres wide, or of the walls that bear it.
        walls: boxes that stand on the table, such as a bin's sides.
        size: of the picture, as a share of 640x480.
        supersampling: the picture is rendered so many times as large.
        plain: the table's own colour, where its texture is for walls alone.

    Attributes:
        tilt: the camera's angle from straight down, degrees, once it is aimed.
    """

    def __init__(
        self,
        models: list[Model],
        cells: list[Cells],
        table: np.ndarray,
        walls: Sequence[Wall] = (),
        size: float = 1.0,
        supersampling: int = SUPERSAMPLING,
        plain: Colour | None = None,
    ):
        import mujoco  # here, so that a machine without a renderer can still read what was rendered

        xml, assets = _describe(models, cells, table, walls, plain, shadows=round(2048 * size))
        self.mujoco: Any = mujoco
        self.count = len(models)
        self.present: list[int] = list(range(self.count))
        self.tilt = 0.0
        self.width, self.height, self.supersampling = round(WIDTH * size), round(HEIGHT * size), supersampling
        self.model: mujoco.MjModel = mujoco.MjModel.from_xml_string(xml, assets)
        self.data: mujoco.MjData = mujoco.MjData(self.model)
        self.points = [model.surface(400, np.random.default_rng(0)) for model in models]
        self.option = mujoco.MjvOption()
        self.option.geomgroup[:] = [group in (SHOWN, TABLE_GROUP) for group in range(len(self.option.geomgroup))]
        self._looks = np.flatnonzero(self.model.geom_group == SHOWN)  # geoms of objects
        self._renderers: dict[int, mujoco.Renderer] = {}

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        """Let the renderers go."""
        for renderer in self._renderers.values():
            renderer.close()

    def settle(self, spread: float, rng: np.random.Generator, present: Sequence[int] | None = None, ground: float = 0.0) -> None:
        """Drop objects one after another from just above the pile, and wait for rest.

        Args:
            spread: deviation of where they fall, metres.
            rng: draws where they fall and how they are turned.
            present: which objects, in the order in which they fall; the others wait beside the table. None is all.
            ground: the height of what they fall on, metres.

        Raises:
            Rejected: they still move, or one fell off.
        """
        self.present = list(range(self.count) if present is None else present)
        self.show(self.present)
        self.mujoco.mj_resetData(self.model, self.data)
        self.model.body_gravcomp[1:] = [k not in self.present for k in range(self.count)]  # the others float: no contacts
        poses, velocity = self.data.qpos.reshape(self.count, 7), self.data.qvel.reshape(self.count, 6)
        top = ground
        for n, k in enumerate(self.present):
            quaternion = rng.normal(size=4)
            poses[k, :2] = rng.normal(size=2) * spread
            poses[k, 3:] = quaternion / np.linalg.norm(quaternion)
            velocity[k] = 0
            self.mujoco.mj_forward(self.model, self.data)
            poses[k, 2] += top + 0.015 - self._world(k)[:, 2].min()
            self._run(0.7)
            top = max(self._world(other)[:, 2].max() for other in self.present[: n + 1])
        self._run(1.5)
        if np.abs(velocity[:, :3]).max() > 0.01 or np.abs(velocity[:, 3:]).max() > 0.2:
            raise Rejected("not at rest")
        if min(self._world(k)[:, 2].max() for k in self.present) < ground:
            raise Rejected("fell off")

    def aim(
        self,
        tilts: tuple[float, float],
        fill: tuple[float, float],
        rng: np.random.Generator,
        distances: tuple[float, float] = (0.35, 1.1),
        turns: tuple[float, float] = (0.0, 360.0),
    ) -> None:
        """Put the camera where the whole pile fills the wanted share of the picture.

        Args:
            tilts: range of its angle from straight down, degrees.
            fill: range of the share of the picture's width or height that the pile takes.
            rng: draws both, and the direction it looks from.
            distances: nearest and farthest that it may be, metres.
            turns: range of the direction that it looks from, degrees from x to y.

        Raises:
            Rejected: that would be nearer or farther.
        """
        self.tilt = float(rng.uniform(*tilts))
        tilt, turn = np.radians(self.tilt), rng.uniform(*np.radians(turns))
        back = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)])
        right = np.array([-np.sin(turn), np.cos(turn), 0.0])
        axes = np.stack([right, np.cross(back, right), back])
        seen = np.concatenate([self._world(k) for k in self.present]) @ axes.T
        centre = (seen.min(axis=0) + seen.max(axis=0)) / 2
        seen -= centre
        half = np.array([WIDTH, HEIGHT]) / 2 * rng.uniform(*fill) / FOCAL
        distance = float((np.abs(seen[:, :2]) / half + seen[:, 2:]).max())
        if not distances[0] < distance < distances[1]:
            raise Rejected("size in the picture")
        shift = rng.uniform(-0.02, 0.02, 2) * distance
        self.model.cam_pos[0] = (centre + [*shift, distance]) @ axes
        quaternion = np.zeros(4)
        self.mujoco.mju_mat2Quat(quaternion, axes.T.flatten())
        self.model.cam_quat[0] = quaternion
        self.mujoco.mj_forward(self.model, self.data)

    def depths(self) -> np.ndarray:
        """Depth of each present object rendered alone: float32 [N, height, width], metres, infinite where it is not."""
        depths = np.full((len(self.present), self.height, self.width), np.inf, np.float32)
        self.option.geomgroup[TABLE_GROUP] = 0
        renderer = self._renderer(1)
        renderer.enable_depth_rendering()
        for n, k in enumerate(self.present):
            self.show([k])
            renderer.update_scene(self.data, "view", self.option)
            depth = renderer.render()
            depths[n][depth < 5] = depth[depth < 5]  # where nothing is rendered, it is the farthest that can be seen
        renderer.disable_depth_rendering()
        self.option.geomgroup[TABLE_GROUP] = 1
        self.show(self.present)
        return depths

    def surroundings(self) -> np.ndarray:
        """Depth of the table and what stands on it, without objects: float32 [height, width], metres."""
        self.option.geomgroup[SHOWN] = 0
        renderer = self._renderer(1)
        renderer.enable_depth_rendering()
        renderer.update_scene(self.data, "view", self.option)
        depth = renderer.render().copy()
        renderer.disable_depth_rendering()
        self.option.geomgroup[SHOWN] = 1
        return depth

    def photograph(self, rng: np.random.Generator, lamps: int = 10, sky: int = 22) -> np.ndarray:
        """uint8 [height, width, 3]: the mean over many lights, so that shadows are soft, and a cheap camera's flaws.

        Args:
            rng: draws lights and flaws.
            lamps: lights that stand for the lamp.
            sky: lights that stand for the room.
        """
        azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.1)
        key = np.array([np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)])
        total = np.zeros((self.height, self.width, 3), np.float32)
        warmth = rng.uniform(-0.05, 0.07)
        renderer = self._renderer(self.supersampling)
        lamp, room = np.array([[warmth, 0, -warmth], [-warmth / 2, 0, warmth / 2]], np.float32) + 1
        for direction in key + rng.normal(size=(lamps, 3)) * 0.11:  # a lamp as large as a window
            total += self._lit(renderer, direction) * (0.78 / lamps) * lamp
        for direction in _hemisphere(sky):
            total += self._lit(renderer, direction) * (0.72 / sky) * room
        total = 1 - np.exp(-1.9 * total * rng.uniform(0.92, 1.08))  # film's shoulder: highlights do not clip
        total = cv2.GaussianBlur(total, (0, 0), rng.uniform(0.35, 0.6))
        rows, columns = np.mgrid[-1 : 1 : self.height * 1j, -1 : 1 : self.width * 1j].astype(np.float32)
        total *= (1 - 0.05 * (rows**2 + columns**2))[..., None]
        total += rng.normal(size=total.shape).astype(np.float32) * 0.008
        return (255 * total).clip(0, 255).round().astype(np.uint8)

    def _lit(self, renderer: "mujoco.Renderer", direction: np.ndarray) -> np.ndarray:
        """float32 [height, width, 3] in [0, 1] under one light from `direction`."""
        unit = direction / np.linalg.norm(direction)
        self.model.light_dir[0], self.model.light_pos[0] = -unit, LAMP * unit
        self.mujoco.mj_forward(self.model, self.data)
        renderer.update_scene(self.data, "view", self.option)
        return cv2.resize(renderer.render().astype(np.float32) / 255, (self.width, self.height), interpolation=cv2.INTER_AREA)

    def _renderer(self, times: int) -> "mujoco.Renderer":
        """One for pictures `times` as large; it is kept, as making one uploads all meshes and textures."""
        if times not in self._renderers:
            self._renderers[times] = self.mujoco.Renderer(self.model, self.height * times, self.width * times)
        return self._renderers[times]

    def show(self, objects: Sequence[int]) -> None:
        """Render these objects alone, until some settle or `depths` is asked for.

        What lies elsewhere would cost time in every picture and every shadow.
        """
        shown = np.isin(self.model.geom_bodyid[self._looks] - 1, objects)
        self.model.geom_group[self._looks] = np.where(shown, SHOWN, HIDDEN)

    def _world(self, k: int) -> np.ndarray:
        """Points on the surface of object k where it is now: float64 [P, 3], metres."""
        return self.points[k] @ self.data.xmat[k + 1].reshape(3, 3).T + self.data.xpos[k + 1]

    def _run(self, seconds: float) -> None:
        self.mujoco.mj_step(self.model, self.data, round(seconds / STEP))


def _hemisphere(count: int) -> np.ndarray:
    """Directions [count, 3] spread over the upper half, denser overhead."""
    index = np.arange(count) + 0.5
    z = np.sqrt(1 - 0.93 * index / count)
    angle = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _describe(
    models: list[Model], cells: list[Cells], table: np.ndarray, walls: Sequence[Wall], plain: Colour | None, shadows: int
) -> tuple[str, dict[str, bytes]]:
    """MuJoCo's XML of the stage, its shadow map `shadows` pixels wide, and the files that it names."""
    assets = {"table.png": _png(table)}
    meshes, bodies = [], []
    for k, (model, cut) in enumerate(zip(models, cells, strict=True)):
        geoms, solid = [], model.solid()
        for p, part in enumerate(model.parts):
            label = f"o{k}p{p}"
            sides = {label: part} if solid else {label: part, f"{label}i": part.inside_out()}  # open shells are seen from within
            assets |= {f"{name}.obj": side.to_obj() for name, side in sides.items()}
            shine = f'specular="{0.35 * part.specular:.3f}" shininess="0.35"'
            if part.texture is None:
                look = f'<material name="{label}" rgba="{" ".join(f"{c:.4f}" for c in part.colour)} 1" {shine}/>'
            else:
                assets[f"{label}.png"] = _png(part.texture)
                look = f'<texture name="{label}" type="2d" file="{label}.png"/>'
                look += f'<material name="{label}" texture="{label}" {shine}/>'
            meshes.append(look)
            for side in sides:
                meshes.append(f'<mesh name="{side}" file="{side}.obj" inertia="shell"/>')
                geoms.append(f'<geom class="seen" mesh="{side}" material="{label}"/>')
        for c, piece in enumerate(_pieces(model, cut)):
            corners = " ".join(f"{value:.5f}" for value in piece.ravel())
            meshes.append(f'<mesh name="o{k}c{c}" vertex="{corners}"/>')
            geoms.append(f'<geom class="solid" mesh="o{k}c{c}"/>')
        joint = '<joint type="free" damping="0.0008"/>'
        bodies.append(f'<body name="{k}" gravcomp="1" pos="{20 + k} 0 0.3">{joint}{"".join(geoms)}</body>')
    boxes = []
    for wall in walls:
        place, half = (" ".join(f"{value:.4f}" for value in values) for values in (wall.centre, wall.half))
        boxes.append(f'<geom type="box" group="2" pos="{place}" size="{half}" {_look(wall.colour)} friction="0.8 0.01 0.002"/>')
    fovy = 2 * np.degrees(np.arctan(HEIGHT / 2 / FOCAL))
    xml = f"""
<mujoco>
  <option timestep="{STEP}" cone="elliptic" impratio="4"/>
  <statistic extent="0.7" center="0 0 0.1"/>
  <visual>
    <global offwidth="{WIDTH * SUPERSAMPLING}" offheight="{HEIGHT * SUPERSAMPLING}"/>
    <headlight ambient="0.06 0.06 0.06" diffuse="0 0 0" specular="0 0 0"/>
    <map znear="0.05" zfar="200" shadowclip="{2.2 * LAMP / 0.7}"/>
    <quality shadowsize="{shadows}" offsamples="0"/>
  </visual>
  <default>
    <default class="seen"><geom type="mesh" group="1" contype="0" conaffinity="0" mass="0"/></default>
    <default class="solid"><geom type="mesh" group="3" density="250" friction="0.9 0.01 0.003" condim="6"/></default>
  </default>
  <asset>
    <texture name="table" type="2d" file="table.png"/>
    <material name="table" texture="table" specular="0.05"/>
    {"".join(meshes)}
  </asset>
  <worldbody>
    <light name="lamp" mode="fixed" type="directional" diffuse="0.95 0.95 0.95" specular="0.5 0.5 0.5" castshadow="true"/>
    <camera name="view" fovy="{fovy}"/>
    <geom type="plane" group="2" size="{TABLE / 2} {TABLE / 2} 0.1" {_look(plain)} friction="0.8 0.01 0.002" condim="6"/>
    {"".join(boxes)}{"".join(bodies)}
  </worldbody>
</mujoco>"""
    return xml, assets


def _look(colour: Colour | None) -> str:
    return 'material="table"' if colour is None else f'rgba="{" ".join(f"{value:.4f}" for value in colour)} 1"'


def _pieces(model: Model, cells: Cells) -> list[np.ndarray]:
    """Points [P, 3] of the convex pieces that stand for the model where it collides."""
    rng = np.random.default_rng(0)
    points = model.surface(6000, rng)
    low, high = points.min(axis=0), points.max(axis=0)
    index = np.minimum(((points - low) / (high - low) * cells).astype(int), np.array(cells) - 1)
    flat = np.ravel_multi_index(tuple(index.T), cells)
    pieces = []
    for cell in np.unique(flat):
        piece = points[flat == cell]
        if len(piece) >= 40:
            chosen = piece[rng.permutation(len(piece))[:300]]
            extremes = np.concatenate([piece.argmin(axis=0), piece.argmax(axis=0)])
            pieces.append(np.concatenate([chosen, piece[extremes]]) + rng.normal(size=(len(chosen) + 6, 3)) * 2e-4)
    return pieces


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()

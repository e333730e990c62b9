# SPDX-License-Identifier: Apache-2.0
"""Reads models of several materials (Wavefront OBJ and MTL) from a folder or a zip archive such as Sweet Home 3D's ``.sh3f``."""

import posixpath
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

ReadBytes = Callable[[str], bytes]


@dataclass(frozen=True)
class Part:
    """The triangles of a model that share a material.

    Attributes:
        vertices: float64 [V, 3], metres once the model is `placed`.
        uv: float64 [V, 2], texture coordinates, v upwards; zero where the file has none.
        normals: float64 [V, 3], or None where the file has none.
        faces: int64 [F, 3], indices of vertices.
        colour: red, green and blue in [0, 1].
        texture: uint8 [h, w, 3] RGB, or None.
        specular: strength of the highlight, in [0, 1].
    """

    vertices: np.ndarray
    uv: np.ndarray
    normals: np.ndarray | None
    faces: np.ndarray
    colour: tuple[float, float, float]
    texture: np.ndarray | None
    specular: float

    def inside_out(self) -> "Part":
        """The part with its sides exchanged, for renderers that show one side only."""
        return replace(self, faces=self.faces[:, ::-1], normals=None if self.normals is None else -self.normals)

    def rounded(self) -> "Part":
        """The part with normals averaged over all faces that meet at a point, so that facets do not show."""
        _, point = np.unique(self.vertices.round(6), axis=0, return_inverse=True)
        corner = self.vertices[self.faces]
        normals = np.zeros((point.max() + 1, 3))
        across = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        np.add.at(normals, point.reshape(-1)[self.faces], across[:, None])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        return replace(self, normals=normals[point.reshape(-1)])

    def to_obj(self) -> bytes:
        """The part as a Wavefront OBJ without materials."""
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in self.vertices]
        lines += [f"vt {u:.6f} {v:.6f}" for u, v in self.uv]
        if self.normals is None:
            lines += ["f " + " ".join(f"{i}/{i}" for i in face) for face in self.faces + 1]
        else:
            lines += [f"vn {x:.5f} {y:.5f} {z:.5f}" for x, y, z in self.normals]
            lines += ["f " + " ".join(f"{i}/{i}/{i}" for i in face) for face in self.faces + 1]
        return ("\n".join(lines) + "\n").encode()


@dataclass(frozen=True)
class Model:
    """An object made of parts."""

    parts: tuple[Part, ...]

    def placed(self, longest: float, upright: bool, half: bool) -> "Model":
        """The model centred at the origin, z upwards, its longest side `longest` metres.

        Args:
            longest: longest side of its axis-aligned box, metres.
            upright: whether z is up in the file already; else y is.
            half: keep what lies at x > 0 only, one of a pair that lies side by side.
        """
        parts = self.parts
        if half:
            middle = _box(parts).mean(axis=0)[0]
            parts = tuple(kept for part in parts if (kept := _cut(part, middle)) is not None)
        turn = np.eye(3) if upright else np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        low, high = _box(parts)
        scale = longest / (high - low).max()
        return Model(
            tuple(
                replace(
                    part,
                    vertices=(part.vertices - (low + high) / 2) * scale @ turn.T,
                    normals=None if part.normals is None else part.normals @ turn.T,
                )
                for part in parts
            )
        )

    def scaled(self, factor: float) -> "Model":
        """The model `factor` times as large."""
        return Model(tuple(replace(part, vertices=part.vertices * factor) for part in self.parts))

    def two_sided(self) -> "Model":
        """The model with each part turned inside out beside it, so that open shells are seen from within, too."""
        return Model(self.parts + tuple(part.inside_out() for part in self.parts))

    def solid(self) -> bool:
        """Whether no face is seen from behind: nearly all edges (999 of 1,000) run both ways, and each shell looks outwards."""
        corners = np.concatenate([part.vertices[part.faces] for part in self.parts])
        points = np.unique(corners.reshape(-1, 3).round(6), axis=0, return_inverse=True)[1].reshape(-1, 3)
        start, end = points.ravel(), np.roll(points, -1, axis=1).ravel()
        both_ways = np.isin(start * len(start) + end, end * len(start) + start).mean()
        volumes = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum(axis=1)
        return bool(both_ways > 0.999 and (np.bincount(_shells(points), volumes) >= 0).all())

    def surface(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Points on the surface, uniform by area: float64 [count, 3]."""
        corners = np.concatenate([part.vertices[part.faces] for part in self.parts])
        areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        chosen = corners[rng.choice(len(corners), count, p=areas / areas.sum())]
        weights = rng.dirichlet(np.ones(3), count)
        return (chosen * weights[..., None]).sum(axis=1)


def _shells(faces: np.ndarray) -> np.ndarray:
    """Faces int [F, 3], as indices of points, that hang together have the same number: int [F]."""
    label = np.arange(faces.max() + 1)
    while True:
        lowest, of_face = label.copy(), label[faces].min(axis=1)
        for corner in faces.T:
            np.minimum.at(lowest, corner, of_face)
        lowest = lowest[lowest]
        if (lowest == label).all():
            return label[faces[:, 0]]
        label = lowest


def archive_reader(path: Path) -> ReadBytes:
    """Reads members of a zip archive by name; a FileNotFoundError names the archive and the member that it lacks."""
    archive = zipfile.ZipFile(path)

    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except KeyError:
            raise FileNotFoundError(f"{path} holds no {name}: check that it is the archive that the catalogue names") from None

    return read


def folder_reader(path: Path) -> ReadBytes:
    """Reads files under a folder by relative name."""
    return lambda name: (path / posixpath.normpath(name)).read_bytes()


def read_model(read: ReadBytes, name: str) -> Model:
    """Read the OBJ called `name` with its materials and textures.

    Args:
        read: gives the bytes of a file, from `archive_reader` or `folder_reader`.
        name: the OBJ's name; what it refers to is looked up beside it.

    Raises:
        FileNotFoundError: a material or texture file is missing.
        ValueError: there is no face in it.
    """
    folder = posixpath.dirname(name)
    columns: dict[str, list[list[float]]] = {"v": [], "vt": [], "vn": []}
    corners: dict[str, list[list[tuple[int, int, int]]]] = {}
    materials: dict[str, _Material] = {}
    material = ""
    for words in _statements(read(name)):
        keyword, values = words[0], words[1:]
        if keyword in columns:
            columns[keyword].append([float(value) for value in values[: 2 if keyword == "vt" else 3]])
        elif keyword == "f":
            counts = [len(columns[key]) for key in ("v", "vt", "vn")]
            polygon = [_corner(value, counts) for value in values]
            fan = [[polygon[0], polygon[k], polygon[k + 1]] for k in range(1, len(polygon) - 1)]
            corners.setdefault(material, []).extend(fan)
        elif keyword == "usemtl":
            material = " ".join(values)
        elif keyword == "mtllib":
            materials |= _read_materials(read, posixpath.join(folder, " ".join(values).replace("\\", "/")))
    arrays = {key: np.array(rows, np.float64).reshape(len(rows), 2 if key == "vt" else 3) for key, rows in columns.items()}
    parts = tuple(_part(arrays, np.array(triangles), materials.get(key, _Material())) for key, triangles in corners.items())
    if not any(len(part.faces) for part in parts):
        raise ValueError(f"{name} holds no face that has an area")
    return Model(parts)


def read_own_meshes(folder: Path) -> dict[str, Model]:
    """One's own meshes: every ``.obj`` under a folder, by its path there, its longest side 1 m.

    Raises:
        FileNotFoundError: there is none, or a material or texture file is missing.
        ValueError: one cannot be read, or holds no face.
    """
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".obj"):
        try:
            model = read_model(folder_reader(path.parent), path.name).placed(1.0, upright=True, half=False)
        except (IndexError, ValueError) as error:
            raise ValueError(f"{path} is no mesh that can be used ({error}): export it as Wavefront OBJ") from error
        found[str(path.relative_to(folder).with_suffix(""))] = model
    if not found:
        raise FileNotFoundError(f"no meshes under {folder}: it needs Wavefront OBJ files, *.obj")
    return found


@dataclass(frozen=True)
class _Material:
    colour: tuple[float, float, float] = (0.8, 0.8, 0.8)
    texture: np.ndarray | None = None
    specular: float = 0.0


def _statements(text: bytes) -> list[list[str]]:
    """The words of each line that is neither empty nor a comment."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:  # of older exporters
        decoded = text.decode("latin-1")
    lines = (line.split() for line in decoded.splitlines())
    return [words for words in lines if words and not words[0].startswith("#")]


def _corner(text: str, counts: list[int]) -> tuple[int, int, int]:
    """Indices from 0 of position, texture coordinate and normal; -1 for none."""
    fields = [int(field) if field else 0 for field in text.split("/")] + [0, 0]
    resolved = [count + field if field < 0 else field - 1 for field, count in zip(fields[:3], counts, strict=True)]
    return resolved[0], resolved[1], resolved[2]


def _part(arrays: dict[str, np.ndarray], triangles: np.ndarray, material: _Material) -> Part:
    """A part from int [F, 3, 3] corners; a vertex for each distinct (position, texture coordinate, normal)."""
    rows, faces = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    faces = faces.reshape(-1, 3)
    corner = arrays["v"][rows[:, 0]][faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    uv = np.zeros((len(rows), 2))
    known = rows[:, 1] >= 0
    uv[known] = arrays["vt"][rows[known, 1]]
    normals = arrays["vn"][rows[:, 2]] if (rows[:, 2] >= 0).all() else None
    return Part(arrays["v"][rows[:, 0]], uv, normals, faces[area > 0], material.colour, material.texture, material.specular)


def _read_materials(read: ReadBytes, name: str) -> dict[str, _Material]:
    current = ""
    materials = {current: _Material()}  # of what stands before the first name
    for words in _statements(read(name)):
        keyword, values = words[0], words[1:]
        if keyword == "newmtl":
            current = " ".join(values)
            materials[current] = _Material()
        elif keyword == "Kd":
            materials[current] = replace(materials[current], colour=(float(values[0]), float(values[1]), float(values[2])))
        elif keyword == "Ks":
            materials[current] = replace(materials[current], specular=min(max(map(float, values)), 1.0))
        elif keyword == "map_Kd":
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), _file_named(values)))
            texture = cv2.imdecode(np.frombuffer(read(path), np.uint8), cv2.IMREAD_COLOR)
            if texture is None:
                raise FileNotFoundError(f"{path}, a texture of {name}, is not an image that OpenCV can read")
            materials[current] = replace(materials[current], texture=cv2.cvtColor(texture, cv2.COLOR_BGR2RGB))
    return materials


def _file_named(values: list[str]) -> str:
    """What a statement names: all of its words, or the last, where options, which begin with a dash, stand before it.

    Exporters on Windows write backslashes between folders.
    """
    return (values[-1] if values[0].startswith("-") else " ".join(values)).replace("\\", "/")


def _box(parts: tuple[Part, ...]) -> np.ndarray:
    """[2, 3], the lowest and highest corner of what the faces use."""
    points = np.concatenate([part.vertices[np.unique(part.faces)] for part in parts])
    return np.array([points.min(axis=0), points.max(axis=0)])


def _cut(part: Part, middle: float) -> Part | None:
    """The triangles whose centre lies at x > `middle`; None where there is none."""
    kept = part.vertices[part.faces].mean(axis=1)[:, 0] > middle
    if not kept.any():
        return None
    used, faces = np.unique(part.faces[kept], return_inverse=True)
    normals = None if part.normals is None else part.normals[used]
    return replace(part, vertices=part.vertices[used], uv=part.uv[used], normals=normals, faces=faces.reshape(-1, 3))

# SPDX-License-Identifier: Apache-2.0
"""Scanned household objects: reads the textured triangle meshes that sprites are rendered from."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from seqamodal_ros.scene.image_files import decode_image

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class TexturedMesh:
    """A triangle mesh with one texture.

    Attributes:
        name: the object's name.
        vertices: float32 [V, 3], metres.
        faces: int64 [F, 3], indices of vertices.
        uv: float32 [V, 2], texture coordinates in [0, 1], v upwards.
        texture: uint8 [h, w, 3] RGB.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    texture: np.ndarray

    def write_obj(self, path: Path) -> None:
        """Write `path` as a Wavefront OBJ and the texture beside it as PNG."""
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in self.vertices]
        lines += [f"vt {u:.6f} {v:.6f}" for u, v in self.uv]
        lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in face) for face in self.faces]
        path.write_text("\n".join(lines) + "\n")
        cv2.imwrite(str(path.with_suffix(".png")), cv2.cvtColor(self.texture, cv2.COLOR_RGB2BGR))


def read_mesh(path: Path) -> TexturedMesh:
    """Read one ``.npz`` of the scanned objects (`vertices`, `faces`, `uv`, `texture_webp`)."""
    with np.load(path) as data:
        return TexturedMesh(
            name=path.stem,
            vertices=data["vertices"].astype(np.float32),
            faces=data["faces"].astype(np.int64),
            uv=data["uv"].astype(np.float32),
            texture=decode_image(data["texture_webp"].tobytes()),
        )


def read_split(folder: Path) -> dict[str, str]:
    """The split ("train", "val" or "test") of each object, from ``objects.json`` in `folder`."""
    return json.loads((folder / "objects.json").read_text())["split"]


def read_classes(folder: Path) -> dict[str, str]:
    """The class of each object; an object of no class is a class of its own."""
    classes = json.loads((folder / "objects.json").read_text())["classes"]
    of_object = {name: label for label, names in classes.items() for name in names}
    return {name: of_object.get(name, name) for name in read_split(folder)}

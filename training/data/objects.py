# SPDX-License-Identifier: Apache-2.0
"""Scanned household objects: reads the textured triangle meshes that sprites are rendered from."""

import json
from pathlib import Path

import numpy as np

from seqamodal_ros.scene.image_files import decode_image
from training.data.meshes import Model, Part


def read_mesh(path: Path) -> Model:
    """Read one ``.npz`` of the scanned objects: `vertices` [V, 3] m, `faces` [F, 3], `uv` [V, 2], `texture_webp` (a file)."""
    with np.load(path) as data:
        part = Part(
            vertices=data["vertices"].astype(np.float32),
            uv=data["uv"].astype(np.float32),
            normals=None,
            faces=data["faces"].astype(np.int64),
            colour=(1.0, 1.0, 1.0),
            texture=decode_image(data["texture_webp"].tobytes()),
            specular=0.2,
        )
    return Model((part,))


def read_scan(path: Path) -> Model:
    """The same object centred, its longest side 1 m."""
    return read_mesh(path).placed(1.0, upright=True, half=False)


def read_split(folder: Path) -> dict[str, str]:
    """The split ("train", "val" or "test") of each object, from ``objects.json`` in `folder`."""
    return json.loads((folder / "objects.json").read_text())["split"]


def read_classes(folder: Path) -> dict[str, str]:
    """The class of each object; an object of no class is a class of its own."""
    classes = json.loads((folder / "objects.json").read_text())["classes"]
    of_object = {name: label for label, names in classes.items() for name in names}
    return {name: of_object.get(name, name) for name in read_split(folder)}

# SPDX-License-Identifier: Apache-2.0
"""The raw material of composites: cut-out sprites by class and background textures, one split at a time."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from training.data.objects import read_classes, read_mesh, read_split

FAMILIES = ("fruits", "objects")


@dataclass(frozen=True)
class Material:
    """What composites of one split are made of.

    Attributes:
        sprites: family ("fruits" or "objects") -> class -> list of uint8 [h, w, 4], cropped to the object, RGB
            premultiplied by alpha so that warping leaves no fringe.
        textures: list of uint8 [h, w, 3] RGB.
    """

    sprites: dict[str, dict[str, list[np.ndarray]]]
    textures: list[np.ndarray]


def load_material(data: Path, rendered: Path, split: str) -> Material:
    """Load fruits, rendered objects and textures of one split.

    Args:
        data: the folder with ``fruits``, ``objects`` and ``textures``.
        rendered: the folder of ``python -m training.prepare``, one ``<object>.npz`` each.
        split: "train", "val", "test", or "unseen" (fruit classes kept out of training, on test textures).

    Raises:
        FileNotFoundError: a folder is missing or empty; the message says what makes it.
    """
    fruits = _read_fruits(data / "fruits" / split)
    objects = {} if split == "unseen" else _read_objects(data / "objects", rendered, split)
    texture_split = "test" if split == "unseen" else split
    textures = [_read_image(path, cv2.IMREAD_COLOR) for path in sorted((data / "textures" / texture_split).rglob("*.webp"))]
    if not textures:
        raise FileNotFoundError(f"no textures under {data / 'textures' / texture_split}: check --data")
    families = {"fruits": fruits, "objects": objects}
    return Material({name: classes for name, classes in families.items() if classes}, textures)


def crop(sprite: np.ndarray) -> np.ndarray:
    """Cut a straight RGBA sprite to its opaque pixels and premultiply it."""
    rows, columns = np.nonzero(sprite[..., 3] > 127)
    cut = sprite[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    colour = cut[..., :3].astype(np.uint16) * cut[..., 3:] // 255
    return np.dstack([colour.astype(np.uint8), cut[..., 3]])


def _read_fruits(folder: Path) -> dict[str, list[np.ndarray]]:
    classes = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        classes[path.name] = [crop(_read_image(file, cv2.IMREAD_UNCHANGED)) for file in sorted(path.glob("*.webp"))]
    if not classes:
        raise FileNotFoundError(f"no fruit classes under {folder}: check --data")
    return classes


def _read_objects(folder: Path, rendered: Path, split: str) -> dict[str, list[np.ndarray]]:
    labels = read_classes(folder)
    classes: dict[str, list[np.ndarray]] = {}
    for name in sorted(name for name, its_split in read_split(folder).items() if its_split == split):
        path = rendered / f"{name}.npz"
        if not path.is_file():
            command = f"python -m training.prepare --data {folder.parent} --out {rendered}"
            raise FileNotFoundError(f"{path} is missing: run `{command}`")
        with np.load(path) as views:
            classes.setdefault(labels[name], []).extend(crop(sprite) for sprite in views["sprites"])
    return classes


def _read_image(path: Path, flags: int) -> np.ndarray:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise FileNotFoundError(f"{path} is not an image that OpenCV can read")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def render_objects(folder: Path, out: Path, views: int, side: int, seed: int) -> list[Path]:
    """Render every scanned object that is not rendered yet; returns the files written."""
    from tqdm import tqdm

    from training.data.render import render_sprites

    out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in sorted(read_split(folder)) if not (out / f"{name}.npz").is_file()]
    written = []
    for index, name in enumerate(tqdm(missing, desc="objects", disable=None)):
        sprites = render_sprites(read_mesh(folder / f"{name}.npz"), views, side, np.random.default_rng([seed, index]))
        part = out / f".{name}.part.npz"
        np.savez_compressed(part, sprites=sprites)
        written.append(part.rename(out / f"{name}.npz"))
    return written

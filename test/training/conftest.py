# SPDX-License-Identifier: Apache-2.0
"""A small training set on disk: discs of three colours as sprites, grey textures; a batch of one scene; and a small network."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from seqamodal_ros.diffusion.fast import FastSettings
from training.data.batches import Batch
from training.data.sprites import Material, load_material

SMALL = FastSettings(64, 16, (8, 8, 16, 16), (8, 16, 16), centre_channels=(8, 8, 16))
COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
TONES = {"train": 0, "val": 20, "test": 40, "unseen": 60}  # fruits of a split are darker by so much, its textures brighter


def split_of_texture(image: np.ndarray) -> str:
    """Which of `data` a texture is of."""
    return list(TONES)[(int(image.min()) - 90) // 20]


def splits_of(material: Material) -> tuple[set[str], set[str]]:
    """Of which splits of `data` the fruits of a material are, and its textures."""
    fruits = [sprite for of in material.sprites.get("fruits", {}).values() for sprite in of]
    tones = {220 - tone: split for split, tone in TONES.items()}
    return {tones[int(sprite[..., :3].max())] for sprite in fruits}, set(map(split_of_texture, material.textures))


def disc(colour: tuple[int, int, int], side: int = 48) -> np.ndarray:
    """uint8 [side, side, 4], straight RGBA: a disc with two pixels of nothing around it."""
    sprite = np.zeros((side, side, 4), np.uint8)
    sprite[..., :3] = colour
    centres = np.arange(side) - (side - 1) / 2
    sprite[..., 3] = 255 * (centres[:, None] ** 2 + centres[None, :] ** 2 < (side / 2 - 2) ** 2)
    return sprite


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with fruits/, objects/ and textures/, as `load_material` reads it, and rendered/ beside them."""
    root = tmp_path_factory.mktemp("data")
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101]
    for split, tone in TONES.items():
        for name, colour in COLOURS.items():
            path = root / "fruits" / split / name / "0.webp"
            path.parent.mkdir(parents=True)
            darker = tuple(max(0, channel - tone) for channel in colour)
            cv2.imwrite(str(path), cv2.cvtColor(disc(darker), cv2.COLOR_RGBA2BGRA), lossless)
        (root / "textures" / split).mkdir(parents=True)
        grey = np.random.default_rng(0).integers(90, 110, (40, 60, 1), dtype=np.uint8).repeat(3, 2)
        cv2.imwrite(str(root / "textures" / split / "grey.webp"), grey + np.uint8(tone), lossless)
    (root / "objects").mkdir()
    split = {"cup": "train", "mug": "train", "fork": "test"}
    (root / "objects" / "objects.json").write_text(json.dumps({"split": split, "classes": {"vessel": ["cup", "mug"]}}))
    (root / "rendered").mkdir()
    for name, colour in zip(split, COLOURS.values(), strict=True):
        np.savez(root / "rendered" / f"{name}.npz", sprites=np.stack([disc(colour)] * 2))
    return root


@pytest.fixture(scope="session")
def material(data):
    return load_material(data, data / "rendered", "train")


def pair() -> Batch:
    """One image: two boxes that touch in the first layer, one in the second below both."""
    amodal = torch.zeros(1, 4, 16, 16, dtype=torch.bool)  # the fourth is padding
    amodal[0, 0, 2:8, 1:5] = amodal[0, 1, 2:8, 5:11] = amodal[0, 2, 6:14, 3:9] = True
    occluded_by = torch.zeros(1, 4, 4, dtype=torch.bool)
    occluded_by[0, 2, :2] = True
    return Batch(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8), amodal, occluded_by, torch.tensor([[1, 1, 2, 0]]))

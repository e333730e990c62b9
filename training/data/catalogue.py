# SPDX-License-Identifier: Apache-2.0
"""The objects that piles are made of: where each comes from, how large it is made and who is to be named for it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path

import cv2
import numpy as np

from training.data.meshes import Model, ReadBytes, archive_reader, folder_reader, read_model
from training.data.surfaces import carton

FURNITURE = "blendswap-cc-0"  # folder within the archive


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Attributes:
        file: name of the model in its source.
        longest: longest side it is scaled to, metres.
        robosuite: it is one of robosuite's; else of the CC0 archive of Sweet Home 3D's furniture.
        half: keep one of a pair.
        cells: how its box is cut into the convex pieces that collide, along x, y and z.
        hues: degrees by which its colours may be turned, so that two of a kind can differ.
        colour: replaces its colours; red, green and blue in [0, 1].
        smooth: round its facets off.
        title: replaces its texture by a printed carton of ours that carries this.
    """

    file: str
    longest: float
    robosuite: bool = False
    half: bool = False
    cells: tuple[int, int, int] = (1, 1, 1)
    hues: tuple[int, ...] = (0,)
    colour: tuple[float, float, float] | None = None
    smooth: bool = False
    title: str | None = None


# The cereal box of robosuite carries a real brand's artwork, which the MIT licence cannot grant: it is printed anew.
KINDS: dict[str, Kind] = {
    "bottle": Kind("bottle", 0.19, robosuite=True, colour=(0.16, 0.42, 0.24), hues=(0, 80, 220), cells=(1, 1, 3)),
    "bread loaf": Kind("bread", 0.13, robosuite=True),
    "can": Kind("can", 0.12, robosuite=True, hues=(0, 215, 130, 40)),
    "cereal box": Kind("cereal", 0.19, robosuite=True, title="MUESLI", hues=(0, 120, 190)),
    "lemon": Kind("lemon", 0.10, robosuite=True, smooth=True),
    "milk carton": Kind("milk", 0.18, robosuite=True, colour=(0.86, 0.87, 0.88)),
    "baby bottle": Kind("mamadeira", 0.16, cells=(1, 1, 3)),
    "barrel": Kind("barrel", 0.14),
    "basketball": Kind("basketball", 0.12),
    "biplane": Kind("cartoon_biplane", 0.20, cells=(3, 3, 1)),
    "bootie": Kind("bootie", 0.19, half=True, cells=(1, 3, 2), hues=(0, 130)),
    "cactus": Kind("cactus", 0.17, cells=(1, 1, 3)),
    "cosmetics pot": Kind("cosmeticsPot", 0.10),
    "crate": Kind("crate", 0.12),
    "exit sign": Kind("emergencySign", 0.17),
    "fire extinguisher": Kind("fireExtinguisher", 0.19, cells=(1, 1, 3)),
    "hot dog": Kind("hotDog", 0.16),
    "house puzzle": Kind("housePuzzle", 0.17),
    "locker": Kind("lockedLocker", 0.17, hues=(0, 150)),
    "plastic cup": Kind("plasticCup", 0.12, hues=(0, 140, 215, 280)),
    "rock": Kind("rock1", 0.12),
    "rocking horse": Kind("caballito", 0.18, cells=(3, 2, 2)),
    "shipping container": Kind("shippingContainer", 0.18, hues=(0, 130, 250)),
    "slipper": Kind("slippers", 0.19, half=True, cells=(1, 3, 1)),
    "spring bike": Kind("motorbike", 0.18, cells=(3, 2, 2)),
    "teddy bear": Kind("teddyBear", 0.17, cells=(2, 2, 3)),
    "tetra pak": Kind("tetrapak", 0.17, cells=(1, 1, 2)),
    "wooden case": Kind("ammoBox", 0.17),
    "wooden toy": Kind("woodToy", 0.17, cells=(2, 1, 3)),
    "yogurt bottle": Kind("yogurtBottle", 0.17, hues=(0, 130, 230)),
}


@dataclass(frozen=True)
class Credit:
    """Who is to be named for an object: `name` of the kind, `work`, `author` and `licence`."""

    name: str
    work: str
    author: str
    licence: str


class Catalogue:
    """Reads the models of `KINDS`; each is read once.

    Args:
        furniture: the CC0 archive, ``BlendSwap-CC-0.sh3f``.
        robosuite: the installed package ``robosuite``, or the folder that holds it.

    Raises:
        FileNotFoundError: one of the two is not there.
    """

    def __init__(self, furniture: Path, robosuite: Path):
        assets = next((p for p in (robosuite / "models/assets", robosuite / "robosuite/models/assets") if p.is_dir()), None)
        if assets is None:
            raise FileNotFoundError(f"{robosuite} holds no models/assets: give --robosuite the folder of the installed package")
        if not furniture.is_file():
            raise FileNotFoundError(f"{furniture} is missing: give --furniture the CC0 archive of Debian's sweethome3d-furniture")
        self._robosuite = folder_reader(assets)
        self._package = assets.parent.parent
        self._furniture = archive_reader(furniture)
        self._models: dict[str, Model] = {}

    def model(self, name: str) -> Model:
        """The model of a kind, scaled, centred and upright, in its own colours."""
        if name not in self._models:
            kind = KINDS[name]
            read, path = self._source(kind)
            model = read_model(read, path).placed(kind.longest, upright=kind.robosuite, half=kind.half)
            parts = model.parts
            if kind.colour is not None:
                parts = tuple(replace(part, colour=kind.colour, texture=None) for part in parts)
            if kind.smooth:
                parts = tuple(part.rounded() for part in parts)
            if kind.title is not None:
                parts = tuple(replace(part, texture=carton((232, 150, 40), kind.title)) for part in parts)
            self._models[name] = Model(parts)
        return self._models[name]

    def credits(self, names: Iterable[str]) -> list[Credit]:
        """A credit for each of the kinds, from the licence files and properties that travel with them."""
        return [self._credit(name, KINDS[name]) for name in names]

    def mit_notice(self) -> str:
        """The text of robosuite's licence, from the metadata that was installed with it.

        Raises:
            FileNotFoundError: it is not there.
        """
        found = sorted(self._package.parent.glob("robosuite-*.dist-info/**/LICENSE*"))
        if not found:
            raise FileNotFoundError(f"no licence of robosuite beside {self._package}: give --robosuite the installed package")
        return found[0].read_text(encoding="utf-8")

    def _source(self, kind: Kind) -> tuple[ReadBytes, str]:
        if kind.robosuite:
            return self._robosuite, f"objects/meshes/{kind.file}.obj"
        return self._furniture, f"{FURNITURE}/{kind.file}/{kind.file}.obj"

    def _credit(self, name: str, kind: Kind) -> Credit:
        if kind.robosuite:
            own = "; colours ours" if kind.colour is not None else "; print ours" if kind.title is not None else ""
            return Credit(name, f"`{kind.file}` mesh of robosuite{own}", "the robosuite authors", "MIT")
        properties = self._furniture("PluginFurnitureCatalog.properties").decode("latin-1")
        number = re.search(rf"^id#(\d+)=Blend Swap CC-0#{kind.file}\s*$", properties, re.MULTILINE)
        if number is None:
            raise ValueError(f"the archive's properties do not list {kind.file}")
        creator = re.search(rf"^creator#{number[1]}=(.*?)\s*$", properties, re.MULTILINE)
        return Credit(name, f"`{kind.file}`", "unnamed" if creator is None else unescape(creator[1]), "CC0 1.0")


def turned(model: Model, degrees: int) -> Model:
    """The model with all hues turned; greys stay."""
    if degrees % 360 == 0:
        return model

    def turn(image: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + degrees // 2) % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    parts = []
    for part in model.parts:
        pixel = turn((255 * np.clip(part.colour, 0, 1)).round().astype(np.uint8).reshape(1, 1, 3))[0, 0] / 255
        texture = None if part.texture is None else turn(part.texture)
        parts.append(replace(part, colour=(float(pixel[0]), float(pixel[1]), float(pixel[2])), texture=texture))
    return Model(tuple(parts))

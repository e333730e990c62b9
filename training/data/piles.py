# SPDX-License-Identifier: Apache-2.0
"""Piles of objects with the amodal mask of each and who lies on whom; piles that break a rule are rejected."""

from dataclasses import dataclass

import cv2
import numpy as np

from training.data.catalogue import KINDS, Catalogue, turned
from training.data.meshes import Model
from training.data.samples import letterboxed
from training.data.scene import Rejected, layers_of, uncovered
from training.data.stage import HEIGHT, WIDTH, Stage
from training.data.surfaces import SURFACES

GRAZING = 100  # pixels: who lies on whom is clear where two objects share more, about one pixel of a 64x64 mask


@dataclass(frozen=True)
class Recipe:
    """What a pile is to be; the rest is drawn at random.

    Attributes:
        objects: kinds, one for each object.
        surface: name of the table's texture.
        tilt: range of the camera's angle from straight down, degrees.
        layers: fewest and most layers.
        spread: deviation of where objects fall, metres; small heaps them, large lays them out.
        loose: how many objects may overlap no other in the picture.
        fill: range of the share of the picture's width or height that the pile takes.
    """

    objects: tuple[str, ...]
    surface: str
    tilt: tuple[float, float] = (0.0, 35.0)
    layers: tuple[int, int] = (2, 4)
    spread: float = 0.03
    loose: int = 0
    fill: tuple[float, float] = (0.78, 0.92)


@dataclass(frozen=True)
class Pile:
    """A rendered pile; objects are nearest layer first, then from left to right.

    Attributes:
        image: uint8 [480, 640, 3] RGB.
        depth: float32 [480, 640], metres along the optical axis.
        names: kind of each object.
        amodal: bool [N, 480, 640].
        occluded_by: bool [N, N], Z of Eq. 1.
        tilt: the camera's angle from straight down, degrees.
    """

    image: np.ndarray
    depth: np.ndarray
    names: tuple[str, ...]
    amodal: np.ndarray
    occluded_by: np.ndarray
    tilt: float

    @property
    def visible(self) -> np.ndarray:
        """bool [N, 480, 640], each object minus its occluders."""
        return uncovered(self.amodal, self.occluded_by)


def make_pile(catalogue: Catalogue, recipe: Recipe, rng: np.random.Generator) -> Pile:
    """Drop, check and render one pile.

    Raises:
        Rejected: it did not settle; objects occlude one another in a cycle, are entangled or just graze; too few or many
            layers; an object lies apart, is too hidden, small or large, or is cut by the picture's edge.
    """
    names = tuple(recipe.objects[k] for k in rng.permutation(len(recipe.objects)))
    models = _colourings(catalogue, names, rng)
    cells = [KINDS[name].cells for name in names]
    with Stage(models, cells, SURFACES[recipe.surface](rng)) as stage:
        stage.settle(recipe.spread, rng)
        stage.aim(recipe.tilt, recipe.fill, rng)
        depths = stage.depths()
        amodal, occluded_by = truth(depths)
        layers = _check(recipe, depths, amodal, occluded_by)
        depth = np.minimum(depths.min(axis=0), stage.surroundings())
        image = stage.photograph(rng)
    left = [np.nonzero(mask.any(axis=0))[0][0] for mask in amodal]
    order = np.lexsort((left, layers))
    return Pile(image, depth, tuple(names[k] for k in order), amodal[order], occluded_by[np.ix_(order, order)], stage.tilt)


def truth(depths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Amodal masks and Z of Eq. 1 from the depth of each object alone.

    Args:
        depths: float32 [N, h, w], metres, infinite where the object is not.

    Returns:
        bool [N, h, w] and bool [N, N]; object i is occluded by j where they share pixels and j is nearer in the
        majority of them.
    """
    amodal = np.isfinite(depths)
    count = len(depths)
    occluded_by = np.zeros((count, count), bool)
    for i in range(count):
        for j in range(count):
            shared = amodal[i] & amodal[j]
            nearer = int((depths[j][shared] < depths[i][shared]).sum())
            occluded_by[i, j] = i != j and 2 * nearer > int(shared.sum())
    return amodal, occluded_by


def _check(recipe: Recipe, depths: np.ndarray, amodal: np.ndarray, occluded_by: np.ndarray) -> np.ndarray:
    """The layer of each object; `Rejected` where the pile breaks a rule."""
    border = np.ones((HEIGHT, WIDTH), bool)
    border[6:-6, 6:-6] = False
    if not amodal.any(axis=(1, 2)).all() or (amodal & border).any():
        raise Rejected("cut by the edge")
    layers = layers_of(occluded_by)
    if not recipe.layers[0] <= layers.max() <= recipe.layers[1]:
        raise Rejected("number of layers")
    flat = amodal.reshape(len(amodal), -1).astype(np.float32)
    shared = (flat @ flat.T)[np.triu_indices(len(flat), 1)]
    if ((shared > 0) & (shared < GRAZING)).any():
        raise Rejected("grazing")
    if int((~(occluded_by | occluded_by.T).any(axis=1)).sum()) > recipe.loose:
        raise Rejected("scattered")
    visible = uncovered(amodal, occluded_by)
    nearest = amodal & (depths <= depths.min(axis=0))
    areas = amodal.sum(axis=(1, 2))
    if ((visible ^ nearest).sum(axis=(1, 2)) > 0.02 * areas).any():
        raise Rejected("entangled")
    small = np.array([letterboxed(mask, 64) for mask in amodal])
    seen = visible.sum(axis=(1, 2))
    if (seen < 250).any() or (seen < 0.15 * areas).any() or (uncovered(small, occluded_by).sum(axis=(1, 2)) < 12).any():
        raise Rejected("too hidden")
    sides = [max(cv2.minAreaRect(np.argwhere(mask).astype(np.float32))[1]) for mask in amodal]
    if min(sides) < 0.2 * HEIGHT or max(sides) > 0.5 * HEIGHT:
        raise Rejected("size in the picture")
    return layers


def _colourings(catalogue: Catalogue, names: tuple[str, ...], rng: np.random.Generator) -> list[Model]:
    """The models, those of a kind in different hues as far as the kind has them."""
    hues = {name: list(rng.permutation(KINDS[name].hues)) for name in dict.fromkeys(names)}
    used: dict[str, int] = {}
    models = []
    for name in names:
        used[name] = used.get(name, -1) + 1
        models.append(turned(catalogue.model(name), int(hues[name][used[name] % len(hues[name])])))
    return models

# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes for training: objects fall on a table, several cameras look at them (papers/003's recipe)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from seqamodal_ros.scene.geometry import Geometry
from training.data.meshes import Model
from training.data.packed import Shard
from training.data.piles import truth
from training.data.places import PLACES, Place
from training.data.samples import letterboxed
from training.data.scene import Rejected, Scene, SceneRules, nearest_first, uncovered
from training.data.stage import WIDTH, Stage
from training.data.surfaces import SIDE, SURFACES

Families = Mapping[str, Mapping[str, Callable[[], Model]]]

BEHIND = 0.006  # metres: objects sink into the table by less
AIMS = 2  # a camera is aimed so often for each view that is wanted, as some break a rule
SHARPER = 1.5  # pictures are so much wider than they are kept, or 1.1 times as high


@dataclass(frozen=True)
class RenderSettings(SceneRules):
    """How scenes are drawn.

    Attributes:
        stock: objects that wait beside a table; each of its scenes takes some of them.
        scenes: scenes on a table.
        objects: fewest objects of a view, and most of a scene.
        crowding: each number n of a scene's objects is as likely as n to this power, as of many some hide from each view.
        views: cameras a scene.
        longest: range of an object's longest side, metres.
        painted: probability of a painted table; else it is one of the textures.
        places: of `PLACES`, where the objects lie; each is as likely.
        square: probability that a view is the square in the middle of the picture; else all of it, letterboxed.
    """

    stock: int = 12
    scenes: int = 20
    objects: tuple[int, int] = (2, 6)
    crowding: float = 0.0
    views: int = 4
    longest: tuple[float, float] = (0.09, 0.2)
    painted: float = 0.5
    places: tuple[str, ...] = ("table",)
    square: float = 0.4


# 5 to 10 objects, up to 7 layers, six views a scene (papers/003, Section 3)
MUVA = RenderSettings(
    max_layers=7,
    stock=16,
    scenes=8,
    objects=(5, 10),
    crowding=3.0,
    views=6,
    longest=(0.07, 0.17),
    places=("bin", "shelf"),
    square=1.0,
)

DESKS = RenderSettings(scenes=8, objects=(2, 9), longest=(0.08, 0.22), places=("desk",), square=0.3)


def render_table(
    families: Families, textures: list[np.ndarray], settings: RenderSettings, seed: Sequence[int], table: int
) -> Shard:
    """The good views of a table's scenes as a shard of a packed set; what broke a rule is counted by rule.

    Args:
        families: family -> name -> what reads the model, its longest side 1 m; each family is as likely.
        textures: uint8 [h, w, 3] RGB, for tables.
        settings: see `RenderSettings`.
        seed: of the set.
        table: which; the sources are scenes, numbered through all tables.
    """
    rng = np.random.default_rng([*seed, table])
    dropped = Counter[str]()
    views, source = [], []
    place = PLACES[str(rng.choice(settings.places))]
    try:
        stock = [_drawn(families, settings, rng) for _ in range(settings.stock)]
        table_top, around = _table(textures, settings, rng), place.surroundings(rng)
        stage = Stage(
            stock,
            [(1, 1, 1)] * len(stock),
            table_top,
            around.walls,
            SHARPER * settings.image_size / WIDTH,
            supersampling=1,
            plain=around.plain,
        )
    except ValueError:  # of MuJoCo, that takes no mesh without volume
        return [], [], {"table: a mesh was refused": 1}
    with stage:
        for scene in range(settings.scenes):
            good = _scene(stage, place, settings, rng, dropped)
            views += good
            source += [table * settings.scenes + scene] * len(good)
    return views, source, dropped


def _drawn(families: Families, settings: RenderSettings, rng: np.random.Generator) -> Model:
    """A model of some family, of some size, tinted or not."""
    models = families[str(rng.choice(sorted(families)))]
    model = models[str(rng.choice(sorted(models)))]()
    return _tinted(model.scaled(rng.uniform(*settings.longest)), rng)


def _scene(stage: Stage, place: Place, settings: RenderSettings, rng: np.random.Generator, dropped: Counter[str]) -> list[Scene]:
    counts = np.arange(settings.objects[0], settings.objects[1] + 1)
    likely = counts.astype(float) ** settings.crowding
    count = int(rng.choice(counts, p=likely / likely.sum()))
    views: list[Scene] = []
    try:
        stage.settle(rng.uniform(*place.spread), rng, rng.permutation(stage.count)[:count].tolist(), place.ground)
    except Rejected as rule:
        dropped[f"scene: {rule}"] += 1
        return views
    for _ in range(AIMS * settings.views):
        if len(views) == settings.views:
            break
        try:
            stage.aim(place.tilts, place.fill, rng, distances=(0.2, 2.0), turns=place.turns)
            views.append(_view(stage, settings, rng))
        except Rejected as rule:
            dropped[f"view: {rule}"] += 1
    return views


def _view(stage: Stage, settings: RenderSettings, rng: np.random.Generator) -> Scene:
    """What the camera sees; `Rejected` where that breaks a rule of the settings.

    Objects that hide from it, fewer than `area_min` pixels of them showing, are no part of the scene, and not in the picture.
    """
    square = rng.random() < settings.square
    left = (stage.width - stage.height) // 2 if square else 0
    middle = slice(left, stage.width - left)
    depths = stage.depths()
    amodal, occluded_by = truth(depths)
    small = np.array([letterboxed(mask[:, middle], settings.mask_size) for mask in amodal])
    occluded_by &= (small[:, None] & small[None]).any(axis=(2, 3))
    shows = uncovered(small, occluded_by).sum(axis=(1, 2)) >= settings.area_min
    if shows.sum() < settings.objects[0]:
        raise Rejected(f"fewer than {settings.objects[0]} objects show")
    surroundings = stage.surroundings()
    behind = amodal[shows] & (surroundings < depths[shows] - BEHIND)
    if (behind.sum(axis=(1, 2)) > 0.02 * amodal[shows].sum(axis=(1, 2))).any():
        raise Rejected("behind a wall")
    small, occluded_by = nearest_first(small[shows], occluded_by[np.ix_(shows, shows)], settings)
    stage.show([k for k, seen in zip(stage.present, shows, strict=True) if seen])
    picture = stage.photograph(rng, lamps=1, sky=3)[:, middle]
    height, width = picture.shape[:2]
    nearest = np.minimum(depths[shows].min(axis=0), surroundings)[:, middle]
    geometry = Geometry.letterbox(width, height)
    millimetres = np.nan_to_num(1000 * geometry.nearest(nearest, settings.image_size)).round().clip(0, 65535).astype(np.uint16)
    return Scene(geometry.to_model(picture, settings.image_size), small, occluded_by, millimetres)


def _tinted(model: Model, rng: np.random.Generator) -> Model:
    """Every other model is tinted, as many are plain grey."""
    tint = rng.uniform(0.3, 1, 3) if rng.random() < 0.5 else np.ones(3)
    parts = []
    for part in model.parts:
        texture = None if part.texture is None else (part.texture * tint).astype(np.uint8)
        red, green, blue = (float(value) for value in part.colour * tint)
        parts.append(replace(part, colour=(red, green, blue), texture=texture))
    return Model(tuple(parts))


def _table(textures: list[np.ndarray], settings: RenderSettings, rng: np.random.Generator) -> np.ndarray:
    """A painted table, or a texture laid out in mirrored tiles."""
    if rng.random() < settings.painted:
        painted = SURFACES[str(rng.choice(sorted(SURFACES)))](rng)
        return np.roll(painted, rng.integers(SIDE, size=2), axis=(0, 1))[..., rng.permutation(3)]
    texture = textures[rng.integers(len(textures))]
    pair = np.hstack([texture, texture[:, ::-1]])
    tile = np.vstack([pair, pair[::-1]])
    return np.tile(cv2.resize(tile, (512, 512)), (int(rng.integers(2, 5)),) * 2 + (1,))

# SPDX-License-Identifier: Apache-2.0
"""The raw material of composites: cut-out sprites by class and background textures, one split at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from training.data.furniture import furniture_models, read_furniture
from training.data.meshes import Model
from training.data.objects import read_classes, read_mesh, read_split
from training.data.workers import in_parallel

FURNITURE, PICTURES = "furniture", "pictures"  # folders of their sprites, and the names of the families
CUTOUTS = (".png", ".webp")  # formats with an alpha channel
SMALLEST_TEXTURE = 8  # pixels of its shorter side


@dataclass(frozen=True)
class Material:
    """What composites of one split are made of.

    Attributes:
        sprites: family ("fruits", "objects", "furniture" or "pictures") -> class -> list of uint8 [h, w, 4], cropped to the
            object, RGB premultiplied by alpha so that warping leaves no fringe.
        textures: list of uint8 [h, w, 3] RGB.
    """

    sprites: dict[str, dict[str, list[np.ndarray]]]
    textures: list[np.ndarray]


def load_material(data: Path, rendered: Path, split: str, family: str | None = None) -> Material:
    """Load fruits, rendered objects and textures of one split; for training furniture and pictures too, where there are any.

    Args:
        data: the folder with ``fruits``, ``objects`` and ``textures``.
        rendered: the folder of ``python -m training.prepare sprites``, one ``<object>.npz`` each.
        split: "train", "val", "test", or "unseen" (fruit classes kept out of training, on test textures).
        family: read this one alone; None reads all that the split has.

    Raises:
        FileNotFoundError: a folder is missing or empty; the message says what makes it.
        ValueError: the split has no such family.
    """
    readers = {"fruits": partial(_read_fruits, data / "fruits" / split)}
    if split != "unseen":
        readers["objects"] = partial(_read_objects, data / "objects", rendered, split)
    if split == "train":
        readers |= {name: partial(_read_extra, rendered / name) for name in (FURNITURE, PICTURES)}
    if family is not None:
        if family not in readers:
            raise ValueError(f"the raw material has no {family} for {split}, but {', '.join(readers)}")
        readers = {family: readers[family]}
    families = {name: read() for name, read in readers.items()}
    textures = read_textures(data / "textures" / ("test" if split == "unseen" else split))
    return Material({name: classes for name, classes in families.items() if classes}, textures)


def read_textures(folder: Path) -> list[np.ndarray]:
    """Every picture under a folder, uint8 [h, w, 3] RGB; FileNotFoundError where there is none, ValueError where one is tiny."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".webp", ".png", ".jpg", ".jpeg"))
    if not paths:
        raise FileNotFoundError(f"no textures under {folder}: check the folder")
    textures = [_read_image(path, cv2.IMREAD_COLOR) for path in paths]
    for path, texture in zip(paths, textures, strict=True):
        if min(texture.shape[:2]) < SMALLEST_TEXTURE:
            raise ValueError(f"{path} is {texture.shape[1]}x{texture.shape[0]} pixels, too small for a texture: remove it")
    return textures


def read_cutouts(folder: Path) -> dict[str, list[np.ndarray]]:
    """One's own cut-outs: every ``<class>/*`` image under a folder, RGBA, as `Material` holds them.

    Raises:
        FileNotFoundError: there is none, or one cannot be read.
        ValueError: one has no alpha channel, or is transparent all over.
    """
    classes: dict[str, list[np.ndarray]] = {}
    for path in sorted(path for path in folder.glob("*/*") if path.suffix.lower() in CUTOUTS):
        sprite = _read_image(path, cv2.IMREAD_UNCHANGED)
        if sprite.shape[2] != 4 or not 0 < (sprite[..., 3] > 127).mean() < 1:
            raise ValueError(f"{path} has nothing cut out: save it with a transparent background (RGBA)")
        classes.setdefault(path.parent.name, []).append(crop(sprite))
    if not classes:
        raise FileNotFoundError(f"no cut-outs under {folder}: it needs <class>/<name>.png or .webp with transparent backgrounds")
    return classes


def crop(sprite: np.ndarray) -> np.ndarray:
    """Cut a straight RGBA sprite to its opaque pixels and premultiply it."""
    opaque = cut(sprite)
    colour = opaque[..., :3].astype(np.uint16) * opaque[..., 3:] // 255
    return np.dstack([colour.astype(np.uint8), opaque[..., 3]])


def cut(sprite: np.ndarray) -> np.ndarray:
    """The part of an RGBA sprite that holds its opaque pixels."""
    rows, columns = np.nonzero(sprite[..., 3] > 127)
    return sprite[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


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
            command = f"python -m training.prepare sprites --data {folder.parent} --out {rendered}"
            raise FileNotFoundError(f"{path} is missing: run `{command}`")
        with np.load(path) as views:
            classes.setdefault(labels[name], []).extend(crop(sprite) for sprite in views["sprites"])
    return classes


def _read_extra(folder: Path) -> dict[str, list[np.ndarray]]:
    """Each model, or picture, is a class of its own; none where there is no such folder, as these are an extra."""
    classes = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as views:
            classes[path.stem] = [crop(sprite) for sprite in views["sprites"]]
    return {name: sprites for name, sprites in classes.items() if sprites}


def _read_image(path: Path, flags: int) -> np.ndarray:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise FileNotFoundError(f"{path} is not an image that OpenCV can read")
    if image.ndim != 3 or image.dtype != np.uint8:
        raise ValueError(f"{path} is not in colour with 8 bits a channel: export it so")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def render_objects(folder: Path, out: Path, views: int, side: int, seed: int) -> list[Path]:
    """Render every scanned object that is not rendered yet, ``<object>.npz`` each; returns the files written."""
    readers = {name: partial(read_mesh, folder / f"{name}.npz") for name in sorted(read_split(folder))}
    return _render(readers, out, views, side, seed, whole=True)


def render_furniture(folder: Path, out: Path, views: int, side: int, seed: int) -> list[Path]:
    """Render the models of a folder's ``.sh3f`` archives that are not rendered yet into ``furniture/<model>.npz``.

    Views of railings and the like, which fill little of their own outline, are left out. Returns the files written.
    """
    readers = {name: partial(_two_sided_furniture, *source) for name, source in furniture_models(folder).items()}
    return _render(readers, out / FURNITURE, views, side, seed, whole=False)


def shrink_pictures(folder: Path, out: Path, side: int) -> list[Path]:
    """Make sprites of the cut-out pictures of a folder that are not made yet: ``pictures/<name>.npz``, each a class of its own.

    Pictures of several pieces, and those that fill little of their own outline, are left out. Returns the files written.

    Raises:
        FileNotFoundError: there are no pictures, or one cannot be read.
        ValueError: one has no alpha channel.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in CUTOUTS) if folder.is_dir() else []
    if not paths:
        raise FileNotFoundError(f"no pictures in {folder}: it needs <name>.png or .webp with transparent backgrounds")
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    written = []
    for path in tqdm(paths, desc=PICTURES, disable=None):
        target = out / PICTURES / f"{path.stem}.npz"
        if target.is_file():
            continue
        picture = _read_image(path, cv2.IMREAD_UNCHANGED)
        if picture.shape[2] != 4:
            raise ValueError(f"{path} has nothing cut out: save it with a transparent background (RGBA)")
        sprite = _shrunk(picture, side)
        kept = [sprite] if _compact(sprite[..., 3] > 127) else []
        _save_sprites(target, np.array(kept, np.uint8).reshape(-1, *sprite.shape), views=1)
        written.append(target)
    return written


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """A straight RGBA picture whose longer side is `side` pixels; the colours of transparent pixels do not bleed into others."""
    scale = side / max(picture.shape[:2])
    alpha = picture[..., 3:].astype(np.float32)
    premultiplied = np.dstack([picture[..., :3] * alpha, alpha])
    small = cv2.resize(premultiplied, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    straight = small[..., :3] / np.maximum(small[..., 3:], 1)
    return np.dstack([straight, small[..., 3:]]).round().clip(0, 255).astype(np.uint8)


def _two_sided_furniture(archive: Path, path: str) -> Model:
    return read_furniture(archive, path).two_sided()


def compact_furniture(folder: Path, rendered: Path) -> dict[str, tuple[Path, str]]:
    """Those of `furniture_models` of which three views in four were kept by `render_furniture`.

    Raises:
        FileNotFoundError: no archive, or none of their models was rendered; the message says what makes it.
    """
    compact = {}
    for name, source in furniture_models(folder).items():
        path = rendered / FURNITURE / f"{name}.npz"
        if path.is_file():
            with np.load(path) as views:
                if 4 * len(views["sprites"]) >= 3 * views["drawn"]:
                    compact[name] = source
    if not compact:
        raise FileNotFoundError(f"no furniture in {rendered}: run `python -m training.prepare sprites` with --furniture {folder}")
    return compact


def _render(readers: Mapping[str, Callable[[], Model]], out: Path, views: int, side: int, seed: int, whole: bool) -> list[Path]:
    """Render what `readers` read; each model has its own random numbers, so it is the same whatever else is missing."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.npz" for name in readers]
    numbered = enumerate(zip(readers.values(), paths, strict=True))
    jobs = [(read, path, index) for index, (read, path) in numbered if not path.is_file()]
    work = partial(_render_job, jobs, views, side, seed, whole)
    written = []
    for (_, path, _), failure in zip(jobs, in_parallel(work, len(jobs), out.name), strict=True):
        if failure is None:
            written.append(path)
        elif whole:
            raise ValueError(f"{path.stem}: {failure}")
        else:
            tqdm.write(f"{path.stem} left out: {failure}")
    return written


def _render_job(
    jobs: Sequence[tuple[Callable[[], Model], Path, int]], views: int, side: int, seed: int, whole: bool, job: int
) -> str | None:
    """Render one model into its file; what went wrong, or None."""
    from training.data.render import render_sprites

    read, path, index = jobs[job]
    try:
        sprites = render_sprites(read(), views, side, np.random.default_rng([seed, index]))
    except (ValueError, FileNotFoundError) as error:
        return str(error).splitlines()[0]
    if not whole:
        sprites = np.array([sprite for sprite in sprites if _compact(sprite[..., 3] > 127)], np.uint8).reshape(-1, side, side, 4)
    _save_sprites(path, sprites, views)
    return None


def _save_sprites(path: Path, sprites: np.ndarray, views: int) -> None:
    """Write the sprites that were kept of so many views; never half a file."""
    part = path.with_name(f".{path.stem}.part")  # no .npz, which would be read as a class where this is interrupted
    with part.open("wb") as file:
        np.savez_compressed(file, sprites=sprites, drawn=views)
    part.rename(path)


def _compact(mask: np.ndarray) -> bool:
    """Whether bool [h, w] is one piece that fills a good part of its convex outline, so that it is still one at 64x64."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if len(stats) < 2:
        return False
    outline = cv2.convexHull(np.argwhere(mask).astype(np.int32))
    return stats[1:, cv2.CC_STAT_AREA].max() > 0.97 * mask.sum() and mask.sum() > 0.55 * cv2.contourArea(outline)

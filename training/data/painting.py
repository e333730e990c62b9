# SPDX-License-Identifier: Apache-2.0
"""What composites are painted with: sprites warped and varied, soft shadows, cameras."""

import cv2
import numpy as np

from training.data.sprites import cut


def lay(
    canvas: np.ndarray, layer: np.ndarray, region: tuple[slice, slice], mask_size: int, shadow: tuple[np.ndarray, float] | None
) -> np.ndarray:
    """Lay what `warp` gave on a canvas float32 [S, S, 3], its shadow below it; returns its amodal mask bool [h, w]."""
    side = len(canvas)
    alpha = np.zeros((side, side), np.float32)
    alpha[region] = layer[..., 3]
    covered = cv2.resize(alpha, (mask_size, mask_size), interpolation=cv2.INTER_AREA)
    if shadow is not None:
        canvas *= light(covered, *shadow, side)[..., None]
    canvas[region] *= 1 - layer[..., 3:]
    canvas[region] += layer[..., :3]
    return covered >= 0.5


def coarser(image: np.ndarray, share: float) -> np.ndarray:
    """The image as a camera with this share of its pixels a side would see it."""
    side = len(image)
    fewer = round(share * side)
    return cv2.resize(
        cv2.resize(image, (fewer, fewer), interpolation=cv2.INTER_AREA), (side, side), interpolation=cv2.INTER_LINEAR
    )


def worn(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The uint8 image as a worse camera sends it: out of focus or moving, with coarser noise, as a JPEG of little quality, or
    more than one of these."""
    side, seen = max(image.shape), image.astype(np.float32)
    kinds = rng.random(3) < 0.5
    kinds[rng.integers(3)] = True
    if kinds[0] and rng.random() < 0.5:
        seen = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.002, 0.01) * side)
    elif kinds[0]:
        turned = cv2.getRotationMatrix2D((0, 0), rng.uniform(0, 180), 1)[:, :2]
        ends = np.linspace(-0.5, 0.5, 9)[:, None] * (turned @ [rng.uniform(0.01, 0.045) * side, 0])
        moves = [np.array([[1, 0, x], [0, 1, y]], np.float32) for x, y in ends]
        seen = np.mean([cv2.warpAffine(seen, move, seen.shape[1::-1], borderMode=cv2.BORDER_REFLECT) for move in moves], axis=0)
    if kinds[1]:
        noise = rng.normal(size=seen.shape).astype(np.float32)
        if rng.random() < 0.5:  # as a camera that smooths it leaves it
            noise = cv2.GaussianBlur(noise, (0, 0), 0.8) * 1.7
        seen = seen + rng.uniform(4, 25) * noise
    given = np.rint(seen.clip(0, 255)).astype(np.uint8)
    return jpeg(given, int(rng.integers(12, 75))) if kinds[2] else given


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The uint8 RGB image as a JPEG of this quality, 0..100, keeps it."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def aspect(rng: np.random.Generator) -> tuple[float, float]:
    """Width and height of a 4:3 or 16:9 scene, landscape or portrait, as shares of the square that holds it."""
    short = float(rng.choice([3 / 4, 9 / 16]))
    return (1.0, short) if rng.random() < 0.8 else (short, 1.0)


def inside(side: int, width: float, height: float) -> np.ndarray:
    """bool [side, side]: true within the centred width x height of the square."""
    centres = np.abs((np.arange(side) + 0.5) / side - 0.5)
    return (centres[:, None] < height / 2) & (centres[None, :] < width / 2)


def heap(rng: np.random.Generator, count: int, spread: float) -> np.ndarray:
    """Centres [count, 2] in (0, 1): each but the first lies about `spread` from one drawn before, so that objects overlap."""
    places = [rng.uniform(0.3, 0.7, 2)]
    while len(places) < count:
        angle, distance = rng.uniform(0, 2 * np.pi), spread * rng.uniform(0.6, 1.4)
        place = places[rng.integers(len(places))] + distance * np.array([np.cos(angle), np.sin(angle)])
        places.append(np.clip(place, 0.14, 0.86))
    return np.array(places)[rng.permutation(len(places))]


def warp(
    rng: np.random.Generator, sprite: np.ndarray, place: np.ndarray, size: float, side: int
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """A sprite turned, scaled to `size` of the image, put at `place`: float32 [h, w, 4] in [0, 1], premultiplied, and where."""
    height, width = sprite.shape[:2]
    scale = size * side / max(height, width)
    if scale < 0.6:  # shrink by area first, as warping alone would alias
        shrink = max(2 * scale, 0.3)
        sprite = cv2.resize(sprite, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        height, width = sprite.shape[:2]
        scale = size * side / max(height, width)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rng.uniform(0, 360), scale)
    stretch = np.diag([rng.uniform(0.85, 1.15), rng.uniform(0.85, 1.15)])
    matrix[:, 2] -= [(width - 1) / 2, (height - 1) / 2]
    matrix = stretch @ matrix
    matrix[:, 2] += place * side
    if rng.random() < 0.5:
        sprite = sprite[:, ::-1]
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    left, top = (corners.min(axis=1) - 2).astype(int).clip(0, side - 1)
    right, bottom = (corners.max(axis=1) + 3).astype(int).clip(1, side)
    matrix[:, 2] -= [left, top]
    there = cv2.warpAffine(np.ascontiguousarray(sprite), matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.94, 1.06, 3)
    return there * (np.append(gain, 1) / 255).astype(np.float32), (slice(top, bottom), slice(left, right))


def recolour(rng: np.random.Generator, sprite: np.ndarray) -> np.ndarray:
    """The sprite with its colour channels exchanged, some of them inverted, and another gamma in each."""
    channels = [np.linspace(0, 1, 256) ** np.exp(rng.normal() * 0.4) for _ in range(3)]
    alpha = np.maximum(sprite[..., 3:], 1).astype(np.float32)
    straight = np.minimum(255.0 * sprite[..., rng.permutation(3)] / alpha, 255).astype(np.uint8)
    tables = [channel[::-1] if rng.random() < 0.25 else channel for channel in channels]
    bent = np.stack([table[straight[..., k]] for k, table in enumerate(tables)], axis=-1)
    return np.dstack([(bent * sprite[..., 3:]).astype(np.uint8), sprite[..., 3]])


def retexture(rng: np.random.Generator, sprite: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """The sprite with the surface of a texture, lighter and darker where its own is."""
    height, width = sprite.shape[:2]
    side = int(min(texture.shape[:2]) * rng.uniform(0.3, 1))
    top, left = rng.integers(texture.shape[0] - side + 1), rng.integers(texture.shape[1] - side + 1)
    surface = cv2.resize(texture[top : top + side, left : left + side], (width, height), interpolation=cv2.INTER_LINEAR)
    alpha = sprite[..., 3].astype(np.float32) / 255
    light = cv2.GaussianBlur(sprite[..., :3].max(axis=2).astype(np.float32), (0, 0), 0.02 * max(height, width))
    light /= max(1.0, float(light[alpha > 0.5].mean()))
    shaded = surface * (light.clip(0.25, 1.8) ** rng.uniform(0.6, 1.2) * alpha)[..., None]
    return np.dstack([np.minimum(shaded, 255 * alpha[..., None]).astype(np.uint8), sprite[..., 3]])


def bend(rng: np.random.Generator, sprite: np.ndarray) -> np.ndarray:
    """The sprite warped by smooth displacements of up to about a fifth of its size."""
    height, width = sprite.shape[:2]
    border = int(0.15 * max(height, width))
    sprite = cv2.copyMakeBorder(sprite, border, border, border, border, cv2.BORDER_CONSTANT)
    coarse = (rng.normal(size=(4, 4, 2)) * rng.uniform(0.02, 0.08) * max(height, width)).astype(np.float32)
    moved = cv2.resize(coarse, sprite.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    columns, rows = np.meshgrid(np.arange(sprite.shape[1], dtype=np.float32), np.arange(sprite.shape[0], dtype=np.float32))
    bent = cv2.remap(sprite, columns + moved[..., 0], rows + moved[..., 1], cv2.INTER_LINEAR)
    return cut(bent) if (bent[..., 3] > 127).any() else sprite  # a hair may be bent out of sight


def light(covered: np.ndarray, offset: np.ndarray, strength: float, side: int) -> np.ndarray:
    """float32 [side, side]: what a soft shadow leaves of the light; it is worked out at the masks' size, as it has no edges."""
    small = len(covered)
    moved = cv2.warpAffine(covered, np.array([[1, 0, offset[0] * small], [0, 1, offset[1] * small]], np.float32), (small, small))
    return cv2.resize(1 - strength * cv2.GaussianBlur(moved, (0, 0), 0.03 * small), (side, side), interpolation=cv2.INTER_LINEAR)


def camera(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """uint8 image of the canvas: exposure, colour cast, blur and noise of a cheap camera."""
    gamma, cast = rng.uniform(0.8, 1.25), rng.uniform(0.93, 1.07, 3)
    canvas = cv2.pow(canvas.clip(0, 1).astype(np.float32, copy=False), gamma) * (255 * cast).astype(np.float32)
    if rng.random() < 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.0))
    noise = rng.normal(size=canvas.shape[:2]).astype(np.float32)
    canvas += (255 * rng.uniform(0, 0.03) * noise)[..., None]
    return np.rint(canvas.clip(0, 255, out=canvas), out=canvas).astype(np.uint8)

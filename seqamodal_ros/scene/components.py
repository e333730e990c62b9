# SPDX-License-Identifier: Apache-2.0
"""The objects of a layer: its connected components, or, where a network knows their centres, what shares one."""

import cv2
import numpy as np

BLUR = 1.25  # mask pixels, deviation by which ways to the same centre are taken to differ
NEAR = 3  # mask pixels: a centre is the densest place as far around


def components(mask: np.ndarray, area_min: int) -> list[np.ndarray]:
    """8-connected components of bool [h, w] of at least `area_min` pixels, left to right (by centroid, then top to bottom)."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return _left_to_right([labels == k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= area_min])


def around_centres(mask: np.ndarray, to_centres: np.ndarray, area_min: int) -> list[np.ndarray]:
    """Parts of a mask whose pixels point to one centre, so that things that touch come apart, and what is cut in two does not.

    Args:
        mask: bool [h, w].
        to_centres: float [2, h, w], x and y from each pixel to the centre of its object, pixels.
        area_min: smallest area of an object, pixels. Connected components that are smaller belong to none, as in `components`;
            smaller parts of larger ones go to the nearest centre.

    Returns:
        bool [h, w] each, left to right. Things whose centres are less than about `NEAR` pixels apart stay one, such as a ring and
        the disc in it.
    """
    large = components(mask, area_min)
    if not large:
        return []
    mask = np.logical_or.reduce(large)
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    ends = np.stack([columns + to_centres[0][mask], rows + to_centres[1][mask]], axis=1)
    x, y = ends.round().astype(int).clip(0, [width - 1, height - 1]).T
    votes = np.bincount(y * width + x, minlength=mask.size).reshape(mask.shape)
    centres = _peaks(cv2.GaussianBlur(votes.astype(np.float32), (0, 0), BLUR))
    distances = ((ends[:, None] - centres[None]) ** 2).sum(axis=2)
    labels = np.zeros(mask.shape, np.int32)
    while True:
        labels[rows, columns] = 1 + distances.argmin(axis=1)
        labels = _without_strays(labels, area_min)
        areas = np.bincount(labels[mask] - 1, minlength=distances.shape[1])
        if len(areas) == 1 or areas.min() >= area_min:
            return _left_to_right([labels == k for k in range(1, 1 + len(areas))])
        distances = np.delete(distances, areas.argmin(), axis=1)


def parts_of_layers(layers: np.ndarray, to_centres: np.ndarray | None, area_min: int) -> list[list[np.ndarray]]:
    """The objects of each layer of bool [L, h, w]: `around_centres`, given float [L, 2, h, w], else `components`."""
    if to_centres is None:
        return [components(mask, area_min) for mask in layers]
    return [around_centres(mask, ways, area_min) for mask, ways in zip(layers, to_centres, strict=True)]


def _without_strays(labels: np.ndarray, area_min: int) -> np.ndarray:
    """Labels int32 [h, w], 0 for none, where pieces of fewer than `area_min` pixels that lie apart from the rest of their part
    are of the part that they touch most: else a few pixels would stretch a part across the image.
    """
    found = labels.copy()
    for label in range(1, labels.max() + 1):
        count, pieces, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=8)
        areas = stats[:, cv2.CC_STAT_AREA]
        for piece in range(1, count):
            if areas[piece] < area_min and areas[piece] < areas[1:].max():
                own = pieces == piece
                around = labels[cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~own & (labels > 0)]
                if len(around):
                    found[own] = np.bincount(around).argmax()
    return found


def _peaks(density: np.ndarray) -> np.ndarray:
    """Where a density float [h, w] is highest within `NEAR` pixels around: float [n, 2], x and y."""
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * NEAR + 1,) * 2)
    highest = (density > 0) & (density >= cv2.dilate(density, around))
    count, _, _, centroids = cv2.connectedComponentsWithStats(highest.astype(np.uint8), connectivity=8)  # neighbours may tie
    return centroids[1:count]


def _left_to_right(masks: list[np.ndarray]) -> list[np.ndarray]:
    return sorted(masks, key=_centroid)


def _centroid(mask: np.ndarray) -> tuple[float, float]:
    moments = cv2.moments(mask.astype(np.uint8))
    return moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]

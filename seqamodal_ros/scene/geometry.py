# SPDX-License-Identifier: Apache-2.0
"""Where the model's square lies in the source image, and the way back from a mask to source pixels."""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

LARGEST_SIDE = 16384  # of a source image, pixels
FINER = 2  # pixels a side for one of the model's, to which a large image is brought first
ROUNDING = 1e-6  # source pixels by which sums of float64 may be off
PADDING = 128  # grey level of what lies outside the source; zero once normalised to [-1, 1]
FITS = ("letterbox", "centre_crop")


@dataclass(frozen=True)
class Geometry:
    """The square of the source image that the model sees.

    Attributes:
        width, height: of the source image, pixels.
        left, top: edges of the square in source pixel-edge coordinates, negative where padded.
        side: of the square, source pixels.
        window: left, top, right and bottom edge of what of the image is seen; None for all of it. The rest of the square is
            padding. Masks are blank there; it is no part of what makes two geometries equal, as messages do not carry it.
    """

    width: int
    height: int
    left: float
    top: float
    side: float
    window: tuple[float, float, float, float] | None = field(default=None, compare=False)

    @classmethod
    def letterbox(cls, width: int, height: int) -> "Geometry":
        """The smallest square that holds the whole image, centred: nothing is cut and nothing stretched."""
        side = max(width, height)
        return cls(width, height, (width - side) / 2, (height - side) / 2, side)

    @classmethod
    def centre_crop(cls, width: int, height: int) -> "Geometry":
        """The largest centred square within the image."""
        side = min(width, height)
        return cls(width, height, (width - side) / 2, (height - side) / 2, side)

    @classmethod
    def region(cls, width: int, height: int, x: int, y: int, region_width: int, region_height: int) -> "Geometry":
        """The smallest square that holds a region of interest, centred on it; nothing outside the region is seen.

        Raises:
            ValueError: the region is empty or leaves the image.
        """
        inside = 0 <= x and 0 <= y and x + region_width <= width and y + region_height <= height
        if region_width < 1 or region_height < 1 or not inside:
            raise ValueError(
                f"the region x={x} y={y} {region_width}x{region_height} must be non-empty and lie in the {width}x{height} image"
            )
        side = max(region_width, region_height)
        window = (x, y, x + region_width, y + region_height)
        return cls(width, height, x + (region_width - side) / 2, y + (region_height - side) / 2, side, window)

    def resized(self, longest: int) -> "Geometry":
        """The same square in the source image made `longest` pixels long on its longer side; the shorter keeps one pixel."""
        scale = longest / max(self.width, self.height)
        width, height = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        left, top, right, bottom = (edge * scale for edge in self._window)
        window = (left, top, right, bottom) if self.window else None
        return Geometry(width, height, self.left * scale, self.top * scale, self.side * scale, window)

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge of what of the image lies in the square and is seen, source pixels."""
        left, top, right, bottom = self._window
        return max(left, self.left), max(top, self.top), min(right, self.left + self.side), min(bottom, self.top + self.side)

    @property
    def sees_all(self) -> bool:
        """Whether all of the image is seen."""
        return self.seen == (0, 0, self.width, self.height)

    @property
    def _window(self) -> tuple[float, float, float, float]:
        return self.window or (0, 0, self.width, self.height)

    def affine(self, mask_size: int) -> tuple[float, float, float, float]:
        """(scale_x, scale_y, offset_x, offset_y) of a mask of `mask_size` pixels a side.

        The source pixel x of mask column u is ``offset_x + scale_x * (u + 0.5) - 0.5``; y alike.
        """
        scale = self.side / mask_size
        return scale, scale, self.left, self.top

    def to_model(self, image: np.ndarray, size: int) -> np.ndarray:
        """The square, resampled: uint8 [size, size, 3] from uint8 [H, W, 3]; padding is grey."""
        left, top, right, bottom = self._window
        across, down = _Span.of(self.left, self.side, left, right, size), _Span.of(self.top, self.side, top, bottom, size)
        square = np.full((size, size, 3), PADDING, np.uint8)
        target = square[down.into, across.into]
        seen = image[down.source, across.source]  # no more: padding a long, thin image first would take gigabytes
        if across.even and down.even:
            interpolation = cv2.INTER_AREA if size < self.side else cv2.INTER_LINEAR
            target[:] = resized(seen, target.shape[1::-1], interpolation)
        elif size > self.side:
            way = np.array(
                [[across.step, 0, across.first + across.step / 2 - 0.5], [0, down.step, down.first + down.step / 2 - 0.5]]
            )
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            target[:] = cv2.warpAffine(seen, way, target.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
        else:
            height, width = (min(each, FINER * side) for each, side in zip(seen.shape[:2], target.shape[:2], strict=True))
            fine = resized(seen, (width, height), cv2.INTER_AREA)
            target[:] = across.means(down.means(fine, 0), 1).round()
        return square

    def nearest(self, values: np.ndarray, size: int) -> np.ndarray:
        """The square of what has no mean, such as depth: float32 [size, size] of [H, W], the nearest pixel's; NaN in padding."""
        scale_x, scale_y, left, top = self.affine(size)
        at = np.arange(size) + 0.5
        rows, columns = np.floor(top + scale_y * at).astype(int), np.floor(left + scale_x * at).astype(int)
        square = values[rows.clip(0, self.height - 1)[:, None], columns.clip(0, self.width - 1)].astype(np.float32)
        square[~self.inside(size)] = np.nan
        return square

    def inside(self, mask_size: int) -> np.ndarray:
        """bool [mask_size, mask_size]: mask pixels whose centre lies in what is seen of the image; the others are padding.

        An image thinner than a mask pixel has the one row or column that its middle lies in.
        """
        left, top, right, bottom = self._window
        rows = _inside(self.top, self.side / mask_size, top, bottom, mask_size)
        return rows[:, None] & _inside(self.left, self.side / mask_size, left, right, mask_size)[None, :]

    def to_source(self, mask: np.ndarray) -> np.ndarray:
        """A mask [h, w] at the size of the source, [H, W]; bilinear.

        Args:
            mask: bool (the result is thresholded at 0.5 and bool again) or float (it stays float32).
        """
        where, soft = self.reached_in_source(mask)
        part = soft >= 0.5 if mask.dtype == bool else soft
        whole = np.zeros((self.height, self.width), part.dtype)
        whole[where] = part
        return whole

    def box(self, mask: np.ndarray) -> tuple[int, int, int, int]:
        """x, y, width, height in source pixels of the box around a mask bool [h, w], clipped to the source; never empty.

        Raises:
            ValueError: the mask is blank.
        """
        scale_x, scale_y, offset_x, offset_y = self.affine(mask.shape[1])
        left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
        if not width:
            raise ValueError("the mask is blank: there is no box around it")
        x = min(max(0, math.floor(offset_x + scale_x * left)), self.width - 1)  # of one in padding alone the nearest pixel
        y = min(max(0, math.floor(offset_y + scale_y * top)), self.height - 1)
        right = max(x + 1, min(self.width, math.ceil(offset_x + scale_x * (left + width))))
        bottom = max(y + 1, min(self.height, math.ceil(offset_y + scale_y * (top + height))))
        return x, y, right - x, bottom - y

    def touches_border(self, mask: np.ndarray) -> bool:
        """Whether the box around a mask comes to half a mask pixel from the edge of what is seen, or nearer.

        A mask pixel of which the image has less than half is no part of any mask.
        """
        scale_x, scale_y, _, _ = self.affine(mask.shape[1])
        left, top, right, bottom = self.seen
        x, y, width, height = self.box(mask)
        across, down = min(x - left, right - x - width), min(y - top, bottom - y - height)
        return bool(across <= scale_x / 2 + ROUNDING or down <= scale_y / 2 + ROUNDING)

    def reached_in_source(self, mask: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
        """The rows and columns of the source that a mask [h, w] reaches, and what it is there, float32; zero elsewhere."""
        down, across = (
            _Taps.of(length, offset, self.side, size)
            for length, offset, size in ((self.height, self.top, mask.shape[0]), (self.width, self.left, mask.shape[1]))
        )
        rows, columns = (taps.reached_by(np.count_nonzero(mask, axis)) for taps, axis in ((down, 1), (across, 0)))
        # matrix products would do, too, but BLAS threads go on spinning, on the cores that the next frame wants
        wide = across.blend(np.asarray(mask, np.float32), 1, columns)  # first, as whole rows are copied faster than columns
        return (rows, columns), down.blend(wide, 0, rows)


def resized(image: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """`cv2.resize` of an image [H, W, 3] to a width and height; of one pixel, too, which the OpenCV of ROS 2 Humble refuses."""
    if image.shape[:2] == (1, 1):
        return image.repeat(size[1], axis=0).repeat(size[0], axis=1)
    return cv2.resize(image, size, interpolation=interpolation)


@dataclass(frozen=True, eq=False)
class _Taps:
    """Bilinear weights of two neighbouring mask pixels for each source pixel along an axis; zero outside the square.

    Separable weights rather than cv2.warpAffine, which rounds positions to 1/32 of a mask pixel.
    """

    low: np.ndarray
    high: np.ndarray
    of_low: np.ndarray
    of_high: np.ndarray

    @staticmethod
    @lru_cache(maxsize=16)
    def of(length: int, offset: float, side: float, size: int) -> "_Taps":
        """For `length` source pixels and `size` mask pixels on `side` source pixels from `offset` on."""
        source = np.arange(length)
        position = ((source + 0.5 - offset) * size / side - 0.5).clip(0, size - 1)  # the edge pixel reaches the square's edge
        low = np.minimum(position.astype(int), max(size - 2, 0))
        inside = (source + 0.5 >= offset) & (source + 0.5 <= offset + side)
        share = (position - low).astype(np.float32)
        return _Taps(low, np.minimum(low + 1, size - 1), inside * (1 - share), inside * share)

    def reached_by(self, used: NDArray[np.intp]) -> slice:
        """The source pixels in which mask pixels weigh, of those int [size] that are not zero; from the first to the last."""
        reached = np.nonzero(used[self.low] + used[self.high])[0]
        return slice(reached[0], reached[-1] + 1) if len(reached) else slice(0)

    def blend(self, values: np.ndarray, axis: int, where: slice) -> np.ndarray:
        """float32, with the source pixels in `where` along an axis, of values float32 with mask pixels there."""
        shape = (-1, 1) if axis == 0 else (1, -1)
        low, high = (values.take(each[where], axis) for each in (self.low, self.high))
        low *= self.of_low[where].reshape(shape)  # in place, as more arrays of this size would cost more than the sums
        high *= self.of_high[where].reshape(shape)
        low += high
        return low


def _inside(offset: float, scale: float, low: float, high: float, size: int) -> np.ndarray:
    centres = offset + scale * (np.arange(size) + 0.5)
    inside = (centres > low) & (centres < high)
    inside[min(size - 1, int(((low + high) / 2 - offset) / scale))] |= not inside.any()
    return inside


class _Span(NamedTuple):
    """Along one axis, the source pixels that are seen in the square, and the model's pixels that they fill; neither is empty.

    Attributes:
        source: these source pixels.
        into: these pixels of the model.
        first: edge of the first of the latter, source pixels from that of the first of the former on.
        step: source pixels for one of the model's.
    """

    source: slice
    into: slice
    first: float
    step: float

    @classmethod
    def of(cls, offset: float, side: float, low: float, high: float, size: int) -> "_Span":
        """For `size` model pixels on `side` source pixels from `offset` on, of which those from `low` to `high` are seen."""
        step = side / size
        low, high = max(low, offset), min(high, offset + side)
        source = slice(math.floor(low), math.ceil(high))
        start = min(size - 1, max(0, round((low - offset) / step)))
        into = slice(start, max(start + 1, min(size, round((high - offset) / step))))
        first = offset + start * step
        if high - low < step and into.stop - into.start == 1:  # thinner than a pixel of the model's, which shows all of it
            first, step = low, high - low
        return cls(source, into, first - source.start, step)

    @property
    def even(self) -> bool:
        """Whether all of the source goes into the model's pixels, as much into each as into any other."""
        filled = (self.into.stop - self.into.start) * self.step
        return abs(self.first) < 1e-6 and abs(filled - (self.source.stop - self.source.start)) < 1e-6

    def means(self, values: np.ndarray, axis: int) -> np.ndarray:
        """The mean of the source on each of the model's pixels, wherever its edges lie; float32 [h, w, 3].

        Args:
            values: the source pixels, or others of the same length in all, [h, w, 3].
            axis: 0 or 1, which of theirs this one is.
        """
        length = values.shape[axis]
        edges = self.first + self.step * np.arange(self.into.stop - self.into.start + 1)
        edges = (edges * (length / (self.source.stop - self.source.start))).clip(0, length)
        low, high = edges[:-1], edges[1:]
        found = np.zeros(1, np.float32)
        for tap in range(int(np.ceil((high - low).max())) + 1):
            pixel = np.minimum(low.astype(int) + tap, length - 1)
            shared = (np.minimum(high, pixel + 1) - np.maximum(low, pixel)).clip(0) * (low.astype(int) + tap < length)
            weight = (shared / (high - low)).astype(np.float32)
            found = found + weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1)) * values.take(pixel, axis)
        return found

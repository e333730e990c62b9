# SPDX-License-Identifier: Apache-2.0
"""A layered scene: the ordered stack of amodal masks, its objects, and what lies on what."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from seqamodal_ros.scene.alternatives import object_hypotheses, occluder_shares
from seqamodal_ros.scene.components import parts_of_layers
from seqamodal_ros.scene.fragments import without_fragments
from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.layers import visible_masks
from seqamodal_ros.scene.picking import pick_order


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One object: a part of a layer's amodal mask, see `components` and `around_centres`.

    Attributes:
        id: from 1, front to back and left to right; holds for one scene.
        layer: index of its layer, from 1 (unoccluded).
        amodal: bool [h, w], the complete mask.
        visible: bool [h, w], the amodal mask minus everything in front.
        visible_ratio: visible / amodal area, in [0, 1].
        score: mean probability on the amodal mask, in [0, 1].
        uncertainty: mean of 4 p (1 - p) over the hidden pixels, in [0, 1]; 0 where nothing is hidden.
        touches_border: the amodal mask reaches the edge of what was seen of the image: the object may go on beyond it.
        occluded_by: ids of objects of earlier layers that share an amodal pixel.
    """

    id: int
    layer: int
    amodal: np.ndarray
    visible: np.ndarray
    visible_ratio: float
    score: float
    uncertainty: float
    touches_border: bool
    occluded_by: tuple[int, ...]


class Stated(NamedTuple):
    """What is known of hypotheses that are not there; see `LayeredScene.num_samples` and `agreement`."""

    num_samples: int
    agreement: np.ndarray


@dataclass(frozen=True, eq=False)
class LayeredScene:
    """What a perceiver sees in one image. L is the number of layers, K the number of hypotheses, h x w the mask's size.

    Attributes:
        amodal: bool [L, h, w], front first; L may be 0.
        probability: float32 [L, h, w] in [0, 1], the mean of the K soft masks, calibrated as the model's settings say.
        hypotheses: bool [L, K, h, w]; a null hypothesis is blank.
        geometry: where the masks lie in the source image.
        objects: front to back, left to right within a layer.
        truncated: the largest number of layers was reached; more may exist.
        seed: of the noise.
        seconds: how long inference took; NaN where unknown.
        doubt: of a scene without layers, why nobody can tell that nothing is there; empty where all is well.
        stated: what a message that came without its hypotheses says of them; None where they are there.
    """

    amodal: np.ndarray
    probability: np.ndarray
    hypotheses: np.ndarray
    geometry: Geometry
    objects: tuple[SceneObject, ...]
    truncated: bool = False
    seed: int = 0
    seconds: float = float("nan")
    doubt: str = ""
    stated: Stated | None = None

    @classmethod
    def assemble(
        cls,
        amodal: np.ndarray,
        probability: np.ndarray,
        hypotheses: np.ndarray,
        geometry: Geometry,
        *,
        to_centres: np.ndarray | None = None,
        area_min: int = 10,
        truncated: bool = False,
        seed: int = 0,
        seconds: float = float("nan"),
        doubt: str = "",
    ) -> "LayeredScene":
        """A scene from its layers; see the attributes.

        Its objects are the connected components of at least `area_min` pixels, or, given `to_centres`, float [L, 2, h, w], the
        parts of such an area whose pixels point to one centre. A layer behind the first that one of several hypotheses saw alone
        makes none: four of five of those would be of things that are not there, or in another layer (docs/experiments.md).
        Neither does a fragment, see `without_fragments`. Both hide what lies behind them all the same.
        """
        makes_objects = hypotheses.any(axis=(2, 3)).sum(axis=1) >= min(2, hypotheses.shape[1])
        makes_objects[:1] = True  # there is none in front of it that it could belong to
        parts = parts_of_layers(amodal & makes_objects[:, None, None], to_centres, area_min)
        objects = _objects(without_fragments(parts, probability), visible_masks(amodal), probability, geometry)
        return cls(amodal, probability, hypotheses, geometry, objects, truncated, seed, seconds, doubt)

    @property
    def num_samples(self) -> int:
        """K, the hypotheses of each layer that were drawn."""
        return self.stated.num_samples if self.stated else self.hypotheses.shape[1]

    @cached_property
    def visible(self) -> np.ndarray:
        """bool [L, h, w]: amodal minus everything in front."""
        return visible_masks(self.amodal)

    @cached_property
    def pick_order(self) -> tuple[int, ...]:
        """Ids in the order in which the objects come free: by layer, in a layer the surest first; see `pick_order`."""
        return pick_order(self.objects)

    @cached_property
    def object_hypotheses(self) -> dict[int, np.ndarray]:
        """Of each object, by id, its mask in each hypothesis, bool [K, h, w]; empty where a message came without hypotheses."""
        return object_hypotheses(self.objects, self.amodal, self.hypotheses)

    @cached_property
    def occluder_shares(self) -> dict[int, dict[int, float]]:
        """Of each object, by id, the ids of those that may lie on it, and the share of the hypotheses in which they do.

        Empty where a message came without hypotheses; see `occluder_shares` of `scene.alternatives`.
        """
        return occluder_shares(self.objects, self.object_hypotheses)

    @cached_property
    def agreement(self) -> np.ndarray:
        """float32 [L]: mean IOU of the other non-null hypotheses with the selected mask; NaN where there is none."""
        if self.stated:
            return self.stated.agreement
        return np.array([_agreement(*layer) for layer in zip(self.amodal, self.hypotheses, strict=True)], np.float32)

    def to_source(self, mask: np.ndarray) -> np.ndarray:
        """A mask [h, w] at the size of the source image, [H, W]: bilinear; bool is thresholded at 0.5, float stays float.

        Raises:
            ValueError: it is not one mask of the scene's size.
        """
        if mask.shape != self.amodal.shape[1:]:
            height, width = self.amodal.shape[1:]
            raise ValueError(f"a mask of the scene has {height}x{width} pixels, as `amodal[0]`; this array has {mask.shape}")
        return self.geometry.to_source(mask)

    def label(self) -> np.ndarray:
        """uint16 [H, W]: id of the visible object at each source pixel, 0 for none; the front one wins."""
        label = np.zeros((self.geometry.height, self.geometry.width), np.uint16)
        for obj in reversed(self.objects):
            where, soft = self.geometry.reached_in_source(obj.visible)  # much smaller than the image
            label[where][soft >= 0.5] = obj.id
        return label


def _objects(
    parts: list[list[np.ndarray]], visible: np.ndarray, probability: np.ndarray, geometry: Geometry
) -> tuple[SceneObject, ...]:
    found: list[SceneObject] = []
    for layer, masks in enumerate(parts):
        earlier = tuple(found)
        for mask in masks:
            seen = mask & visible[layer]
            hidden = probability[layer][mask & ~seen]
            found.append(
                SceneObject(
                    id=len(found) + 1,
                    layer=layer + 1,
                    amodal=mask,
                    visible=seen,
                    visible_ratio=float(seen.sum() / mask.sum()),
                    score=float(probability[layer][mask].mean()),
                    uncertainty=float((4 * hidden * (1 - hidden)).mean()) if hidden.size else 0.0,
                    touches_border=geometry.touches_border(mask),
                    occluded_by=tuple(other.id for other in earlier if (other.amodal & mask).any()),
                )
            )
    return tuple(found)


def _agreement(selected: np.ndarray, hypotheses: np.ndarray) -> float:
    others = [h for h in hypotheses if h.any()]
    same = next((k for k, h in enumerate(others) if np.array_equal(h, selected)), None)
    if same is not None:
        others.pop(same)
    if not others:
        return float("nan")
    return float(np.mean([(h & selected).sum() / (h | selected).sum() for h in others]))

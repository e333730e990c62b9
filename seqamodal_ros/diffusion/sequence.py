# SPDX-License-Identifier: Apache-2.0
"""Algorithm 2: the sequence of layers, from K proposals a layer to an ordered stack of amodal masks. numpy alone."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

# number of the layer that is due, from 1, and cumulative mask bool [h, w] -> another proposal for it, float [h, w] in [-1, 1]
Second = Callable[[int, np.ndarray], np.ndarray]

MERGES_AT_MOST = 2  # disjoint masks merged into one layer by spatial integrity; without a cap the loop may never end


@dataclass(frozen=True)
class SequenceSettings:
    """Algorithm 2's inputs.

    Attributes:
        max_layers: N_max.
        area_min: Area_min, mask pixels; a proposal with fewer is null.
        majority_null: take all proposals for null where more than half of them are. The paper ignores null votes, so one
            hallucination beats two blanks. Moot for a network that numbers its hypotheses, see `sequence`.
        first_sure: probability in [0, 1), the mean over the proposals, before temperatures, that some pixel of the first layer
            must reach. Where none does, or it is null though not all of its proposals are, there is no layer, and nobody can
            tell whether something lies there. 0: the paper has no such test.
    """

    max_layers: int = 5
    area_min: int = 10
    majority_null: bool = False
    first_sure: float = 0.0

    def __post_init__(self) -> None:
        if self.max_layers < 1 or self.area_min < 1:
            raise ValueError(f"max_layers and area_min must be at least 1, not {self.max_layers} and {self.area_min}")
        if not 0 <= self.first_sure < 1:
            raise ValueError(f"first_sure must be in [0, 1), not {self.first_sure}")


@dataclass(frozen=True, eq=False)
class Sequence:
    """What Algorithm 2 returns.

    Attributes:
        amodal: bool [L, h, w], the selected masks, front first.
        probability: float32 [L, h, w] in [0, 1], mean of the K soft masks, or the second opinion; merged passes take the maximum.
        hypotheses: bool [L, K, h, w]; nulls are blank; slot k of merged passes is OR-ed.
        truncated: it stopped at max_layers.
        left_out: the highest probability of a first layer that was left out for `first_sure`; 0 where none was.
    """

    amodal: np.ndarray
    probability: np.ndarray
    hypotheses: np.ndarray
    truncated: bool
    left_out: float = 0.0


def binarise(x0: np.ndarray, area_min: int) -> tuple[np.ndarray, np.ndarray]:
    """Proposals float [K, h, w] in [-1, 1] -> (bool [K, h, w], nulls blanked; bool [K], which are null)."""
    candidates = x0 >= 0
    null = candidates.sum(axis=(1, 2)) < area_min
    return candidates & ~null[:, None, None], null


def select(candidates: np.ndarray) -> np.ndarray:
    """The candidate, of bool [n, h, w], with the least L1 distance to their mean; the first on ties."""
    # n times the distance to the mean, in whole numbers: thirds would round, and break ties by chance
    distance = np.abs(len(candidates) * candidates.astype(np.int64) - candidates.sum(axis=0)).sum(axis=(1, 2))
    return candidates[int(distance.argmin())]


def sequence(
    settings: SequenceSettings,
    shape: tuple[int, int],
    samples: int,
    choose: Callable[[np.ndarray], np.ndarray] = select,
    second: Second | None = None,
    lead: bool = False,
) -> Generator[np.ndarray, np.ndarray, Sequence]:
    """Algorithm 2 as a generator: yields a cumulative mask, is sent the K proposals for the layer that follows it.

    A generator, so that the network calls of several images can be put into one batch: see `run`.

    Args:
        settings: stops and options.
        shape: (h, w) of the masks.
        samples: K.
        choose: makes a layer's mask bool [h, w] of the candidates bool [n, h, w] that are not null.
        second: what is proposed instead where all proposals are null, or taken for it, or the first is, with `lead`; it is one
            hypothesis beside K - 1 blank ones, and a layer of its own: it makes no objects, and would if it were merged with
            one that does (of K = 1 each makes some). Not asked for the first layer, as an image may be blank.
        lead: the first proposal alone is the layer's mask, and where it is null there is no layer: for networks that number their
            hypotheses, as number 0 was trained to lie between all others. Neither `choose` nor `majority_null` is asked then.

    Yields:
        bool [h, w], the cumulative mask; to be answered with float [K, h, w] in [-1, 1], the soft masks x0.
    """
    cumulative = np.zeros(shape, bool)
    amodal: list[np.ndarray] = []
    probability: list[np.ndarray] = []
    hypotheses: list[np.ndarray] = []
    merges = 0
    left_out = 0.0
    stopped = of_second = False
    while not stopped and len(amodal) < settings.max_layers:
        x0 = yield cumulative.copy()
        candidates, null = binarise(x0, settings.area_min)
        stopped = bool(null[0] if lead else null.all() or (settings.majority_null and 2 * null.sum() > samples))
        opinion = second(len(amodal) + 1, cumulative) if stopped and amodal and second is not None else None
        if opinion is not None:
            x0 = opinion[None]
            candidates, null = binarise(x0, settings.area_min)
            stopped = bool(null.all())
        soft = ((x0 + 1) / 2).clip(0, 1).mean(axis=0)
        if not amodal and settings.first_sure and not null.all() and (stopped or soft.max() < settings.first_sure):
            left_out, stopped = float(soft.max()), True
        if stopped:
            continue
        selected = candidates[0] if lead else choose(candidates[~null])
        candidates = np.concatenate([candidates, np.zeros((samples - len(candidates), *shape), bool)])
        # null is tested first: a blank mask is disjoint from every layer, and would be merged
        alike = samples == 1 or (opinion is None and not of_second)  # of one hypothesis nothing tells an opinion afterwards
        if amodal and alike and merges < MERGES_AT_MOST and not (selected & amodal[-1]).any():
            merges += 1
            amodal[-1] = amodal[-1] | selected
            probability[-1] = np.maximum(probability[-1], soft)
            hypotheses[-1] = hypotheses[-1] | candidates
        else:
            merges, of_second = 0, opinion is not None
            amodal.append(selected)
            probability.append(soft)
            hypotheses.append(candidates)
        cumulative |= selected
    return Sequence(
        np.array(amodal, bool).reshape(-1, *shape),
        np.array(probability, np.float32).reshape(-1, *shape),
        np.array(hypotheses, bool).reshape(-1, samples, *shape),
        truncated=not stopped,
        left_out=left_out,
    )


def run(
    sequences: list[Generator[np.ndarray, np.ndarray, Sequence]],
    propose: Callable[[list[int], list[np.ndarray]], list[np.ndarray]],
) -> list[Sequence]:
    """Drive several sequences side by side, asking for the proposals of all unfinished ones at once.

    Args:
        sequences: one `sequence` an image.
        propose: takes the indices of the unfinished images and their cumulative masks bool [h, w]; returns
            float [K, h, w] in [-1, 1] for each.
    """
    results: dict[int, Sequence] = {}
    waiting = {index: next(steps) for index, steps in enumerate(sequences)}
    while waiting:
        indices = list(waiting)
        proposals = propose(indices, list(waiting.values()))
        for index, x0 in zip(indices, proposals, strict=True):
            try:
                waiting[index] = sequences[index].send(x0)
            except StopIteration as finished:
                results[index] = finished.value
                del waiting[index]
    return [results[index] for index in range(len(sequences))]

# SPDX-License-Identifier: Apache-2.0
"""What can be picked now, and what has to be removed first to reach an object.

Objects are used by their fields alone: `SceneObject` of a scene and the message AmodalObject will both do.

All of this follows from what covers what in one image. A visual occluder is not always a support: an object may lean on
another, or hold it up, without covering it in this view; and something outside the view may lie on an object that is free here.
A planner that must not topple anything needs a second view, depth or touch beside this.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Protocol, TypeVar

LOW_SCORE = 0.6  # below it, look before you pick; and a part of a larger thing is no object of its own (fragments.py)


class SeenObject(Protocol):
    """What is asked of an object; see `SceneObject` for what the fields mean."""

    @property
    def id(self) -> int: ...
    @property
    def layer(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def occluded_by(self) -> Collection[int]: ...


Seen = TypeVar("Seen", bound=SeenObject)


@dataclass(frozen=True)
class Step:
    """One object to remove on the way to another.

    Attributes:
        id: of the object to remove.
        lies_on: why: ids of the objects that it lies directly on, as they come free; each is a later step or the target.
    """

    id: int
    lies_on: tuple[int, ...]


def free_objects(objects: Iterable[Seen], *, min_score: float = 0.0) -> list[Seen]:
    """The objects that can be picked now, the surest first: those of layer 1, which nothing lies on in this view.

    They are the beginning of `pick_order`. An object of a deeper layer is not free even where no known object lies on it: it was
    drawn as lying under something, and mostly does.

    Args:
        objects: of one scene or message.
        min_score: least score, in [0, 1]; one that is not computed (NaN) counts as less than any minimum above 0.

    Raises:
        ValueError: a minimum outside [0, 1]; a layer below 1.
    """
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score must be in [0, 1], not {min_score}")
    free = [obj for obj in objects if _layer(obj) == 1 and not len(obj.occluded_by)]
    return sorted((obj for obj in free if min_score <= 0 or obj.score >= min_score), key=_surest_first)


def pick_order(objects: Iterable[SeenObject]) -> tuple[int, ...]:
    """Ids in the order in which the objects come free: by layer, then the surest, then by id.

    It is `LayeredScene.pick_order`, for objects of any origin: an occluder comes first whatever its layer is, as by Eq. 2.

    Raises:
        ValueError: objects lie on one another in a cycle, which is named; two objects have one id; an occluder is none of them; a
            layer below 1.
    """
    by_id = _by_id(objects)
    _check_occluders(by_id, by_id)
    try:
        front_first = list(TopologicalSorter({obj.id: obj.occluded_by for obj in by_id.values()}).static_order())
    except CycleError as error:
        raise ValueError(f"objects lie on one another in a cycle: {' on '.join(map(str, error.args[1]))}") from error
    layer: dict[int, int] = {}
    for number in front_first:
        obj = by_id[number]
        layer[number] = max([_layer(obj), *(1 + layer[occluder] for occluder in obj.occluded_by)])
    return tuple(sorted(by_id, key=lambda number: (layer[number], *_surest_first(by_id[number]))))


NO_SHARES: Mapping[int, float] = MappingProxyType({})
BRACKETS = "in brackets: of the hypotheses that see the object, the share in which that one lies on it"  # in `occluders`


def occluders(obj: SeenObject, shares: Mapping[int, float] = NO_SHARES) -> str:
    """The ids of what is said to lie on an object, in words: ``2, 3 (67%), perhaps 4 (33%)``; "" where nothing is.

    Args:
        obj: the object.
        shares: of it, see `LayeredScene.occluder_shares`. A share that is not all of the hypotheses stands in brackets, and what
            is not in `occluded_by` is there perhaps.
    """
    known = {number: shares.get(number, 1.0) for number in obj.occluded_by}
    perhaps = {number: share for number, share in shares.items() if number not in known}
    said = [_with_shares(known)] if known else []
    return ", ".join([*said, f"perhaps {_with_shares(perhaps)}"] if perhaps else said)


def _with_shares(shares: Mapping[int, float]) -> str:
    return ", ".join(f"{number} ({share:.0%})" if share < 1 else str(number) for number, share in sorted(shares.items()))


def under(obj: SeenObject, shares: Mapping[int, float] = NO_SHARES) -> str:
    """What is said to lie on an object, in words; see `occluders`."""
    said = occluders(obj, shares)
    if len(obj.occluded_by):
        return f"under object{'s' * (len(obj.occluded_by) > 1)} {said}"
    return "nothing on it" if obj.layer == 1 else " or ".join(filter(None, ("under something that is not listed", said)))


def to_reach(objects: Iterable[SeenObject], target_id: int) -> list[Step]:
    """What to remove before an object can be picked, in order: all that lies on it, and on what lies on it, topmost first.

    No known object lies on a step once those before it are gone; ties as in `pick_order`. Empty where none lies on the target.

    Args:
        objects: of one scene or message.
        target_id: id of the object to reach.

    Raises:
        ValueError: no object has the id (the known ones are named); or what lies on the target is no order, see `pick_order`.
    """
    by_id = _by_id(objects)
    if target_id not in by_id:
        known = ", ".join(map(str, sorted(by_id))) or "none"
        raise ValueError(f"there is no object {target_id}; known ids: {known}")
    above = _above(by_id, target_id)
    order = pick_order(by_id[number] for number in above)  # the target comes last: all others lie on it
    return [
        Step(number, tuple(other for other in order[place + 1 :] if number in by_id[other].occluded_by))
        for place, number in enumerate(order[:-1])
    ]


def _above(by_id: dict[int, Seen], target_id: int) -> list[int]:
    """The target, its occluders, theirs, and so on."""
    found = [target_id]
    for number in found:  # grows while it is walked
        _check_occluders(by_id, [number])
        found += [occluder for occluder in dict.fromkeys(by_id[number].occluded_by) if occluder not in found]
    return found


def _by_id(objects: Iterable[Seen]) -> dict[int, Seen]:
    by_id: dict[int, Seen] = {}
    for obj in objects:
        if obj.id in by_id:
            raise ValueError(f"two objects have the id {obj.id}")
        by_id[obj.id] = obj
    return by_id


def _check_occluders(by_id: dict[int, Seen], numbers: Iterable[int]) -> None:
    """An object under something that is not there cannot be said to come free."""
    for number in numbers:
        for occluder in by_id[number].occluded_by:
            if occluder not in by_id:
                raise ValueError(f"object {number} lies under {occluder}, which is none of the objects")


def _layer(obj: SeenObject) -> int:
    if obj.layer < 1:
        raise ValueError(f"object {obj.id} has the layer {obj.layer}; layers run from 1")
    return obj.layer


def _surest_first(obj: SeenObject) -> tuple[float, int]:
    """Sort key; a score that was not computed comes last."""
    return (math.inf if math.isnan(obj.score) else -obj.score, obj.id)

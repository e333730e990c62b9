# SPDX-License-Identifier: Apache-2.0
"""What can be picked now, and what has to be removed first to reach an object.

Objects are used by their fields alone: `SceneObject` of a scene and the message AmodalObject will both do.

All of this follows from what covers what in one image. A visual occluder is not always a support: an object may lean on
another, or hold it up, without covering it in this view; and something outside the view may lie on an object that is free here.
A planner that must not topple anything needs a second view, depth or touch beside this.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Protocol, TypeVar


class SeenObject(Protocol):
    """What is asked of an object; see `SceneObject` for what the fields mean."""

    @property
    def id(self) -> int: ...
    @property
    def layer(self) -> int: ...
    @property
    def visible_ratio(self) -> float: ...
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


def free_objects(objects: Iterable[Seen], *, min_visible: float = 0.0, min_score: float = 0.0) -> list[Seen]:
    """The objects of layer 1, which nothing lies on in this view, the surest first: the beginning of `pick_order`.

    One of a deeper layer that shares no pixel with what lies in front is not among them: it was drawn as lying under something.

    Args:
        objects: of one scene or message.
        min_visible: least visible_ratio, in [0, 1]; what is not computed (NaN) counts as less than any minimum above 0.
        min_score: least score; likewise.

    Raises:
        ValueError: a minimum outside [0, 1].
    """
    for name, minimum in (("min_visible", min_visible), ("min_score", min_score)):
        if not 0 <= minimum <= 1:
            raise ValueError(f"{name} must be in [0, 1], not {minimum}")
    free = [obj for obj in objects if obj.layer == 1 and not len(obj.occluded_by)]
    enough = [obj for obj in free if _reaches(obj.visible_ratio, min_visible) and _reaches(obj.score, min_score)]
    return sorted(enough, key=_surest_in_front)


def pick_order(objects: Iterable[SeenObject]) -> tuple[int, ...]:
    """Ids in the order in which the objects come free; of those that come free together by layer, then the surest, then by id.

    It is `LayeredScene.pick_order`, for objects of any origin: each is free once those before it are gone.

    Raises:
        ValueError: objects lie on one another in a cycle, which is named; two objects have one id; an occluder is none of them.
    """
    by_id = _by_id(objects)
    _check_occluders(by_id, by_id)
    waiting = TopologicalSorter({obj.id: obj.occluded_by for obj in by_id.values()})
    try:
        waiting.prepare()
    except CycleError as error:
        raise ValueError(f"objects lie on one another in a cycle: {' on '.join(map(str, error.args[1]))}") from error
    order: list[int] = []
    while waiting.is_active():
        together = waiting.get_ready()  # those of one depth, which is L of Eq. 2
        order += sorted(together, key=lambda number: _surest_in_front(by_id[number]))
        waiting.done(*together)
    return tuple(order)


def to_reach(objects: Iterable[SeenObject], target_id: int) -> list[Step]:
    """What to remove before an object can be picked, in order: all that lies on it, and on what lies on it, topmost first.

    Each step is free once those before it are gone; ties as in `pick_order`. Empty where nothing was seen on the target.

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


def _reaches(value: float, minimum: float) -> bool:
    return minimum <= 0 or value >= minimum


def _surest_in_front(obj: SeenObject) -> tuple[int, float, int]:
    """Sort key; in a layer, a score that was not computed comes last."""
    return (obj.layer, math.inf if math.isnan(obj.score) else -obj.score, obj.id)

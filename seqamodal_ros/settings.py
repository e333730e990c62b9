# SPDX-License-Identifier: Apache-2.0
"""Fills frozen dataclasses from mappings (YAML, weights' metadata) and checks them on the way in."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from decimal import Decimal
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Settings = TypeVar("Settings")


def from_mapping(cls: type[Settings], values: Mapping[str, Any], where: str = "settings") -> Settings:
    """A `cls` (a dataclass) filled from `values`; nested dataclasses take nested mappings.

    A union of dataclasses takes a mapping whose `kind` says which of them it is; without one it is the first.

    Raises:
        ValueError: an unknown key (the message names the nearest known one), an unknown kind, a value of the wrong type, or one
            that is missing and has no default.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected keys and values, got {values!r}")
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    filled = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0)
            raise ValueError(f"{where}: unknown key {key!r}; did you mean {near[0]!r}?")
        filled[key] = _check(hints[key], value, f"{where}.{key}")
    for each in fields(cls):  # type: ignore[arg-type]
        if each.name not in filled and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{where}: {each.name!r} is missing")
    return cls(**filled)


def overridden(settings: Settings, **given: Any) -> Settings:
    """A dataclass with the values that were given; None keeps its own."""
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(settings, **changed)  # type: ignore[type-var]


def _check(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return from_mapping(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is UnionType:
        return _one_of(get_args(hint), value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, got {value!r}")
        kinds = get_args(hint)
        each = [kinds[0]] * len(value) if kinds[-1] is Ellipsis else list(kinds)
        if len(each) != len(value):
            raise ValueError(f"{where}: expected {len(each)} values, got {len(value)}")
        return tuple(_check(kind, item, where) for kind, item in zip(each, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{where}: a number of {len(str(value))} digits is too large") from None
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where}: expected {hint.__name__}, got {value!r}{_as_text(hint, value)}")
    return value


def _as_text(hint: Any, value: Any) -> str:
    """What to write instead of a number such as 1e-4, which YAML takes for text."""
    if hint is float and isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d{1,2}", value):
        return f": write {Decimal(value):f}, as YAML takes {value} for text"
    return ""


def _one_of(classes: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected keys and values, got {value!r}")
    others = dict(value)
    kind = others.pop("kind", classes[0].kind)
    for cls in classes:
        if cls.kind == kind:
            return from_mapping(cls, others, where)
    raise ValueError(f"{where}.kind: expected {' or '.join(cls.kind for cls in classes)}, got {kind!r}")

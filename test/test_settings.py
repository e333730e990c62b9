# SPDX-License-Identifier: Apache-2.0
"""Settings from mappings: filled, checked, and errors that name the nearest key."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from seqamodal_ros.settings import from_mapping


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, int] = (1, 2)
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outer:
    steps: int = 5
    rate: float = 0.1
    name: str = "a"
    loud: bool = False
    inner: Inner = field(default_factory=Inner)


def test_defaults_and_nested_values():
    assert from_mapping(Outer, {}) == Outer()
    given = {"steps": 7, "rate": 1, "loud": True, "inner": {"sizes": [3, 4], "shares": [1, 0.5]}}
    filled = from_mapping(Outer, given)
    assert filled == Outer(7, 1.0, "a", True, Inner((3, 4), (1.0, 0.5)))
    assert isinstance(filled.rate, float)
    assert isinstance(filled.inner.shares[0], float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 1}, r"file: unknown key 'step'; did you mean 'steps'"),
        ({"inner": {"size": [1, 2]}}, r"file.inner: unknown key 'size'; did you mean 'sizes'"),
        ({3: 1}, r"file: unknown key 3; did you mean"),
        ({"steps": 1.5}, r"file.steps: expected int, got 1.5"),
        ({"steps": True}, r"file.steps: expected int, got True"),
        ({"rate": "fast"}, r"file.rate: expected float, got 'fast'"),
        ({"rate": "0.5"}, r"file.rate: expected float, got '0.5'$"),
        ({"rate": "1e999999999"}, r"file.rate: expected float, got '1e999999999'$"),
        ({"rate": "6.5e-5"}, r"file.rate: expected float, got '6.5e-5': write 0.000065, as YAML takes 6.5e-5 for text"),
        ({"rate": True}, r"file.rate: expected float, got True"),
        ({"loud": 1}, r"file.loud: expected bool, got 1"),
        ({"name": None}, r"file.name: expected str, got None"),
        ({"inner": 3}, r"file.inner: expected keys and values, got 3"),
        ({"inner": {"sizes": [1]}}, r"file.inner.sizes: expected 2 values, got 1"),
        ({"inner": {"sizes": 1}}, r"file.inner.sizes: expected a list, got 1"),
        ({"inner": {"shares": [0.1, "x"]}}, r"file.inner.shares: expected float, got 'x'"),
        ([1], r"file: expected keys and values, got \[1\]"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_mapping(Outer, values, "file")


@dataclass(frozen=True)
class Square:
    kind: ClassVar[str] = "square"
    side: int = 1


@dataclass(frozen=True)
class Circle:
    kind: ClassVar[str] = "circle"
    radius: int = 1


@dataclass(frozen=True)
class Drawing:
    shape: Square | Circle = field(default_factory=Square)


def test_kind_says_which_of_several_it_is():
    assert from_mapping(Drawing, {"shape": {"kind": "circle", "radius": 2}}) == Drawing(Circle(2))
    assert from_mapping(Drawing, {"shape": {"side": 3}}) == Drawing(Square(3))  # the first, where none is said
    given = {"kind": "circle"}
    assert from_mapping(Drawing, {"shape": given}).shape == Circle()
    assert given == {"kind": "circle"}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"kind": "cube"}, r"file.shape.kind: expected square or circle, got 'cube'"),
        ({"kind": ["circle"]}, r"file.shape.kind: expected square or circle, got \['circle'\]"),
        ({"kind": "circle", "side": 1}, r"file.shape: unknown key 'side'; did you mean 'radius'"),
        (3, r"file.shape: expected keys and values, got 3"),
    ],
)
def test_mistakes_in_one_of_several_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        from_mapping(Drawing, {"shape": shape}, "file")

# SPDX-License-Identifier: Apache-2.0
"""docs/method.md: each file and name on it exists, and no equation is left out."""

import ast
import re
from pathlib import Path

import pytest

from training.data.compositor import CompositeSettings
from training.settings import read_settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "method.md").read_text()
LINKS = re.findall(r"\]\((?!https?:)([^)]+)\)", PAGE)
# `name` in [file](path), or `name` and `name` in [file](path)
NAMES = [
    (name, path)
    for names, path in re.findall(r"(`[\w.]+`(?: and `[\w.]+`)*) in \[[\w./]+\]\(\.\./([^)]+)\)", PAGE)
    for name in re.findall(r"`([\w.]+)`", names)
]


def defined(path: Path) -> set[str]:
    """Functions, classes and their methods of a module."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_each_file_exists(link):
    assert (ROOT / "docs" / link).is_file()


@pytest.mark.parametrize(("name", "path"), sorted(set(NAMES)))
def test_each_name_is_defined_in_its_file(name, path):
    assert name in defined(ROOT / path)


def test_no_link_to_code_goes_without_a_name():
    python = [link for link in LINKS if link.endswith(".py")]
    assert len(python) > 30
    assert len({path for _, path in NAMES}) == len(set(python))


def test_every_equation_is_there():
    rows = re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE)
    assert sorted(int(number) for row in rows for number in row.split(",")) == list(range(1, 13))


def test_every_line_of_both_algorithms_is_there():
    lines = re.findall(r"^\| (.+?) \|", PAGE[PAGE.index("## Algorithm 1") : PAGE.index("## Misprints")], re.MULTILINE)
    assert lines == [
        "line",
        "---",
        "CM_0 is blank; for i = 1 to N",
        "input I and CM_(i-1); predict M_i",
        "CM_i is CM_(i-1) and the true M_i",
        "a final prediction with CM_N is blank",
        "append M_i, return the sequence",
        "line",
        "---",
        "I, N_max and Area_min are given",
        "CM_0 is blank; the sequence is empty; while i <= N_max",
        "generate K predictions",
        "mean map of those that are not null",
        "select the one nearest to it",
        "spatial integrity",
        "null or smaller than Area_min: break",
        "update CM, append, next i; return the sequence",
    ]


def test_the_figures_on_it_are_the_codes():
    settings = read_settings(ROOT / "training" / "configs" / "paper.yaml")
    assert f"| {settings.loop.steps:,}, ours |" in PAGE
    assert CompositeSettings().area_min == settings.composites.area_min == 10

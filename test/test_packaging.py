# SPDX-License-Identifier: Apache-2.0
"""The repository as two ROS packages: versions, licences, dependencies, what imports what, and that colcon builds them."""

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
# The table of docs/architecture.md: what each part may import of this repository, and of the libraries that not all need.
# A name with a dot is one file of a part.
FOR_ALL = {"files", "settings", "share"}
MAY_IMPORT = {
    "ros": "bags clouds commands.arguments messages perceiver scene rclpy rosbags",
    "commands": "bags diffusion messages perceiver runtimes scene seqamodal_ros",
    "bags": "messages scene rosbags",
    "clouds": "messages scene",
    "messages": "scene",
    "perceiver": "diffusion runtimes scene second_opinion torch",
    "second_opinion": "diffusion scene torch",
    "runtimes": "diffusion torch",
    "diffusion": "torch",
    "scene": "",
    **dict.fromkeys(FOR_ALL, ""),
    "seqamodal_ros": "perceiver scene",  # what a user imports
    "__main__": "commands",
    "training": "commands.arguments diffusion perceiver runtimes scene second_opinion seqamodal_ros torch",
    "benchmarks": "bags clouds commands diffusion messages perceiver ros runtimes scene second_opinion seqamodal_ros training "
    "rclpy rosbags torch",
    "examples": "bags clouds messages rclpy ros.signals scene",
    "launch": "ros",
}
GUARDED = {*MAY_IMPORT, "rclpy", "rosbags", "torch"}

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
    found = {name.split(".")[0] for name in imported_names(path)}
    return found - set(sys.stdlib_module_names) - {"seqamodal_ros"}


def imported_names(path: Path, root: Path = ROOT) -> set[str]:
    """Whole names of what a file imports anywhere in it, those of `from` imports with what is taken."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(root).parent.parts)
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def part_of(name: str) -> str:
    """The part of the repository, or the library, that a module belongs to; "seqamodal_ros" for what the package itself has."""
    first, _, rest = name.partition(".")
    own = rest.partition(".")[0]
    return own if first == "seqamodal_ros" and own in MAY_IMPORT else first


def wrong_imports(path: Path, root: Path = ROOT) -> list[str]:
    """What a file imports that its part may not."""
    here = path.relative_to(root)
    part = part_of(".".join(here.with_suffix("").parts))
    allowed = {part, *FOR_ALL, *MAY_IMPORT[part].split()}
    return [
        f"{here} imports {name}"
        for name in sorted(imported_names(path, root))
        if part_of(name) in GUARDED
        and part_of(name) not in allowed
        and not any(name.startswith(f"seqamodal_ros.{each}.") for each in allowed)
    ]


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


def test_parts_import_what_the_table_says():
    """Arrows go down, never up or aside."""
    folders = ("seqamodal_ros", "training", "benchmarks", "examples", "launch")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert not [wrong for path in files for wrong in wrong_imports(path)]
    parts = {path.stem for path in (ROOT / "seqamodal_ros").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__"} <= set(MAY_IMPORT), "a new part needs its line in MAY_IMPORT and in docs/architecture.md"


def test_each_part_imports_only_what_stands_below_it_in_the_page_s_table():
    rows = re.findall(r"^\| `seqamodal_ros/(\w+)", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    assert {*rows} >= {*MAY_IMPORT} - {*FOR_ALL, "seqamodal_ros", "__main__", "training", "benchmarks", "examples", "launch"}
    for above, part in enumerate(rows):
        assert not {*MAY_IMPORT[part].split()} & {*rows[:above]}, part


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("scene/new.py", "from seqamodal_ros.messages import image_rgb"),
        ("scene/new.py", "from seqamodal_ros import messages"),
        ("scene/new.py", "from ..ros.worker import Worker"),
        ("bags/new.py", "def late(): import rclpy.node"),
        ("bags/new.py", "import seqamodal_ros.commands.arguments"),
        ("ros/new.py", "from seqamodal_ros.commands.process_bag import main"),
        ("messages.py", "from seqamodal_ros import Perceiver"),
    ],
)
def test_an_arrow_the_wrong_way_is_told(tmp_path, file, line):
    path = tmp_path / "seqamodal_ros" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"from seqamodal_ros.share import share_folder\nimport numpy\n{line}\n")
    (wrong,) = wrong_imports(path, tmp_path)
    assert wrong.startswith(f"seqamodal_ros/{file} imports ")


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
    for folder in ("launch", "config", "models", "samples", "samples/depth", "seqamodal_msgs/msg"):
        shipped = {path.name for path in (ROOT / folder).glob("*.py" if folder == "launch" else "*") if path.is_file()}
        installed = (prefix / "share" / "seqamodal_ros" / folder).glob("*")
        assert {path.name for path in installed if path.is_file()} == shipped

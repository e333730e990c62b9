# SPDX-License-Identifier: Apache-2.0
"""Command lines of the executables, as real processes: help, and one line for what they cannot take."""

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")

from seqamodal_ros.ros.parameters import SPECS
from seqamodal_ros.ros.player import PARAMETERS as OF_PLAYER
from seqamodal_ros.ros.recorder import PARAMETERS as OF_RECORDER

NODES = {"perception_node": list(SPECS), "player": list(OF_PLAYER), "recorder": list(OF_RECORDER)}


def ended(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"seqamodal_ros.ros.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def told_by(name: str, words: str, count: int, *ros_arguments: str) -> list[str]:
    """The lines with these words that a process says until it ends; once it has said so many, it is interrupted."""
    command = [sys.executable, "-m", f"seqamodal_ros.ros.{name}", "--ros-args", *ros_arguments]
    lines = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            lines += [line] if words in line else []
            if len(lines) == count:
                process.send_signal(signal.SIGINT)
    return lines


@pytest.mark.parametrize("name", NODES)
def test_the_help_names_each_parameter(name):
    done = ended(name, "--help", "--ros-args", "-r", "image:=/camera")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: {name} [--ros-args -p NAME:=VALUE" in done.stdout
    listed = done.stdout.partition("parameters:\n")[2].splitlines()
    assert [line.partition(":")[0].strip() for line in listed if line[2] != " "] == NODES[name]


@pytest.mark.parametrize("name", NODES)
def test_an_argument_that_would_be_passed_over_is_refused(name):
    done = ended(name, "--model", "fast", "--ros-args", "-r", "image:=/camera")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"{name}: error: unknown: --model fast; parameters are set by --ros-args -p NAME:=VALUE (see --help)\n"
    )


@pytest.mark.parametrize("name", [*NODES, "pick_order"])
def test_where_ros_cannot_write_its_log_a_line_says_what_to_set(name, tmp_path):
    """As in a container that runs as a user without a home."""
    (tmp_path / "file").touch()
    environment = {key: value for key, value in os.environ.items() if key not in ("ROS_LOG_DIR", "ROS_HOME")}
    command = [sys.executable, "-m", f"seqamodal_ros.ros.{name}"]
    environment["HOME"] = str(tmp_path / "file")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("cannot start ROS: failed to initialize logging: ") and "set ROS_LOG_DIR, or HOME, to a folder" in line


def test_an_argument_after_those_of_ros_is_refused_too():
    done = ended("player", "--ros-args", "-p", "rate:=1.0", "--", "more")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown: more;" in done.stderr


def test_the_node_tells_the_parameters_that_there_are_not_and_no_others(tmp_path):
    file = tmp_path / "parameters.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    modell: fast\n    autostart: false\n    cameras: [a, b]\n    use_sim_time: false\n"
        "    qos_overrides: {/image: {subscription: {depth: 2}}}\n    nested: {seed: 1}\n"
    )
    lines = told_by("perception_node", "there is no parameter", 2, "--params-file", str(file))
    told = sorted(line.partition("there is no parameter ")[2].strip() for line in lines)
    assert told == ["'modell': its value is ignored; did you mean 'model'?", "'nested.seed': its value is ignored"]


def test_the_player_tells_what_it_waits_for():
    elsewhere = ["-r", "image:=/nobody_listens", "-r", "seqamodal/layered_masks:=/nobody_answers", "-p", "listeners:=2"]
    (line,) = told_by("player", "waiting", 1, *elsewhere)
    assert "waiting: 0 of 2 listen on '/nobody_listens', 0 publish '/nobody_answers'" in line


def test_a_parameter_that_there_is_not_is_told():
    unknown = ["-p", "sourc:=samples", "-p", "qos_overrides./image.publisher.depth:=2"]
    known = ["-p", "source:=/no/such", "-p", "loop:=true"]
    done = ended("player", "--ros-args", *unknown, *known)
    assert done.returncode == 1  # for the source
    assert "there is no parameter 'sourc': its value is ignored; did you mean 'source'?" in done.stderr
    assert "there is no parameter 'qos_overrides./image.publisher.depth': its value is ignored" in done.stderr
    assert done.stderr.count("there is no parameter") == 2


@pytest.mark.parametrize("name", [*NODES, "pick_order"])
def test_a_parameter_as_launch_takes_it_is_refused(name):
    done = ended(name, "model:=fast", "--ros-args", "-r", "image:=/camera")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"{name}: error: model:=fast stands alone: set parameters by `--ros-args -p NAME:=VALUE`, remap by"
    )


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        *((name, ["--bogus"], "unknown ROS arguments ['--bogus']\n") for name in (*NODES, "pick_order")),
        (
            "perception_node",
            ["--params-file", "/no/such.yaml"],
            "'--params-file /no/such.yaml'. Error: Error opening YAML file\n",
        ),
        ("perception_node", ["-p", "model"], "'-p model'"),
    ],
)
def test_what_ros_cannot_read_is_one_line(name, arguments, words):
    done = ended(name, "--ros-args", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{name}: error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [*NODES, "pick_order"])
@pytest.mark.parametrize("rule", ["__ns:=/cell/", "seqamodal:__ns:=/cell/"])
def test_a_namespace_that_ends_with_a_slash_is_one_line(name, rule):
    done = ended(name, "--ros-args", "-r", rule)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{name}: error: {rule}: a namespace must not end with '/'\n"


def test_the_root_is_a_namespace():
    done = ended("player", "--ros-args", "-r", "__ns:=/", "-p", "source:=/no/such")
    assert done.returncode == 1 and "no such file or folder" in done.stderr  # for the source


@pytest.mark.parametrize("name", [*NODES, "pick_order"])
@pytest.mark.parametrize("domain", ["abc", "1.5", "-1", "233"])
def test_a_domain_that_there_is_not_is_one_line(name, domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    done = ended(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{name}: error: ROS_DOMAIN_ID={domain} must be a whole number in 0..232\n"


@pytest.mark.parametrize(
    ("name", "argument", "code"),
    [
        ("perception_node", "use_sim_time:=3", 2),
        ("perception_node", "use_sim_time:=[]", 2),
        ("pick_order", "use_sim_time:=3", 2),
        ("recorder", "out:=[]", 1),
        ("player", "frame_id:=[]", 1),
    ],
)
def test_a_value_of_another_type_is_one_line(name, argument, code):
    done = ended(name, "--ros-args", "-p", argument)
    assert (done.returncode, done.stdout) == (code, "")
    assert f"{argument.partition(':')[0]}'" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [("cameras", "be different names"), ("region", "be x, y, width and height"), ("autostart", "be of type bool")],
)
def test_an_empty_list_is_told_as_any_other_value_that_does_not_fit(tmp_path, name, words):
    (tmp_path / "parameters.yaml").write_text(f"/**:\n  ros__parameters:\n    {name}: []\n")
    (line,) = told_by("perception_node", "cannot configure", 1, "--params-file", str(tmp_path / "parameters.yaml"))
    assert f"parameter '{name}' must {words}" in line and "not an empty list" in line

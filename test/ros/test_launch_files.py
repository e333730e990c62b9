# SPDX-License-Identifier: Apache-2.0
"""The launch files run for real, where launch_ros imports; what they name is checked without ROS in test_launch_names.py."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from rclpy.executors import SingleThreadedExecutor

from seqamodal_ros.ros.fastdds import profile_variable, with_profile
from seqamodal_ros.share import share_folder

NO_LAUNCH = "launch_ros is not installed; source a ROS that has it to run this"


@pytest.mark.parametrize(
    ("distro", "name"), [("jazzy", "FASTRTPS"), ("humble", "FASTRTPS"), ("kilted", "FASTDDS"), ("", "FASTDDS")]
)
def test_the_profile_of_fast_dds_goes_by_the_name_that_its_version_knows(monkeypatch, distro: str, name: str):
    monkeypatch.setenv("ROS_DISTRO", distro)
    assert profile_variable() == f"{name}_DEFAULT_PROFILES_FILE"


@pytest.mark.parametrize(
    "environment,expected",
    [
        ({}, {"FASTDDS_DEFAULT_PROFILES_FILE": "ours.xml"}),
        ({"ROS_DISTRO": "jazzy"}, {"FASTRTPS_DEFAULT_PROFILES_FILE": "ours.xml"}),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": ""}, {"FASTDDS_DEFAULT_PROFILES_FILE": "ours.xml"}),
        ({"FASTDDS_DEFAULT_PROFILES_FILE": "/etc/own.xml"}, {}),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"}, {}),
        ({"ROS_DISTRO": "humble", "ROS_LOCALHOST_ONLY": "1"}, {}),
        ({"ROS_DISTRO": "humble", "ROS_LOCALHOST_ONLY": "0"}, {"FASTRTPS_DEFAULT_PROFILES_FILE": "ours.xml"}),
        ({"ROS_DISTRO": "jazzy", "ROS_LOCALHOST_ONLY": "1"}, {"FASTRTPS_DEFAULT_PROFILES_FILE": "ours.xml"}),
    ],
)
def test_our_profile_is_set_where_its_user_has_not_chosen_how_messages_travel(environment, expected):
    assert with_profile(environment, "ours.xml") == expected


ENVIRONMENT_OF_THE_NODE = """
from launch import LaunchContext
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from seqamodal_ros.ros.fastdds import profile_variable
from seqamodal_ros.share import share_folder

context = LaunchContext()

def nodes(entities):
    for entity in entities:
        if type(entity).__name__ == "LifecycleNode":
            yield entity
        else:
            yield from nodes(entity.execute(context) or [])

path = str(share_folder("launch") / "perception.launch.py")
for node in nodes(get_launch_description_from_python_launch_file(path).entities):
    node._perform_substitutions(context)
    added = {context.perform_substitution(name[0]): text[0] for name, text in node.process_description.additional_env}
    text = added.get(profile_variable())
    print(context.perform_substitution(text) if text else context.environment.get(profile_variable(), "none"))
"""


@pytest.mark.parametrize(
    "given,expected",
    [
        ({}, "config/fastdds.xml"),
        ({profile_variable(): "/etc/own.xml"}, "/etc/own.xml"),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, "none"),
    ],
    ids=["neither", "profile", "transports"],
)
def test_the_launched_node_has_the_profile_or_what_its_user_has_set(given: dict[str, str], expected: str):
    """In a process of its own, as launch changes Python's logging."""
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    env = {**os.environ, **given}
    if profile_variable() not in given:
        env.pop(profile_variable(), None)
    done = subprocess.run([sys.executable, "-c", ENVIRONMENT_OF_THE_NODE], capture_output=True, text=True, timeout=60, env=env)
    (said,) = done.stdout.splitlines()
    assert said.endswith(expected), done.stderr


def service(launch_file: str, arguments: dict[str, str], within: str = "included") -> str:
    """A script that runs a launch file as `ros2 launch` does; `within` are actions, it among them."""
    return textwrap.dedent(
        f"""
        from launch import LaunchDescription, LaunchService
        from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, LogInfo, Shutdown
        from launch_ros.actions import PushRosNamespace, SetParameter, SetRemap
        from launch.launch_description_sources import AnyLaunchDescriptionSource
        from launch.substitutions import LaunchConfiguration
        source = AnyLaunchDescriptionSource({str(share_folder("launch") / launch_file)!r})
        included = IncludeLaunchDescription(source, launch_arguments={list(arguments.items())!r})
        service = LaunchService(noninteractive=True)
        service.include_launch_description(LaunchDescription([{within}]))
        raise SystemExit(service.run())
        """
    )


def test_the_demo_runs_under_launch_whatever_topics_are_asked_for(tmp_path: Path):
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    arguments = {"out": str(tmp_path), "namespace": "cell", "image": "/camera/image_raw", "autostart": "false"}
    command = [sys.executable, "-c", service("demo.launch.py", arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "layers.json").is_file()


def test_the_demo_does_not_play_what_it_would_replace(tmp_path: Path):
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    (tmp_path / ".recording").touch()
    (tmp_path / "frame_001.png").write_bytes(b"a sheet")
    command = [sys.executable, "-c", service("demo.launch.py", {"source": str(tmp_path / "frame_001.png"), "out": str(tmp_path)})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 1
    assert f"the recording in {tmp_path} would replace" in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "frame_001.png").read_bytes() == b"a sheet"


@pytest.mark.parametrize(
    "source,words", [("nowhere", "no such file or folder: nowhere"), ("/dev/video999", "cannot open the camera /dev/video999")]
)
def test_a_demo_of_what_cannot_be_played_ends_launch_with_one_clear_line(tmp_path: Path, source: str, words: str):
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    command = [sys.executable, "-c", service("demo.launch.py", {"source": source, "out": str(tmp_path / "out")})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "[INFO]" not in line]
    assert done.returncode == 1
    assert len(said) == 1 and words in said[0], said


def test_the_demo_ends_on_interrupt_without_an_error(tmp_path: Path):
    """Ctrl-C goes to launch and to all that it started, so player and recorder end while launch does, too."""
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    command = [sys.executable, "-c", service("demo.launch.py", {"out": str(tmp_path)})]
    process = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    overdue = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
    overdue.start()
    try:
        said = []
        while not said or "frame_01" not in said[-1]:  # the recorder's row of it
            said.append(process.stdout.readline())
            assert said[-1], "".join(said)
        os.killpg(process.pid, signal.SIGINT)
        said.append(process.communicate(timeout=20)[0])
    finally:
        overdue.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, "".join(said)
    assert "Caught exception" not in said[-1] and "Traceback" not in said[-1], said[-1]
    assert (tmp_path / "layers.json").is_file()


def test_perception_launch_answers_and_ends_on_interrupt(peer, eager_model: Path):
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    arguments = {"model": str(eager_model), "image": "image"}
    process = subprocess.Popen([sys.executable, "-c", service("perception.launch.py", arguments)], env=os.environ)
    try:
        executor = SingleThreadedExecutor(context=peer.context)
        executor.add_node(peer)
        until = time.monotonic() + 60
        stamp = 0
        while len(peer.masks) < 3:
            assert time.monotonic() < until, "three frames were not answered"
            stamp += 1
            peer.send(stamp)
            executor.spin_once(timeout_sec=0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()


@pytest.mark.parametrize(
    "name,value,words",
    [
        ("params_file", "nowhere.yaml", "params_file:=nowhere.yaml names no file"),
        ("autostart", "maybe", "autostart:=maybe must be true or false"),
        ("region", "100 60 440 380", "region:=100 60 440 380 must be whole numbers in brackets: region:='[100, 60, 440, 380]'"),
        ("region", "[0.5, 0, 4, 4]", "region:=[0.5, 0, 4, 4] must be whole numbers in brackets: region:='[100, 60, 440, 380]'"),
        ("use_sim_time", "2", "use_sim_time:=2 must be true or false"),
    ],
    ids=lambda value: value.split()[0],
)
def test_an_argument_that_cannot_be_used_ends_launch_with_one_clear_line(name, value, words):
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    command = [sys.executable, "-c", service("perception.launch.py", {name: value})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "[INFO]" not in line]
    assert done.returncode == 1
    assert len(said) == 1 and said[0].endswith(words), said


@pytest.mark.parametrize(
    "name,value,words",
    [("params_file", "not: [yaml", "Couldn't parse params file"), ("image", "foo bar", "'-r image:=foo bar'")],
    ids=["params_file", "image"],
)
def test_a_node_that_cannot_use_its_arguments_is_not_started_again(tmp_path: Path, name, value, words):
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    if name == "params_file":
        (tmp_path / "bad.yaml").write_text(value)
        value = str(tmp_path / "bad.yaml")
    command = [sys.executable, "-c", service("perception.launch.py", {name: value})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    said = done.stdout + done.stderr
    assert words in said and "it is started again" not in said and "Traceback" not in said, said
    assert said.count("cannot use its arguments or its params_file, as it says above: it is not started again") == 1, said


def test_arguments_reach_the_node(tmp_path: Path):
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    topics = {"image": "/a", "camera_info": "/b", "depth": "/c"}
    arguments = {"namespace": "cell", **topics, "device": "cpu", "autostart": "false", "model": "none", "use_sim_time": "true"}
    arguments["region"] = "[10, 0, 40, 40]"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-c", service("perception.launch.py", arguments)]
    process = subprocess.Popen(command, env=os.environ, text=True, **pipes)
    try:
        for line in process.stdout:
            if started := re.search(r"process started with pid \[(\d+)\]", line):
                words = Path(f"/proc/{started[1]}/cmdline").read_text().split("\0")
                break
        (file,) = [word for word in words if "launch_params" in word]
        written = Path(file).read_text().replace("!!python/tuple", "")  # how launch_ros writes a list; ROS takes it
        values = yaml.safe_load(written)
        time.sleep(1)  # launch loses an interrupt that comes while it writes a line
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    finally:
        process.kill()
    assert {"__ns:=/cell", *(f"{name}:={topic}" for name, topic in topics.items())} <= set(words)
    (node,) = values.values()
    assert node["ros__parameters"] == {
        "device": "cpu",
        "autostart": False,
        "model": "none",
        "use_sim_time": True,
        "region": [10, 0, 40, 40],
    }


def test_what_is_launched_after_it_does_not_take_its_arguments():
    """Such as the params_file of Nav2, whose launch files have arguments of the same names."""
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    within = 'included, DeclareLaunchArgument("params_file", default_value="theirs"), '
    within += 'LogInfo(msg=["params_file is ", LaunchConfiguration("params_file")]), Shutdown()'
    command = [sys.executable, "-c", service("perception.launch.py", {}, within)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert "params_file is theirs" in done.stdout, done.stdout + done.stderr


def test_a_model_that_is_not_there_is_told_in_one_clear_line_and_the_node_waits():
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    command = [sys.executable, "-c", service("perception.launch.py", {"model": "nowhere.safetensors"})]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, env=os.environ, text=True, **pipes)
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if "cannot configure" in line:
                break
        time.sleep(1)  # in which the node is not started anew; launch, too, loses an interrupt that comes while it writes a line
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=20)[0].splitlines()
    finally:
        process.kill()
    of_node = [line for line in said if line.startswith("[perception_node-")]
    assert len(of_node) == 2 and "[INFO]" in of_node[0] and "loading the model nowhere.safetensors" in of_node[0], said
    assert "nowhere.safetensors is missing" in of_node[1], said
    assert process.returncode == 0


def test_a_node_that_dies_is_started_anew_three_times(eager_model: Path):
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    arguments = {"model": str(eager_model), "image": "image"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    command = [sys.executable, "-c", service("perception.launch.py", arguments)]
    process = subprocess.Popen(command, env=os.environ, text=True, **pipes)
    deaths = 0
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            started = re.search(r"process started with pid \[(\d+)\]", line)
            if started:
                pid = int(started[1])
            if "active: " in line:
                os.kill(pid, signal.SIGKILL)
                deaths += 1
            if "it is not started again" in line:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    finally:
        process.kill()
    assert deaths == 4, "".join(said)
    assert sum("it is started again" in line for line in said) == 3


def test_a_node_that_is_started_anew_is_the_same_in_a_group_too(eager_model: Path):
    """What was pushed around the launch file is gone by then."""
    pytest.importorskip("launch_ros", reason=NO_LAUNCH)
    group = 'GroupAction([PushRosNamespace("cell"), SetParameter("num_samples", 2), SetRemap("image", "/left"), included, '
    group += 'SetParameter("num_samples", 4)])'  # behind it, so not of it
    script = service("perception.launch.py", {"model": str(eager_model), "image": "image"}, group)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen([sys.executable, "-c", script], env=os.environ, text=True, **pipes)
    said, commands = [], []
    try:
        for line in process.stdout:
            said.append(line)
            if started := re.search(r"process started with pid \[(\d+)\]", line):
                pid = int(started[1])
            if "active: " in line:
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                commands.append([word for word in words if "launch_params" not in word])
                os.kill(pid, signal.SIGKILL)
                if len(commands) == 2:
                    break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    finally:
        process.kill()
    assert "__ns:=/cell" in commands[0] and "num_samples:=2" in commands[0], "".join(said)
    assert commands[1] == commands[0]

# SPDX-License-Identifier: Apache-2.0
"""The demo of `make demo` under `ros2 launch`: player, perception node, recorder; ends when the player ends."""

import signal
from collections.abc import Callable
from typing import Any

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.events import matches_action
from launch.events.process import SignalProcess
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from seqamodal_ros.ros.demo import check_source
from seqamodal_ros.ros.fastdds import with_profile

# perception.launch.py's arguments that player and recorder do not follow: without effect here
NOT_OF_THE_DEMO = {
    **{topic: topic for topic in ("image", "camera_info", "depth")},
    **dict.fromkeys(("namespace", "image_transport", "autostart", "use_sim_time"), ""),
}


def text(argument: str) -> ParameterValue:
    """An argument as a string, whatever YAML would take it for."""
    return ParameterValue(LaunchConfiguration(argument), value_type=str)


def at_exit(action: Action) -> Callable[[Any, LaunchContext], Action | None]:
    """What follows the end of a process, unless launch is ending: told to end a second time, it raises."""
    return lambda _, context: None if context.is_shutdown else action


def checked(context: LaunchContext) -> None:
    """Refuse what cannot be played, or what the recorder would replace."""
    check_source(*(LaunchConfiguration(argument).perform(context) for argument in ("source", "out")))


def profile_set(context: LaunchContext) -> list[Action]:
    """The Fast DDS profile for the player too: shared memory is the sender's."""
    profile = PathJoinSubstitution([FindPackageShare("seqamodal_ros"), "config", "fastdds.xml"]).perform(context)
    return [SetEnvironmentVariable(name, value) for name, value in with_profile(context.environment, profile).items()]


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("seqamodal_ros")
    perception = PathJoinSubstitution([share, "launch", "perception.launch.py"])
    parameters = PathJoinSubstitution([share, "config", "demo.yaml"])
    recorder = Node(
        package="seqamodal_ros",
        executable="recorder",
        parameters=[{"out": text("out")}],
        output="screen",
        on_exit=at_exit(Shutdown()),
    )
    # the recorder ends before the node: what is on its way may be lost with whoever sent it
    end_recorder = EmitEvent(event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(recorder)))
    return LaunchDescription(
        [
            DeclareLaunchArgument("source", default_value="", description="folder, image, video or camera; empty: the samples"),
            DeclareLaunchArgument("out", default_value="demo_out", description="folder for pictures, page, layers.json and bag"),
            DeclareLaunchArgument("params_file", default_value=parameters, description="YAML file with the node's parameters"),
            OpaqueFunction(function=checked),
            OpaqueFunction(function=profile_set),
            IncludeLaunchDescription(perception, launch_arguments=NOT_OF_THE_DEMO.items()),
            recorder,
            Node(
                package="seqamodal_ros",
                executable="player",
                parameters=[{"source": text("source"), "listeners": 2}],
                output="screen",
                on_exit=at_exit(end_recorder),
            ),
        ]
    )

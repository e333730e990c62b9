# SPDX-License-Identifier: Apache-2.0
"""The demo of `make demo` under `ros2 launch`: player, perception node, recorder; ends when the player ends."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable, Shutdown
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from seqamodal_ros.ros.fastdds import profile_variable

PROFILE = profile_variable()


def text(argument: str) -> ParameterValue:
    """An argument as a string, whatever YAML would take it for."""
    return ParameterValue(LaunchConfiguration(argument), value_type=str)


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("seqamodal_ros")
    perception = PathJoinSubstitution([share, "launch", "perception.launch.py"])
    parameters = PathJoinSubstitution([share, "config", "demo.yaml"])
    profile = PathJoinSubstitution([share, "config", "fastdds.xml"])  # for the player too: the shared memory is the sender's
    return LaunchDescription(
        [
            DeclareLaunchArgument("source", default_value="", description="folder, video or camera; empty: the samples"),
            DeclareLaunchArgument("out", default_value="demo_out", description="folder for pictures, page, layers.json and bag"),
            DeclareLaunchArgument("params_file", default_value=parameters, description="YAML file with the node's parameters"),
            SetEnvironmentVariable(PROFILE, EnvironmentVariable(PROFILE, default_value=profile)),
            IncludeLaunchDescription(perception),
            Node(
                package="seqamodal_ros",
                executable="recorder",
                parameters=[{"out": text("out")}],
                output="screen",
            ),
            Node(
                package="seqamodal_ros",
                executable="player",
                parameters=[{"source": text("source"), "listeners": 2}],
                output="screen",
                on_exit=Shutdown(),
            ),
        ]
    )

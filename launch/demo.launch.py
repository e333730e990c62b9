# SPDX-License-Identifier: Apache-2.0
"""The demo of `make demo` under `ros2 launch`: player, perception node, recorder; ends when the player ends."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def text(argument: str) -> ParameterValue:
    """An argument as a string, whatever YAML would take it for."""
    return ParameterValue(LaunchConfiguration(argument), value_type=str)


def generate_launch_description() -> LaunchDescription:
    perception = PathJoinSubstitution([FindPackageShare("seqamodal_ros"), "launch", "perception.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("source", default_value="", description="folder, video or camera; empty: the samples"),
            DeclareLaunchArgument("out", default_value="demo_out", description="folder for pictures, page, layers.json and bag"),
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

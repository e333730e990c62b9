# SPDX-License-Identifier: Apache-2.0
"""The demo of `make demo` under `ros2 launch`: player, perception node, recorder; ends when the player ends."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    perception = PathJoinSubstitution([FindPackageShare("seqamodal_ros"), "launch", "perception.launch.py"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("source", default_value="", description="folder of images; empty for the sample frames"),
            DeclareLaunchArgument("out", default_value="demo_out", description="folder for pictures, layers.json and the bag"),
            IncludeLaunchDescription(perception),
            Node(
                package="seqamodal_ros",
                executable="recorder",
                parameters=[{"out": LaunchConfiguration("out")}],
                output="screen",
            ),
            Node(
                package="seqamodal_ros",
                executable="player",
                parameters=[{"source": LaunchConfiguration("source")}],
                output="screen",
                on_exit=Shutdown(),
            ),
        ]
    )

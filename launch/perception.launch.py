# SPDX-License-Identifier: Apache-2.0
"""Starts the perception node on a camera: `ros2 launch seqamodal_ros perception.launch.py image:=/camera/image_raw`."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

CONFIG = PathJoinSubstitution([FindPackageShare("seqamodal_ros"), "config"])
OVERRIDES = {
    "model": "a name in models/manifest.yaml, or the path of a .safetensors file",
    "device": "auto, cpu or cuda",
    "autostart": "configure and activate at start: true or false",
}


def perception_node(context: LaunchContext) -> list[LifecycleNode]:
    """The node; an argument left empty does not override the parameter file."""
    given = {name: LaunchConfiguration(name).perform(context) for name in OVERRIDES}
    overrides = {
        name: ParameterValue(value, value_type=bool if name == "autostart" else str) for name, value in given.items() if value
    }
    return [
        LifecycleNode(
            package="seqamodal_ros",
            executable="perception_node",
            name="seqamodal",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), *([overrides] if overrides else [])],
            remappings=[("image", LaunchConfiguration("image"))],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Arguments, the Fast DDS profile, the node."""
    profile = "FASTDDS_DEFAULT_PROFILES_FILE"
    return LaunchDescription(
        [
            DeclareLaunchArgument("image", default_value="image", description="topic of the camera's images"),
            DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([CONFIG, "perception.yaml"]),
                description="YAML file with the node's parameters",
            ),
            *(
                DeclareLaunchArgument(name, default_value="", description=f"{text} (empty: as the file says)")
                for name, text in OVERRIDES.items()
            ),
            # whole frames fit into this profile's shared memory; a profile that the user has set stays
            SetEnvironmentVariable(
                profile, EnvironmentVariable(profile, default_value=PathJoinSubstitution([CONFIG, "fastdds.xml"]))
            ),
            OpaqueFunction(function=perception_node),
        ]
    )

# SPDX-License-Identifier: Apache-2.0
"""Starts the perception node on a camera: `ros2 launch seqamodal_ros perception.launch.py image:=/camera/image_raw`."""

import time
from collections.abc import Callable
from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from seqamodal_ros.ros.fastdds import profile_variable

RESTARTS, PERIOD = 3, 3600.0  # a node that died is started anew so many times within so many seconds
PAUSE = 1.0  # seconds before it is
TOPICS = {
    "image": "topic of the camera's images; with image_transport compressed, of the raw ones beside them",
    "camera_info": "topic of the camera's calibration, for clouds",
    "depth": "topic of the depth images, registered to the image, for clouds",
}
PROFILE = profile_variable()
CONFIG = PathJoinSubstitution([FindPackageShare("seqamodal_ros"), "config"])
OVERRIDES = {
    "model": "a name in models/manifest.yaml, or the path of a .safetensors file",
    "device": "auto, cpu or cuda",
    "image_transport": "raw or compressed",
    "autostart": "configure and activate at start: true or false",
}


def perception_node(context: LaunchContext) -> list[Action]:
    """The node, kept alive; an argument left empty does not override the parameter file.

    Raises:
        FileNotFoundError: params_file names no file; ROS would say so in a traceback of the node's.
        ValueError: autostart is neither true nor false.
    """
    params_file = Path(LaunchConfiguration("params_file").perform(context)).expanduser()
    if not params_file.is_file():
        raise FileNotFoundError(f"params_file:={params_file} names no file")
    given = {name: LaunchConfiguration(name).perform(context) for name in OVERRIDES}
    overrides: dict[str, ParameterValue | bool] = {
        name: ParameterValue(value, value_type=str) for name, value in given.items() if value
    }
    if autostart := given["autostart"].lower():
        if autostart not in ("true", "false"):
            raise ValueError(f"autostart:={autostart} must be true or false")
        overrides["autostart"] = autostart == "true"
    # whole frames fit into this profile's shared memory; a profile that the user has set stays
    profile = context.environment.get(PROFILE) or PathJoinSubstitution([CONFIG, "fastdds.xml"]).perform(context)
    # all of it as it is now: a node that is started again must not be another one, whatever was launched since
    started = {
        "namespace": LaunchConfiguration("namespace").perform(context),
        "parameters": [str(params_file), *([overrides] if overrides else [])],
        "remappings": [(topic, LaunchConfiguration(topic).perform(context)) for topic in TOPICS],
        "additional_env": {PROFILE: profile},
    }
    return kept_alive(
        lambda: LifecycleNode(
            package="seqamodal_ros", executable="perception_node", name="seqamodal", output="screen", **started
        ),
        [],
    )


def kept_alive(make: Callable[[], LifecycleNode], deaths: list[float]) -> list[Action]:
    """A node, and what starts it anew where it died: its watchdog ended it, its GPU was lost, or it ran out of memory.

    Args:
        make: makes the action that starts the node; an action starts one process.
        deaths: when earlier ones died, seconds; a node that dies again and again is left for a person to look at.
    """
    node = make()

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if event.returncode == 0 or context.is_shutdown:
            return []
        recent = [*(death for death in deaths if time.monotonic() - death < PERIOD), time.monotonic()]
        died = f"{event.process_name} died with {event.returncode}"
        if len(recent) > RESTARTS:
            return [LogInfo(msg=f"{died}, for the {len(recent)}th time within an hour: it is not started again")]
        said = LogInfo(msg=f"{died}: it is started again, {len(recent)} of {RESTARTS}")
        return [said, TimerAction(period=PAUSE, actions=kept_alive(make, recent))]

    return [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit)), node]


def generate_launch_description() -> LaunchDescription:
    """Arguments and the node, with a Fast DDS profile of its own."""
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(topic, default_value=topic, description=text) for topic, text in TOPICS.items()),
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
            OpaqueFunction(function=perception_node),
        ]
    )

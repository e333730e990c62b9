# SPDX-License-Identifier: Apache-2.0
"""Starts the perception node on a camera: `ros2 launch seqamodal_ros perception.launch.py image:=/camera/image_raw`."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
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

from seqamodal_ros.ros.fastdds import with_profile

RESTARTS, PERIOD = 3, 3600.0  # a node that died is started anew so many times within so many seconds
PAUSE = 1.0  # seconds before it is
UNUSABLE = 2  # exit code of a node that cannot use its arguments: it could not the next time either
TOPICS = {
    "image": "topic of the camera's images; with image_transport compressed, of the raw ones beside them",
    "camera_info": "topic of the camera's calibration, for clouds",
    "depth": "topic of the depth images, registered to the image, for clouds",
}
CONFIG = PathJoinSubstitution([FindPackageShare("seqamodal_ros"), "config"])
OVERRIDES = {
    "model": "a name in models/manifest.yaml, or the path of a .safetensors file",
    "device": "auto, cpu or cuda",
    "image_transport": "raw or compressed",
}
REGION = {"region": "x, y, width, height of the part of the image to look at, pixels, for each camera: [100, 60, 440, 380]"}
SWITCHES = {
    "autostart": "configure and activate at start: true or false",
    "use_sim_time": "take the time from /clock, as with a bag or a simulator: true or false",
}


def perception_node(context: LaunchContext) -> list[Action]:
    """The node, kept alive; an argument left empty does not override the parameter file.

    Raises:
        FileNotFoundError: params_file names no file; ROS would say so in a traceback of the node's.
        ValueError: autostart or use_sim_time is neither true nor false, or region no list of whole numbers.
    """
    params_file = Path(LaunchConfiguration("params_file").perform(context)).expanduser()
    if not params_file.is_file():
        raise FileNotFoundError(f"params_file:={params_file} names no file")
    given = {name: LaunchConfiguration(name).perform(context) for name in (*OVERRIDES, *REGION, *SWITCHES)}
    overrides: dict[str, ParameterValue | bool | list[int]] = {
        name: ParameterValue(given[name], value_type=str) for name in OVERRIDES if given[name]
    }
    for name in SWITCHES:
        if value := given[name].lower():
            if value not in ("true", "false"):
                raise ValueError(f"{name}:={value} must be true or false")
            overrides[name] = value == "true"
    if region := given["region"]:
        overrides["region"] = _whole_numbers("region", region)
    profile = PathJoinSubstitution([CONFIG, "fastdds.xml"]).perform(context)  # whole frames fit into its shared memory
    # all of it as it is now: a node that is started again must not be another one, whatever was launched since
    started = {
        "namespace": LaunchConfiguration("namespace").perform(context),
        "parameters": [str(params_file), *([overrides] if overrides else [])],
        "remappings": [(topic, LaunchConfiguration(topic).perform(context)) for topic in TOPICS],
        "additional_env": with_profile(context.environment, profile),
    }
    # the groups around this file are left by then, and what they pushed is gone: namespaces, SetParameter, SetRemap
    configurations, environment = _copied(context.launch_configurations), dict(context.environment)

    def make(context: LaunchContext) -> LifecycleNode:
        context.launch_configurations.clear()
        context.launch_configurations.update(_copied(configurations))
        context.environment.clear()
        context.environment.update(environment)
        return LifecycleNode(package="seqamodal_ros", executable="perception_node", name="seqamodal", output="screen", **started)

    return kept_alive(context, make, [])


def _whole_numbers(name: str, text: str) -> list[int]:
    with suppress(ValueError):
        if isinstance(found := json.loads(text), list) and found and all(type(each) is int for each in found):
            return found
    raise ValueError(f"{name}:={text} must be whole numbers in brackets: {name}:='[100, 60, 440, 380]'")


def _copied(configurations: dict[str, Any]) -> dict[str, Any]:
    """A copy that stays as it is: SetParameter and SetRemap of launch_ros add to lists in place."""
    return {name: list(value) if isinstance(value, list) else value for name, value in configurations.items()}


def kept_alive(context: LaunchContext, make: Callable[[LaunchContext], LifecycleNode], deaths: list[float]) -> list[Action]:
    """A node, and what starts it anew where it died: its watchdog ended it, its GPU was lost, or it ran out of memory.

    Where it cannot use its arguments it is left, as is what was launched beside it.

    Args:
        context: in which the node is started.
        make: makes the action that starts the node, and the context as it was at first; an action starts one process.
        deaths: when earlier ones died, seconds; a node that dies again and again is left for a person to look at.
    """
    node = make(context)

    def on_exit(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if event.returncode == 0 or context.is_shutdown:
            return []
        if event.returncode == UNUSABLE:
            unusable = "cannot use its arguments or its params_file, as it says above: it is not started again"
            return [LogInfo(msg=f"{event.process_name} {unusable}")]
        recent = [*(death for death in deaths if time.monotonic() - death < PERIOD), time.monotonic()]
        died = f"{event.process_name} died with {event.returncode}"
        if len(recent) > RESTARTS:
            return [LogInfo(msg=f"{died}, for the {len(recent)}th time within an hour: it is not started again")]
        said = LogInfo(msg=f"{died}: it is started again, {len(recent)} of {RESTARTS}")
        again = OpaqueFunction(function=lambda context: kept_alive(context, make, recent))
        return [said, TimerAction(period=PAUSE, actions=[GroupAction([again])])]  # which leaves the context as it is now

    return [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit)), node]


def generate_launch_description() -> LaunchDescription:
    """Arguments and the node, in a group: else what is launched after it would take its defaults, such as `params_file`."""
    arguments = [
        *(DeclareLaunchArgument(topic, default_value=topic, description=text) for topic, text in TOPICS.items()),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([CONFIG, "perception.yaml"]),
            description="YAML file with the node's parameters",
        ),
        *(
            DeclareLaunchArgument(name, default_value="", description=f"{text} (empty: as the file says)")
            for name, text in (OVERRIDES | REGION | SWITCHES).items()
        ),
    ]
    return LaunchDescription([GroupAction([*arguments, OpaqueFunction(function=perception_node)])])

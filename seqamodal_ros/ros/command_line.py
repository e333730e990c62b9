# SPDX-License-Identifier: Apache-2.0
"""The command lines of executables that take ROS arguments: what is wrong with them is said in one line, not passed over."""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, ParameterUninitializedException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.utilities import remove_ros_args

Described = Mapping[str, tuple[Any, str]]  # name of a parameter -> its default, and what it means

# what rclpy raises of a value of another type, or an empty list; of ROS's own parameters, such as use_sim_time, too
WRONG_VALUES = (InvalidParameterTypeException, ParameterUninitializedException)
UNUSABLE = 2  # exit code where arguments cannot be used: they could not the next time either
LARGEST_DOMAIN = 232  # of DDS, as its ports follow from it
SET, REMAP = "--ros-args -p NAME:=VALUE", "--ros-args -r FROM:=TO"


def own_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """Of a process's arguments, those that are not ROS's; where ROS cannot read its own, the process ends with a line and 2.

    So it does where NAME:=VALUE stands outside of `--ros-args`: `ros2 launch` takes it for an argument of its own, ROS for a
    remapping in the old way, and neither sets a parameter. The namespace and ROS_DOMAIN_ID are looked at, too, as ROS raises
    for these where a node is made, or takes "1.5" for 1.
    """
    for_ros = False
    for argument in argv[1:]:
        if argument == "--ros-args" or (for_ros and argument == "--"):
            for_ros = argument == "--ros-args"
        elif not for_ros and ":=" in argument:
            _refuse(parser, f"{argument} stands alone: set parameters by `{SET}`, remap by `{REMAP}`")
        elif for_ros and "__ns:=/" in argument and argument.endswith("/") and not argument.endswith(":=/"):
            _refuse(parser, f"{argument}: a namespace must not end with '/'")
    domain = os.environ.get("ROS_DOMAIN_ID", "")
    if domain and not (domain.isdecimal() and int(domain) <= LARGEST_DOMAIN):
        _refuse(parser, f"ROS_DOMAIN_ID={domain} must be a whole number in 0..{LARGEST_DOMAIN}")
    try:
        return remove_ros_args(list(argv))[1:]
    except RuntimeError as error:  # rclpy has no public name for its kinds
        wrong = str(error).partition(", at ")[0]  # what follows are places in its sources
        _refuse(parser, f"{'unknown ROS arguments ' * wrong.startswith('[')}{wrong}")


def only_ros_arguments(name: str, about: str, parameters: Mapping[str, str]) -> None:
    """Of an executable whose settings are ROS parameters, the help; another argument that is not ROS's ends it with a line and 2.

    ROS would pass over it in silence, and `perception_node --model fast` run another model.

    Args:
        name: of the executable.
        about: what it does; its first line is shown.
        parameters: name -> what it means.
    """
    listed = [textwrap.fill(f"{key}: {meaning}", 100, subsequent_indent="      ") for key, meaning in parameters.items()]
    parser = argparse.ArgumentParser(
        prog=name,
        usage=f"{name} [{SET} ...] [--ros-args --params-file FILE] [{REMAP} ...]",
        description=about.partition("\n")[0],
        epilog="\n  ".join(["parameters:", *listed]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _, strays = parser.parse_known_args(own_arguments(parser, sys.argv))
    if strays:
        _refuse(parser, f"unknown: {' '.join(strays)}; parameters are set by {SET} (see --help)")


def _refuse(parser: argparse.ArgumentParser, wrong: str) -> NoReturn:
    parser.exit(UNUSABLE, f"{parser.prog}: error: {wrong}\n")  # without the usage that `error` would say above it


def declared(node: Node, parameters: Described, name: str, dynamic_typing: bool = False) -> Any:
    """Declare one of a node's parameters; returns its value.

    Raises:
        InvalidParameterTypeException: it was given one of another type, or an empty list, which rclpy takes for no value.
    """
    default, meaning = parameters[name]
    descriptor = ParameterDescriptor(description=meaning, dynamic_typing=dynamic_typing)
    found = node.declare_parameter(name, default, descriptor)
    if found.value is None:
        raise InvalidParameterTypeException(found, Parameter.Type.from_parameter_value(default).name)
    return found.value


def with_defaults(parameters: Described) -> dict[str, str]:
    """What each parameter means, by its name, and its default, in words."""
    return {name: f"{meaning} Default: {json.dumps(default)}." for name, (default, meaning) in parameters.items()}


def warn_of_unknown_parameters(node: Node, of_topics: bool | None = None) -> None:
    """Log a line for each parameter that was set and is none of a node's, as ROS says nothing; call it once all are declared.

    Those of `qos_overrides` are declared with topics that take them. `of_topics` looks at these alone (True), at all others
    (False), or at all (None).
    """
    known = list(node.get_parameters_by_prefix(""))
    for name in node._parameter_overrides:  # rclpy has no public way to ask for them
        if name not in known and of_topics in (None, name.startswith("qos_overrides.")):
            nearest = get_close_matches(name, known, 1)
            hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
            node.get_logger().warning(f"there is no parameter '{name}': its value is ignored{hint}")

# SPDX-License-Identifier: Apache-2.0
"""The command lines of executables that take ROS arguments: what is wrong with them is said in one line, not passed over."""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from rclpy.node import Node
from rclpy.utilities import remove_ros_args

SET = "--ros-args -p NAME:=VALUE"


def own_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """Of a process's arguments, those that are not ROS's; where ROS cannot read its own, the process ends with a line and 2.

    So it does where NAME:=VALUE stands outside of `--ros-args`, as `ros2 launch` takes it: ROS would drop it as an old remapping.
    """
    for_ros = False
    for argument in argv[1:]:
        if argument == "--ros-args" or (for_ros and argument == "--"):
            for_ros = argument == "--ros-args"
        elif not for_ros and ":=" in argument:
            parser.exit(2, f"{parser.prog}: error: {argument} says nothing by itself; parameters are set by {SET} (see --help)\n")
    try:
        return remove_ros_args(list(argv))[1:]
    except RuntimeError as error:  # rclpy has no public name for its kinds
        wrong = str(error).partition(", at ")[0]  # what follows are places in its sources
        parser.exit(2, f"{parser.prog}: error: {'unknown ROS arguments ' * wrong.startswith('[')}{wrong}\n")


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
        usage=f"{name} [{SET} ...] [--ros-args --params-file FILE] [--ros-args -r FROM:=TO ...]",
        description=about.partition("\n")[0],
        epilog="\n  ".join(["parameters:", *listed]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _, strays = parser.parse_known_args(own_arguments(parser, sys.argv))
    if strays:
        parser.exit(2, f"{name}: error: unknown: {' '.join(strays)}; parameters are set by {SET} (see --help)\n")


def warn_of_unknown_parameters(node: Node) -> None:
    """Log a line for each parameter that was set and is none of a node's, as ROS says nothing; call it once all are declared."""
    known = node.list_parameters([], 0).names
    for name in node._parameter_overrides:  # rclpy has no public way to ask for them
        if name not in known and not name.startswith("qos_overrides."):  # these are declared with their topics
            nearest = get_close_matches(name, known, 1)
            hint = f"; do you mean '{nearest[0]}'?" if nearest else ""
            node.get_logger().warning(f"there is no parameter '{name}', what it was set to is passed over{hint}")

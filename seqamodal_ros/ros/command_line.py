# SPDX-License-Identifier: Apache-2.0
"""The command lines of executables that take ROS arguments: what is wrong with them is one line, none is passed over."""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence

from rclpy.utilities import remove_ros_args

SET = "--ros-args -p NAME:=VALUE"


def own_arguments(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """Of a process's arguments, those that are not ROS's; where ROS cannot read its own, the process ends with a line and 2."""
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

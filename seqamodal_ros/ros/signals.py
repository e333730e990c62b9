# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM, heard until the process is gone: rclpy's own handlers raise wherever the program is, and go before it."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_came: list[int] = []  # signals so far
_raising = False  # whether the next one ends what is at work


class Signalled(BaseException):
    """A signal came within `ending_at_once`."""


@contextmanager
def ending_at_once() -> Iterator[None]:
    """A signal within it, or before, raises `Signalled` in the main thread: for what takes long and cannot be asked to stop.

    Elsewhere it is heard when the program next looks. Without `until_signalled` around it, it changes nothing.
    """
    global _raising
    _raising = True
    try:
        if _came:
            raise Signalled
        yield
    finally:
        _raising = False


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within `ending_at_once`, a signal is heard once this ends: where one raises in the midst of rclpy's work, rclpy may tell of
    an error of its own instead, of a message that it cannot convert, say.
    """
    global _raising
    before, _raising = _raising, False
    try:
        yield
    finally:
        _raising = before
    if _raising and _came:
        _raising = False
        raise Signalled


@contextmanager
def until_signalled(arguments: list[str] | None = None) -> Iterator[list[int]]:
    """rclpy between its start and its end; what is yielded holds the signals that came so far, and says when to stop.

    Both are ignored from the end on: this is for the main function of a process.

    Args:
        arguments: those of the command line, as `rclpy.init` takes them.

    Raises:
        SystemExit: ROS cannot start, with a line that says why.
    """
    global _came
    _came = came = []

    def hear(received: int, _: Any) -> None:
        global _raising
        came.append(received)
        if _raising:
            _raising = False  # a second one must not disturb what the first ends
            raise Signalled

    for number in SIGNALS:
        signal.signal(number, hear)
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # rclpy has no public name for its kind; arguments were looked at before
        wrong = str(error).partition(", at ")[0]  # what follows are places in its sources
        remedy = "; for its logs set ROS_LOG_DIR, or HOME, to a folder that can be written" if "logging" in wrong else ""
        sys.exit(f"cannot start ROS: {wrong}{remedy}")
    try:
        yield came
    finally:
        _came = []
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # one is enough, also while Python goes: a launch repeats the terminal's Ctrl-C
        rclpy.try_shutdown()

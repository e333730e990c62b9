# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM, heard until the process is gone: rclpy's own handlers raise wherever the program is, and go before it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.signals import SignalHandlerOptions

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def until_signalled(arguments: list[str] | None = None) -> Iterator[list[int]]:
    """rclpy between its start and its end; what is yielded holds the signals that came so far, and says when to stop.

    Both are ignored from the end on: this is for the main function of a process.

    Args:
        arguments: those of the command line, as `rclpy.init` takes them.
    """
    came: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda received, _: came.append(received))
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield came
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # one is enough, also while Python goes: a launch repeats the terminal's Ctrl-C
        rclpy.try_shutdown()

# SPDX-License-Identifier: Apache-2.0
"""What the library warns of, to a node's log, and so to /rosout: it knows no ROS and says it to Python's logging."""

import logging
from collections.abc import Callable
from typing import Any

LIBRARY = "seqamodal_ros"


class _Handler(logging.Handler):
    def __init__(self, logger: Any):
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:  # rclpy wants one severity of each line of code
            self._logger.error(self.format(record))
        else:
            self._logger.warning(self.format(record))


def to_ros(logger: Any) -> Callable[[], None]:
    """Pass the library's warnings and errors on to a node's logger; what is returned ends that."""
    handler = _Handler(logger)
    logging.getLogger(LIBRARY).addHandler(handler)
    return lambda: logging.getLogger(LIBRARY).removeHandler(handler)

# SPDX-License-Identifier: Apache-2.0
"""What the node tells `/diagnostics`, once a second."""

from dataclasses import dataclass, fields

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue


@dataclass
class Counters:
    """Frames since the node was configured; one that was cancelled by a transition is received, and nothing else.

    Attributes:
        received: image messages.
        answered: layered masks published.
        superseded: valid frames that a newer one replaced before they were begun.
        rejected: messages that could not be used.
        failed: frames whose inference raised an error.
        without_points: answers that someone wanted a cloud of, and whose depth image or camera_info did not fit.
    """

    received: int = 0
    answered: int = 0
    superseded: int = 0
    rejected: int = 0
    failed: int = 0
    without_points: int = 0


def diagnostics(stamp: Time, name: str, state: str, problem: str, counters: Counters, details: dict[str, str]) -> DiagnosticArray:
    """OK, or WARN with `problem`, the latest thing that went wrong since the last report; counters and details follow."""
    status = DiagnosticStatus(name=name, hardware_id="", message=problem or state)
    status.level = DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
    values = {field.name: str(getattr(counters, field.name)) for field in fields(counters)}
    status.values = [KeyValue(key=key, value=value) for key, value in {"state": state, **values, **details}.items()]
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message

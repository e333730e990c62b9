# SPDX-License-Identifier: Apache-2.0
"""A look at what the services of a node's parameters are asked: rclpy raises for some of it, and whoever spins the node ends."""

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter

TYPES = {kind.value for kind in Parameter.Type}


def refuse_unknown_types(node: Node) -> None:
    """Have the services that set a node's parameters refuse requests with a value of a type that does not exist, as a whole."""
    for service in node.services:
        if service.srv_type in (SetParameters, SetParametersAtomically):
            service.callback = _of_known_types(service.callback)


def _of_known_types(callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def answer(request: Any, response: Any) -> Any:
        strange = [each for each in request.parameters if each.value.type not in TYPES]
        if not strange:
            return callback(request, response)
        reason = (
            f"parameter '{strange[0].name}' has a value of type {strange[0].value.type}, which does not exist: nothing was set"
        )
        refused = SetParametersResult(successful=False, reason=reason)
        if isinstance(request, SetParameters.Request):
            response.results = [refused for _ in request.parameters]
        else:
            response.result = refused
        return response

    return answer

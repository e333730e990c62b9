# SPDX-License-Identifier: Apache-2.0
"""A look at what a node's parameter and lifecycle services are asked: rclpy raises for some of it, and whoever spins it ends."""

from collections.abc import Callable
from typing import Any

from lifecycle_msgs.srv import ChangeState
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


def refuse_unfit_transitions(node: Node) -> None:
    """Have a lifecycle node refuse a transition that does not fit its state, as rclpy itself does since Kilted."""
    for service in node.services:
        if service.srv_type is ChangeState:
            service.callback = _that_fits(service.callback, node)


def _that_fits(callback: Callable[[Any, Any], Any], node: Node) -> Callable[[Any, Any], Any]:
    def answer(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except RuntimeError as error:  # RCLError is one; what a transition itself raises does not come this far
            node.get_logger().error(f"refused transition {request.transition.label or request.transition.id}: {error}")
            response.success = False
            return response

    return answer


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

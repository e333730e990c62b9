# SPDX-License-Identifier: Apache-2.0
"""What quality of service keeps from a subscription: publishers that it does not go together with, and lost messages."""

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSDurabilityPolicy, qos_check_compatible
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError


def publishers_of(node: Node, subscription: Subscription) -> tuple[int, list[str]]:
    """How many publish a subscription's topic, and for each of those that it cannot hear a line that says why."""
    publishers = node.get_publishers_info_by_topic(subscription.topic)  # which remaps it, as the subscription did
    refused = []
    for each in publishers:
        fits, why = qos_check_compatible(each.qos_profile, subscription.qos_profile)
        if fits == QoSCompatibility.ERROR:
            why = why.replace("ERROR: ", "").strip(";")
            refused.append(f"the QoS of {each.node_name} on {subscription.topic_name} is incompatible with this node's: {why}")
    return len(publishers), refused


def sent_before(node: Node, subscription: Subscription) -> list[str]:
    """Of each publisher that keeps its messages for late subscribers, where this one takes none, a line that says what to do."""
    if subscription.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL:
        return []
    topic = subscription.topic_name
    publishers = node.get_publishers_info_by_topic(subscription.topic)
    kept = [each.node_name for each in publishers if each.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL]
    to_set = f"set qos_overrides.{topic}.subscription.durability to transient_local, and its .reliability to reliable"
    return [f"{name} may have sent it before this node listened: {to_set}" for name in kept]


def subscribe_counting_lost(node: Node, lost: Callable[[int], None], *arguments: Any, **options: Any) -> Subscription:
    """`node.create_subscription`; `lost` is told how many more messages the middleware has lost, where it says so."""
    callbacks = SubscriptionEventCallbacks(message_lost=lambda event: lost(event.total_count_change))
    try:
        return node.create_subscription(*arguments, event_callbacks=callbacks, **options)
    except UnsupportedEventTypeError:
        return node.create_subscription(*arguments, **options)

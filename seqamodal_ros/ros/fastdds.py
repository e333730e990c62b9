# SPDX-License-Identifier: Apache-2.0
"""Where Fast DDS looks for its profile, config/fastdds.xml."""

import os
from collections.abc import Mapping

OF_FAST_DDS_2 = ("humble", "jazzy")


def profile_variable(environment: Mapping[str, str] = os.environ) -> str:
    """The environment variable that names it, on the ROS that is sourced; Fast DDS 2 does not know the name that 3 asks for."""
    return f"{'FASTRTPS' if environment.get('ROS_DISTRO') in OF_FAST_DDS_2 else 'FASTDDS'}_DEFAULT_PROFILES_FILE"


def with_profile(environment: Mapping[str, str], profile: str) -> dict[str, str]:
    """What to set in an environment so that a profile is used; nothing where its user has chosen how messages travel.

    A profile has transports of its own in place of those that were chosen; on Humble the network among them, as its rmw adds the
    loopback to a profile's.
    """
    variable = profile_variable(environment)
    chosen = environment.get(variable) or environment.get("FASTDDS_BUILTIN_TRANSPORTS")
    on_loopback = environment.get("ROS_DISTRO") == "humble" and environment.get("ROS_LOCALHOST_ONLY") == "1"
    return {} if chosen or on_loopback else {variable: profile}

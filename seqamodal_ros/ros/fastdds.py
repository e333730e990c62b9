# SPDX-License-Identifier: Apache-2.0
"""Where Fast DDS looks for its profile, config/fastdds.xml."""

import os

OF_FAST_DDS_2 = ("humble", "jazzy")


def profile_variable() -> str:
    """The environment variable that names it, on the ROS that is sourced; Fast DDS 2 does not know the name that 3 asks for."""
    return f"{'FASTRTPS' if os.environ.get('ROS_DISTRO') in OF_FAST_DDS_2 else 'FASTDDS'}_DEFAULT_PROFILES_FILE"

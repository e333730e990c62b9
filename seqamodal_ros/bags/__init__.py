# SPDX-License-Identifier: Apache-2.0
"""Recorded bags: read, copied with layered masks added, and the work resumed. No ROS; by the library rosbags."""

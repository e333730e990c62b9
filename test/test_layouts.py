# SPDX-License-Identifier: Apache-2.0
"""Layouts can be read, and name topics that the node has."""

import json
import re

import yaml

from seqamodal_ros.share import share_folder

CONFIG = share_folder("config")
OUT = {"layered_masks", "label", "overlay", "points"}


def test_rviz_shows_topics_of_the_node():
    layout = yaml.safe_load((CONFIG / "seqamodal.rviz").read_text())
    topics = [display["Topic"]["Value"] for display in layout["Visualization Manager"]["Displays"]]
    assert {topic.removeprefix("/seqamodal/") for topic in topics} == OUT - {"layered_masks"}


def test_foxglove_shows_topics_of_the_node_and_every_panel_has_a_place():
    text = (CONFIG / "foxglove.json").read_text()
    layout = json.loads(text)
    assert set(re.findall(r"/seqamodal/(\w+)", text)) <= OUT
    assert set(re.findall(r'"(\w+!\w+)"', json.dumps(layout["layout"]))) == set(layout["configById"])

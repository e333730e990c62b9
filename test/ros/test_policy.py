# SPDX-License-Identifier: Apache-2.0
"""The SROS2 policy names what a running node publishes, hears and serves, and nothing else."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

POLICY = Path(__file__).resolve().parents[2] / "config" / "sros2_policy.xml"
CAMERA = {"image": "image_raw", "image/compressed": "image_raw/compressed", "camera_info": "camera_info", "depth": "depth"}


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_the_policy_is_what_the_node_does(bench, transport):
    profile = ElementTree.parse(POLICY).find("enclaves/enclave/profiles/profile")

    remaps = [part for name, remapped in CAMERA.items() for part in ("-r", f"{name}:=/camera/{remapped}")]
    name = f"of_{transport}_images"  # one of its own: the graph remembers the node of another test for a while
    b = bench(cli_args=["--ros-args", "-r", f"__node:={name}", *remaps], image_transport=transport, use_sim_time=True)

    def allowed(kind: str) -> set[str]:
        return {each.text.replace("~", f"/{name}") for each in profile.find(kind)}

    def names(kind: str) -> set[str]:
        return {each for each, _ in getattr(b.node, f"get_{kind}_names_and_types_by_node")(name, "/")}

    other = CAMERA["image/compressed" if transport == "raw" else "image"]
    assert names("publisher") == allowed("topics[@publish]")
    assert names("subscriber") == allowed("topics[@subscribe]") - {f"/camera/{other}"}
    assert names("service") == allowed("services[@reply]")
    assert not names("client")

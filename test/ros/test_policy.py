# SPDX-License-Identifier: Apache-2.0
"""The SROS2 policy names what a running node publishes, hears and serves, and nothing else."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

POLICY = Path(__file__).resolve().parents[2] / "config" / "sros2_policy.xml"
REMAPS = ["image:=/camera/image_raw", "camera_info:=/camera/camera_info", "depth:=/camera/depth"]  # as docs/security.md has them
OTHER = {"raw": "/camera/image_raw/compressed", "compressed": "/camera/image_raw"}  # what it hears with the other transport


@pytest.mark.parametrize("transport", OTHER)
def test_the_policy_is_what_the_node_does(bench, transport):
    (enclave,) = ElementTree.parse(POLICY).findall("enclaves/enclave")
    (profile,) = enclave.findall("profiles/profile")
    assert (enclave.attrib, profile.attrib) == ({"path": "/seqamodal"}, {"ns": "/", "node": "seqamodal"})
    heard, published, served = profile
    whats = [(part.tag, part.attrib) for part in profile]
    assert whats == [("topics", {"subscribe": "ALLOW"}), ("topics", {"publish": "ALLOW"}), ("services", {"reply": "ALLOW"})]

    name = f"of_{transport}_images"  # one of its own: the graph remembers the node of another test for a while
    remaps = [part for remap in (f"__node:={name}", *REMAPS) for part in ("-r", remap)]
    b = bench(cli_args=["--ros-args", *remaps], image_transport=transport, use_sim_time=True)

    def allowed(part: ElementTree.Element, *others: str) -> set[str]:
        return {each.text.replace("~", f"/{name}") for each in part} - set(others)

    def does(kind: str) -> set[str]:
        return {each for each, _ in getattr(b.node, f"get_{kind}_names_and_types_by_node")(name, "/")}

    b.wait(lambda: does("publisher") == allowed(published))
    assert does("publisher") == allowed(published)
    assert does("subscriber") == allowed(heard, OTHER[transport])
    assert does("service") | {f"/{name}/get_type_description"} == allowed(served)  # which Humble's nodes do not have
    assert not does("client")

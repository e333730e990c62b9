# SPDX-License-Identifier: Apache-2.0
"""Finds the files shipped beside the code, models/ and samples/ among them, in a checkout, a colcon install or a pip install."""

from pathlib import Path


def share_folder(name: str) -> Path:
    """The folder `name` ("models", "samples", "config", "launch", "seqamodal_msgs") of this installation.

    In a checkout it lies beside the package; installed by colcon or pip it lies in ``share/seqamodal_ros`` of the
    same prefix.

    Raises:
        FileNotFoundError: neither exists; the message says how to install them.
    """
    package = Path(__file__).resolve().parent
    candidates = [package.parent / name] if (package.parent / "package.xml").is_file() else []
    candidates += [prefix / "share" / "seqamodal_ros" / name for prefix in package.parents]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(
        f"no '{name}' folder beside the package in {package.parent} nor in share/seqamodal_ros of its prefix: "
        "run from a checkout, or install with `colcon build` or `pip install .`"
    )

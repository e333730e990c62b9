# SPDX-License-Identifier: Apache-2.0
"""`share_folder` in a checkout, in a colcon install and in a pip install."""

from pathlib import Path

import pytest

import seqamodal_ros.share as share


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Puts the package's `share.py` at a path below tmp_path, and makes folders there."""

    def put(package: str, *folders: str) -> Path:
        (tmp_path / package).mkdir(parents=True)
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True)
        monkeypatch.setattr(share, "__file__", str(tmp_path / package / "share.py"))
        return tmp_path

    return put


def test_in_a_checkout_it_lies_beside_the_package(place):
    root = place("repo/seqamodal_ros", "repo/models")
    (root / "repo" / "package.xml").touch()
    assert share.share_folder("models") == root / "repo/models"


def test_a_checkout_wins_over_an_installation_around_it(place):
    root = place("ws/repo/seqamodal_ros", "ws/repo/models", "ws/share/seqamodal_ros/models")
    (root / "ws/repo/package.xml").touch()
    assert share.share_folder("models") == root / "ws/repo/models"


@pytest.mark.parametrize(
    "package",
    [
        "install/seqamodal_ros/lib/python3.11/site-packages/seqamodal_ros",  # colcon build
        "install/seqamodal_ros/local/lib/python3.10/dist-packages/seqamodal_ros",  # colcon build on Ubuntu 22.04
    ],
)
def test_in_a_colcon_install(place, package):
    root = place(package, "install/seqamodal_ros/share/seqamodal_ros/models")
    assert share.share_folder("models") == root / "install/seqamodal_ros/share/seqamodal_ros/models"


def test_in_a_pip_install(place):
    root = place("venv/lib/python3.11/site-packages/seqamodal_ros", "venv/share/seqamodal_ros/config")
    assert share.share_folder("config") == root / "venv/share/seqamodal_ros/config"


def test_a_folder_of_that_name_in_site_packages_is_not_taken(place):
    """Another package may be called `models`."""
    place("venv/lib/python3.11/site-packages/seqamodal_ros", "venv/lib/python3.11/site-packages/models")
    with pytest.raises(FileNotFoundError):
        share.share_folder("models")


def test_where_there_is_none_the_error_says_what_to_do(place):
    place("somewhere/seqamodal_ros")
    with pytest.raises(FileNotFoundError, match=r"no 'models' folder .*colcon build.*pip install"):
        share.share_folder("models")


def test_here():
    assert share.share_folder("config").is_dir()

# SPDX-License-Identifier: Apache-2.0
"""How colcon (and pip) install seqamodal_ros."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "seqamodal_ros"
SHARE = f"share/{NAME}"


def shared(pattern: str) -> tuple[str, list[str]]:
    """The files that match, as an entry of data_files below share/seqamodal_ros in the folder they are in."""
    return f"{SHARE}/{Path(pattern).parent}", sorted(str(path) for path in Path().glob(pattern) if path.is_file())


setup(
    name=NAME,
    version="0.1.0",
    description="Sequential amodal segmentation for robots: the complete mask of every object in an image, layer by layer",
    license="Apache-2.0",
    maintainer="seqamodal_ros maintainers",
    maintainer_email="maintainers@seqamodal-ros.invalid",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["scene/page.css", "scene/page.js"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        shared("launch/*.py"),
        shared("config/*"),
        shared("models/*"),
        shared("samples/*"),
        shared("samples/depth/*"),
        shared("seqamodal_msgs/msg/*"),  # process_bag writes these messages without ROS
    ],
    # On a robot the libraries come from rosdep and a virtual environment, with pip from requirements/: named here, pip would
    # fetch its own torch over the one that is there.
    install_requires=["setuptools"],
    # This is how `colcon test` knows to run pytest.
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            f"perception_node = {NAME}.ros.perception_node:main",
            f"player = {NAME}.ros.player:main",
            f"recorder = {NAME}.ros.recorder:main",
            f"pick_order = {NAME}.ros.pick_order:main",
            f"predict = {NAME}.commands.predict:main",
            f"process_bag = {NAME}.commands.process_bag:main",
            f"export = {NAME}.commands.export:main",
        ],
    },
)

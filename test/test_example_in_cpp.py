# SPDX-License-Identifier: Apache-2.0
"""`examples/masks.hpp`, compiled with the built messages: masks at the source's size as Python's, and what is free."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from seqamodal_ros.scene.geometry import Geometry

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PREFIXES = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
HEADERS = [each for prefix in PREFIXES for each in Path(prefix).glob("include/*")]

pytestmark = [
    pytest.mark.skipif(
        not any((each / "seqamodal_msgs/msg/layered_masks.hpp").is_file() for each in HEADERS),
        reason="needs the messages' C++ headers: `make build`, or `colcon build` and source it",
    ),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]

# width, height, scale x and y, offset x and y, side of the masks; then the mask's bytes on stdin
PROGRAM = r"""
#include <cmath>
#include <iostream>
#include "masks.hpp"

int main(int, char ** words)
{
  seqamodal_msgs::msg::LayeredMasks masks;
  masks.source_width = std::stoi(words[1]);
  masks.source_height = std::stoi(words[2]);
  masks.scale_x = std::stod(words[3]);
  masks.scale_y = std::stod(words[4]);
  masks.offset_x = std::stod(words[5]);
  masks.offset_y = std::stod(words[6]);
  masks.mask_width = masks.mask_height = std::stoi(words[7]);
  sensor_msgs::msg::Image mask;
  mask.encoding = words[8];
  mask.width = mask.height = mask.step = masks.mask_width;
  mask.data.resize(mask.width * mask.height);
  std::cin.read(reinterpret_cast<char *>(mask.data.data()), mask.data.size());
  const float scores[] = {0.7f, 0.9f, NAN, 0.5f, 0.95f, 0.9f};
  for (std::uint16_t id = 1; id <= 6; ++id) {
    masks.objects.emplace_back();
    masks.objects.back().id = id;
    masks.objects.back().layer = id == 5 ? 2 : 1;
    masks.objects.back().score = scores[id - 1];
    masks.objects.back().occluded_by.resize(id == 6);
  }
  try {
    for (auto byte : seqamodal::to_source(masks, mask)) {std::cout.put(byte);}
  } catch (const std::invalid_argument & error) {
    std::cerr << error.what();
    return 2;
  }
  for (auto object : seqamodal::free_objects(masks)) {std::cerr << object->id << " ";}
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "main.cpp").write_text(PROGRAM)
    command = [
        "g++",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Werror",
        "-I",
        EXAMPLES,
        *(f"-isystem{each}" for each in HEADERS),
    ]
    subprocess.run([*command, folder / "main.cpp", "-o", folder / "main"], check=True)
    return folder / "main"


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.letterbox(640, 480),
        Geometry.letterbox(97, 211),
        Geometry.letterbox(20, 13),
        Geometry.centre_crop(128, 96),
        Geometry.region(300, 200, 17, 5, 101, 90),
    ],
    ids=["usual", "portrait", "small", "crop", "region"],
)
def test_the_same_as_python_s(program, geometry):
    mask = np.random.default_rng(0).random((32, 32)) < 0.5
    where = [str(value) for value in (geometry.width, geometry.height, *geometry.affine(32), 32, "mono8")]
    done = subprocess.run([program, *where], input=(255 * mask.astype(np.uint8)).tobytes(), capture_output=True, check=True)
    source = np.frombuffer(done.stdout, np.uint8).reshape(geometry.height, geometry.width)
    np.testing.assert_array_equal(source, 255 * geometry.to_source(mask).astype(np.uint8))
    assert done.stderr.decode().split() == ["2", "1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("64 48 2 2 0 -8 32 32FC1", "no mono8 mask of mask_width x mask_height pixels"),
        ("64 48 2 2 0 -8 0 mono8", "no mono8 mask of mask_width x mask_height pixels"),
        ("0 48 2 2 0 -8 32 mono8", "no source image"),
        ("64 16385 2 2 0 -8 32 mono8", "no source image"),
        ("64 48 0 2 0 -8 32 mono8", "no source image"),
        ("64 48 2 nan 0 -8 32 mono8", "no source image"),
        ("64 48 2 2 inf -8 32 mono8", "no source image"),
    ],
)
def test_what_is_no_mask_of_the_message_is_refused(program, words, said):
    done = subprocess.run([program, *words.split()], input=bytes(32 * 32), capture_output=True, check=False)
    assert done.returncode == 2 and done.stderr.decode().startswith(said)

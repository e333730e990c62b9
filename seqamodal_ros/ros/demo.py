# SPDX-License-Identifier: Apache-2.0
"""The demo: player, perception node and recorder as three processes over DDS, for machines without `ros2 launch`.

`launch/demo.launch.py` starts the same executables the same way.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ament_index_python import PackageNotFoundError, get_package_prefix

from seqamodal_ros.scene.sources import shots
from seqamodal_ros.share import share_folder

BUILD = "run `make build`, or `colcon build` and source install/setup.bash"
END_WITHIN = 15.0  # seconds from SIGINT to SIGKILL


def executable(name: str) -> str:
    """Path of one of this package's installed executables.

    Raises:
        FileNotFoundError: the package is not built.
    """
    try:
        path = Path(get_package_prefix("seqamodal_ros")) / "lib" / "seqamodal_ros" / name
    except PackageNotFoundError as error:
        raise FileNotFoundError(f"seqamodal_ros is not built: {BUILD}") from error
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {BUILD}")
    return str(path)


def check_source(source: str, out: str) -> None:
    """That a demo can play `source`, if any, and its recording in the folder `out` would not replace it.

    Raises:
        OSError: the source does not exist, holds nothing, or cannot be opened; or it would, FileExistsError.
    """
    if not source:
        return  # the sample frames
    path, folder = Path(source).expanduser(), Path(out).expanduser().resolve()
    if path.resolve().is_relative_to(folder):
        raise FileExistsError(f"the recording in {folder} would replace {source}: name another folder as `out`")
    shots(path, 1.0).close()


def end(process: subprocess.Popen) -> int:
    """Interrupt a process and wait for it; returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(END_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def main() -> int:
    """Run the demo; 0 when every frame was answered and recorded."""
    parser = argparse.ArgumentParser(prog="python -m seqamodal_ros.ros.demo", description=__doc__)
    parser.add_argument(
        "--source",
        default="",
        help="folder of images, an image, a video, or a camera such as /dev/video0 (default: the sample frames)",
    )
    parser.add_argument("--out", default="demo_out", help="default: %(default)s")
    parser.add_argument("--model", default="default", help="a name in models/manifest.yaml or a .safetensors file")
    args = parser.parse_args()
    # in the order of their start, and ended the other way round: the player, which ends the demo, comes last, and the recorder
    # ends before the node, as what is on its way may be lost with whoever sent it
    parameters: dict[str, dict[str, Any]] = {
        "perception_node": {"model": args.model},
        "recorder": {"out": args.out},
        "player": {"source": args.source, "listeners": 2},  # the node and the recorder
    }
    try:
        check_source(args.source, args.out)  # says what is wrong with it before three processes do
        paths = {name: executable(name) for name in parameters}
    except OSError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a supervisor's stop is a Ctrl-C to us
    running: dict[str, subprocess.Popen] = {}
    interrupted = False
    try:
        for name, values in parameters.items():
            # quoted, as ROS reads values as YAML and a folder may be called 2024; its YAML knows no halves of UTF-16's pairs
            ros_arguments = [
                item for key, value in values.items() for item in ("-p", f"{key}:={json.dumps(value, ensure_ascii=False)}")
            ]
            if name == "perception_node":
                ros_arguments += ["--params-file", str(share_folder("config") / "demo.yaml")]
            running[name] = subprocess.Popen([paths[name], "--ros-args", *ros_arguments])
        while all(process.poll() is None for process in running.values()):
            time.sleep(0.05)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted", file=sys.stderr)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # they end by themselves now; a second Ctrl-C must leave none behind
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        codes = {name: end(process) for name, process in reversed(running.items())}
    for name, code in codes.items():
        if code and not interrupted:
            print(f"demo: {name} ended with exit code {code}", file=sys.stderr)
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main())

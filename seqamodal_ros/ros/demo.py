# SPDX-License-Identifier: Apache-2.0
"""The demo: player, perception node and recorder as three processes over DDS, for machines without `ros2 launch`.

`launch/demo.launch.py` starts the same executables the same way.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from ament_index_python import get_package_prefix

END_WITHIN = 15.0  # seconds from SIGINT to SIGKILL


def executable(name: str) -> str:
    """Path of one of this package's installed executables.

    Raises:
        FileNotFoundError: the package is not built.
    """
    path = Path(get_package_prefix("seqamodal_ros")) / "lib" / "seqamodal_ros" / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `make build`, or `colcon build` and source install/setup.bash")
    return str(path)


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
    parser.add_argument("--source", default="", help="folder of images (default: the sample frames)")
    parser.add_argument("--out", default="demo_out", help="default: %(default)s")
    parser.add_argument("--model", default="default", help="a name in models/manifest.yaml or a .safetensors file")
    args = parser.parse_args()
    parameters = {"recorder": {"out": args.out}, "perception_node": {"model": args.model}, "player": {"source": args.source}}
    running: dict[str, subprocess.Popen] = {}
    try:
        for name, values in parameters.items():
            given = [f"{key}:={value}" for key, value in values.items() if value]
            ros_arguments = [item for value in given for item in ("-p", value)]
            running[name] = subprocess.Popen([executable(name), "--ros-args", *ros_arguments])
        while all(process.poll() is None for process in running.values()):
            time.sleep(0.05)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    codes = {name: end(process) for name, process in reversed(running.items())}
    for name, code in codes.items():
        if code:
            print(f"demo: {name} ended with exit code {code}", file=sys.stderr)
    return int(any(codes.values()))


if __name__ == "__main__":
    sys.exit(main())

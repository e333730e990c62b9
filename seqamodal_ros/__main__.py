# SPDX-License-Identifier: Apache-2.0
"""``python -m seqamodal_ros COMMAND ...``: the commands that need no ROS."""

import sys
from importlib import import_module

from seqamodal_ros.commands.arguments import interruptible

COMMANDS = {
    "predict": "layers of image files, as pictures and numbers",
    "export": "a model for ONNX Runtime and OpenVINO, which are faster on a CPU",
    "process_bag": "layers of a recorded bag's images, as messages in a copy of it",
}


def _run(command: str, *arguments: str) -> int:
    return import_module(f"seqamodal_ros.commands.{command}").main(list(arguments))


def main(argv: list[str] | None = None) -> int:
    """Run a command by its name; returns its exit code, 2 where there is no such command."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in COMMANDS:
        run = interruptible(f"{arguments[0]}: interrupted")(_run)  # while it is imported, too
        return run(*arguments)
    asked = bool(arguments) and arguments[0] in ("-h", "--help")
    lines = ["usage: python -m seqamodal_ros COMMAND ...  (COMMAND --help says more)"]
    lines += [f"  {name}: {purpose}" for name, purpose in COMMANDS.items()]
    lines += ["with ROS 2: ros2 launch seqamodal_ros perception.launch.py, ros2 run seqamodal_ros pick_order"]
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())

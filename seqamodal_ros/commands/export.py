# SPDX-License-Identifier: Apache-2.0
"""Writes a model for ONNX Runtime and OpenVINO, where `runtime` finds it: `export [--model NAME]`. No ROS."""

import logging
import sys
import warnings
from importlib.util import find_spec

from seqamodal_ros.commands.arguments import Parser, complain, interruptible, one_line, say

BFLOAT16 = (
    "on a CPU runtime 'auto' takes OpenVINO from now on, in bfloat16 where that is faster: single objects and the pick order may "
    "change ('onnxruntime' and 'torch' stay in float32)"
)


@interruptible("export: interrupted")
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, 2 where the export could not be made, 130 after Ctrl-C."""
    parser = Parser(prog="export", description=__doc__)
    parser.add_argument(
        "--model", default="default", help="a name in models/manifest.yaml, or a .safetensors file (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    try:
        import onnxscript  # noqa: F401  torch's exporter asks for it too, in many words

        from seqamodal_ros.diffusion.weights import load_model
        from seqamodal_ros.runtimes.exported import export, export_folder
        from seqamodal_ros.runtimes.onnx_runtime import OnnxRuntimeNetwork
        from seqamodal_ros.runtimes.openvino import OpenVinoNetwork

        model = load_model(arguments.model)
        folder = export_folder(model.model_id)
        say(f"{model.model_id[:40]}: this takes a minute or two")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # what it says is of its own inside
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            difference = export(model, folder, OnnxRuntimeNetwork, OpenVinoNetwork if find_spec("openvino") else None)
    except ImportError as error:
        complain(f"export: error: cannot import {error.name}: `pip install -r requirements/runtimes.txt`")
        return 2
    except (OSError, ValueError) as error:
        complain(f"export: error: {one_line(error)}")
        return 2
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    say(f"{model.model_id[:40]} -> {folder}, {size:.1f} MB; largest difference to PyTorch {difference:.1e} in float32")
    say(BFLOAT16)
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What runs a network: PyTorch, or ONNX Runtime or OpenVINO on what `export` wrote; all of them are a `Network`."""

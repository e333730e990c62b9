# SPDX-License-Identifier: Apache-2.0
"""What an export's card says of the networks' code."""

import ast
from pathlib import Path

from seqamodal_ros import diffusion
from seqamodal_ros.runtimes.exported import NETWORK_CODE, code_version


def test_it_is_of_all_that_the_networks_import():
    folder, package = Path(diffusion.__file__).parent, diffusion.__name__ + "."
    for name in NETWORK_CODE:
        nodes = [node for node in ast.walk(ast.parse((folder / name).read_text())) if isinstance(node, ast.ImportFrom)]
        modules = [node.module for node in nodes if node.module and node.module.startswith(package)]
        imported = {f"{module.removeprefix(package)}.py" for module in modules}
        assert imported <= set(NETWORK_CODE), name
    assert len(code_version()) == 64

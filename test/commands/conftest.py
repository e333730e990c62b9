# SPDX-License-Identifier: Apache-2.0
"""Runs commands as the shell would, in this process."""

from collections.abc import Callable

import pytest


@pytest.fixture
def run_command(small_model, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs a command's main with the small model on the CPU; gives exit code, stdout and stderr."""

    def run(main: Callable[[list[str]], int], *arguments, model=None) -> tuple[int, str, str]:
        try:
            code = main([*map(str, arguments), "--model", str(model or small_model), "--device", "cpu"])
        except SystemExit as stopped:  # argparse
            code = stopped.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run

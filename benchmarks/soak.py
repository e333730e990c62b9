# SPDX-License-Identifier: Apache-2.0
"""What `make soak` runs: the node as a process under load, among faults and bad inputs; one table of what it held."""

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.soak_checks import CHECKS, FAIL, Bench, Row
from benchmarks.timing import machine
from seqamodal_ros.perceiver import Perceiver

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
MARK = "<!-- make soak writes below this line -->"
HEAD = "| check | load held | faults survived | bad inputs tried | lost | verdict |\n| --- | --- | --- | --- | --- | --- |"


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000, help="bad messages (default: %(default)s)")
    parser.add_argument("--cycles", type=int, default=1000, help="lifecycle cycles (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="of streaming (default: %(default)s)")
    parser.add_argument("--flood", type=float, default=60.0, help="seconds of 1920x1080 images (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), help="these checks alone")
    parser.add_argument("--model", default="default", help="a name in models/manifest.yaml, or a .safetensors file")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--seed", type=int, default=0, help="of the bad messages (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.parent.name}/{PAGE.name}")
    found = parser.parse_args(arguments)
    if min(found.messages, found.cycles - 1) < 1 or min(found.minutes, found.flood) <= 0:
        parser.error(
            "--messages, --minutes and --flood must be above zero, --cycles above one, as its first are compared with its last"
        )
    return found


def run(bench: Bench, names: list[str]) -> tuple[list[Row], bool]:
    """The rows of the checks, and whether all of them came to an end; an interrupt ends those that are left."""
    rows: list[Row] = []
    for name in names:
        print(f"{name}: {CHECKS[name].__doc__}")
        began = time.monotonic()
        try:
            rows.append(CHECKS[name](bench))
        except KeyboardInterrupt:
            print("\ninterrupted")
            return rows, False
        except Exception as error:  # the node came not up or died on the way, say: the other checks go on
            rows.append(Row(name, "-", f"{type(error).__name__}: {error}", "-", "-", FAIL))
        print(f"\r\033[K  {rows[-1].verdict} after {time.monotonic() - began:.0f} s")
    return rows, True


def report(rows: list[Row], about: str) -> str:
    """The table in Markdown, below what it was measured with."""
    return "\n".join([about, "", HEAD, *(row.markdown() for row in rows)])


def main() -> None:
    """Run the checks, print the table; end with 1 where a row fails, with 130 where an interrupt came first."""
    chosen = options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # children are ended then, too
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)  # others on this machine are not part of it
    model = Perceiver.load(chosen.model, "cpu").model_id
    command = "python -m benchmarks.soak " + shlex.join(sys.argv[1:])
    about = f"{time.strftime('%Y-%m-%d')}; {machine()}; `{model[:40]}`; `{command.strip()}`"
    print(about)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"logs in {folder}")
    rows, ended = run(Bench(chosen, folder), chosen.only)
    text = report(rows, about)
    print(f"\n{text}")
    if chosen.write and ended:
        page = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
        PAGE.write_text(f"{page}{MARK}\n\n{text}\n", encoding="utf-8")
    sys.exit(130 if not ended else any(row.verdict == FAIL for row in rows))


if __name__ == "__main__":
    main()

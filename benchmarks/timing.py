# SPDX-License-Identifier: Apache-2.0
"""How `make bench` times: quantiles of repeated calls, and what is known of the machine."""

import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch


def seconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` calls, after one that is not counted."""
    call()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


def quantiles(taken: Sequence[float]) -> dict[str, float]:
    """p50 and p95, milliseconds."""
    p50, p95 = np.quantile(taken, [0.5, 0.95])
    return {"p50_ms": 1000 * float(p50), "p95_ms": 1000 * float(p95)}


def peak_memory(device: str) -> dict[str, float]:
    """Largest resident memory that this process had, and what PyTorch held at most of the GPU's, where there is one; MB."""
    # not getrusage's: that begins with what the process had that started this one
    status = Path("/proc/self/status").read_text()
    (kibibytes,) = re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    found = {"memory_mb": int(kibibytes) * 1024 / 1e6}
    if device == "cuda":
        found["gpu_memory_mb"] = torch.cuda.max_memory_reserved() / 1e6
    return found


def accelerator(device: str) -> str:
    """The GPU's name, and whether float32 is rounded to TF32 there; "" of a CPU."""
    if device != "cuda":
        return ""
    in_tf32 = {"matrix products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32}
    rounded = " and ".join(what for what, is_so in in_tf32.items() if is_so)
    return f", {torch.cuda.get_device_name()}, {rounded or 'nothing'} of float32 in TF32"


def machine() -> str:
    """Cores that this process may use, what they are, and how busy they are."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.machine()}, load at the start {load}"

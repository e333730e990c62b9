# SPDX-License-Identifier: Apache-2.0
"""What `make bench` runs: seconds a frame, memory, and ratios measured in one run, as machines differ and are noisy."""

import argparse
import resource
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from seqamodal_ros import Perceiver
from seqamodal_ros.messages import MessageTypes, scene_to_message
from seqamodal_ros.share import share_folder


def seconds(call: Callable[[], object], repeats: int) -> np.ndarray:
    """Wall-clock seconds of each of `repeats` calls, after one that is not counted."""
    call()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return np.array(taken)


def report(name: str, taken: np.ndarray, base: float | None = None) -> float:
    """Print p50 and p95 in milliseconds, and p50 as a ratio of `base`; returns p50 in seconds."""
    p50, p95 = np.quantile(taken, [0.5, 0.95])
    ratio = f"{p50 / base:8.2f}" if base else " " * 8
    print(f"{name:<44} {1000 * p50:9.1f} {1000 * p95:9.1f} {ratio}")
    return float(p50)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3, help="passes over the sample frames (default: %(default)s)")
    args = parser.parse_args()
    paths = sorted(share_folder("samples").glob("*.jpg")) + sorted(share_folder("samples").glob("*.png"))
    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    perceiver = Perceiver.load(args.model, args.device)
    print(f"{perceiver.model_id} on {perceiver.device}, {torch.get_num_threads()} threads, {len(images)} frames of 640x480")
    print(f"{'':<44} {'p50 ms':>9} {'p95 ms':>9} {'ratio':>8}")
    perceiver(images[0])
    frames = np.concatenate([seconds(lambda image=image: perceiver(image), args.repeats) for image in images])
    base = report("a frame, K = 3", frames)
    for samples in (1, 8):
        taken = np.concatenate([seconds(lambda i=i, k=samples: perceiver(i, k), args.repeats) for i in images])
        report(f"a frame, K = {samples}", taken, base)
    four = images[:4]
    one_by_one = report("four frames one by one", seconds(lambda: [perceiver(image) for image in four], args.repeats))
    report("four frames as a batch", seconds(lambda: perceiver.batch(four), args.repeats), one_by_one)
    scene = perceiver(images[0])
    report("masks to source size, one frame", seconds(lambda: [scene.to_source(o.amodal) for o in scene.objects], 20), base)
    try:
        types = MessageTypes.ros()
    except ImportError:
        print("the message is not timed: seqamodal_msgs is not built")
    else:
        from std_msgs.msg import Header

        report("scene to message", seconds(lambda: scene_to_message(scene, Header(), "bench", types), 20), base)
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""The figures of `make bench` as Markdown and as a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
MARK = "<!-- make bench writes below this line -->"
COLUMNS = (
    "way",
    "network calls",
    "ms a frame, p50",
    "p95",
    "frames/s",
    "first frame, ms",
    "peak memory, MB",
    "of the peer's time",
    "IOU of layers 1-5, %",
)
DASH = "-"


def text(found: dict[str, Any]) -> str:
    """All tables."""
    peer = next(iter(found["methods"].values())).get("p50_ms")
    rows = [_row(name, result, peer) for name, result in found["methods"].items()]
    parts = [
        found["about"],
        _table(COLUMNS, rows),
        "`*`: extrapolated from a few calls. IOU: of the twelve sample frames, free-running, unforced; '-' where no weights are "
        "trained.",
    ]
    profiles = {name: result["parts_ms"] for name, result in found["methods"].items() if "parts_ms" in result}
    if profiles:
        parts.append("Where the time of a frame goes, ms, the mean of all frames (p50 is less where some took long):")
        rows = [[name, *(f"{ms:.1f}" for ms in profile.values())] for name, profile in profiles.items()]
        parts.append(_table(["way", *next(iter(profiles.values()))], rows))
    if "missing" not in found["growth"]:
        parts.append(
            f"What a frame costs, ms p50, with `{found['runtime']}`, sampling steps: {found['steps']}, unless another is given:"
        )
        parts += [_table([what, *ms], [["ms", *(f"{each:.0f}" for each in ms.values())]]) for what, ms in found["growth"].items()]
    if "missing" not in found["floor"]:
        parts.append(_floor(found["runtime"], **found["floor"]))
    parts += [_learning(name, each) for name, each in found["learning"].items() if "missing" not in each]
    if "missing" not in found["ros"]:
        parts.append(_ros(**found["ros"]))
    parts += [f"{name}: not run: {why}" for name, why in _missing(_beside(found)).items()]
    return "\n\n".join(parts) + "\n"


def not_run(found: dict[str, Any]) -> dict[str, str]:
    """What has no figures, and why."""
    return _missing(found["methods"] | _beside(found))


def _beside(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts beside the table of ways, in which each row says itself why it was not run."""
    learning = {f"Training of `{name}`": each for name, each in found["learning"].items()}
    return {"What a frame costs": found["growth"], "The floor": found["floor"], **learning, "The ROS overhead": found["ros"]}


def _missing(parts: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: part["missing"] for name, part in parts.items() if "missing" in part}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _row(name: str, result: dict[str, Any], peer: float | None) -> list[str]:
    if "missing" in result:
        return [name, f"not run: {result['missing']}", *[DASH] * (len(COLUMNS) - 2)]
    p50, p95 = result["p50_ms"], result["p95_ms"]
    return [
        f"{name}, {result['runtime']}" if "runtime" in result else name,
        " + ".join(str(result[kind]) for kind in ("encodes", "denoises", "centrings") if result[kind]),
        f"{p50:,.0f}{'*' if result.get('extrapolated') else ''}",
        f"{p95:,.0f}" if p95 else DASH,
        f"{1000 / p50:.3g}",
        f"{result['first_ms']:.0f}" if "first_ms" in result else DASH,
        f"{result['memory_mb']:.0f}" + (f", GPU {result['gpu_memory_mb']:.0f}" if "gpu_memory_mb" in result else ""),
        _beside_the_peer(p50, peer) if peer else DASH,
        " ".join(f"{each:.0f}" for each in result["iou"]) if "iou" in result else DASH,
    ]


def _beside_the_peer(p50: float, peer: float) -> str:
    """The share of the peer's time, or how many times that; `1/1` within a tenth, as a few calls tell no more."""
    times = peer / p50
    if 1 / 1.1 < times < 1.1:
        return "1/1"
    if times < 1:
        return f"{1 / times:,.1f}"
    return f"1/{times:,.1f}" if times < 10 else f"1/{times:,.0f}"


def _floor(runtime: str, **f: Any) -> str:
    rates = " and ".join(f"{rate:.0f} GFLOP/s in {kind}" for kind, rate in f["gflops"].items())
    return (
        f"The floor: {f['gflop_encode']:.2f} GFLOP for the encoder, {f['rows']} times {f['gflop_row']:.2f} for "
        f"rows of the denoiser and {f['gflop_centres']:.2f} for ways to centres are {f['gflop_frame']:.1f} GFLOP a frame; "
        f"{f['megabytes_weights']:.0f} MB of weights are read in {max(f['gflops'], key=f['gflops'].get)} (and "
        f"{f['megabytes_activations']:.0f} MB go into convolutions and out of them, of which caches spare some). "
        f"This machine multiplies matrices at {rates}, and copies at {f['gigabytes_a_second_copied']:.1f} GB/s: "
        f"{f['floor_ms']:.0f} ms at best. `{runtime}` takes {f['frame_ms']:.0f} ms, so {100 * f['share']:.0f} % of what the "
        "machine can do are reached."
    )


def _learning(network: str, f: dict[str, Any]) -> str:
    return (
        f"Training of `{network}`, {f['images']} images a step, in {f['kind']}: {f['images_per_second']:.3g} images/s of "
        f"{f['gflop_image']:.1f} GFLOP, forward and backward; {100 * f['share']:.0f} % of the machine's matrix products."
    )


def _ros(**f: float) -> str:
    return (
        f"The ROS overhead, from the image's callback to published at 1280x720 without inference: {f['shell_p95_ms']:.1f} ms at "
        f"p95, and {f['shell_label_p95_ms']:.1f} ms with a subscriber to `~/label`, too. A still scene with noise of 4 grey "
        f"levels: consecutive frames agree to an IOU of {f['still_iou']:.3f}, and to "
        f"{f['seen_anew_iou']:.3f} if each image is computed again (`stillness: 0.0`)."
    )


def plot(found: dict[str, Any], path: Path) -> None:
    """Milliseconds a frame of each way, on a logarithmic scale; and how they grow."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    methods = {name: each["p50_ms"] for name, each in found["methods"].items() if "p50_ms" in each}
    growth = {} if "missing" in found["growth"] else found["growth"]
    figure = plt.figure(figsize=(11, 4 + 0.22 * len(methods)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[0.22 * len(methods) + 1, 3])
    axes = above.subplots()
    names = list(methods)[::-1]
    bars = axes.barh(
        names, [methods[name] for name in names], color=["#4477aa" if name.startswith("ours") else "#bb5566" for name in names]
    )
    axes.bar_label(bars, [f"{methods[name]:,.0f}" for name in names], padding=3, fontsize=8)
    if methods:
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("ms a frame of five layers, K = 3")
    for part, (what, values) in zip(below.subplots(1, max(1, len(growth)), squeeze=False)[0], growth.items(), strict=False):
        part.plot(list(values), list(values.values()), "o-", color="#4477aa")
        part.set_ylim(bottom=0)
        part.set_title(what.replace(", ", "\n", 1), fontsize=8)
        part.tick_params(labelsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)

# SPDX-License-Identifier: Apache-2.0
"""`make bench` on small models and in little time: what it counts and writes, and what it says where something is missing."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import benchmarks.__main__ as bench
from benchmarks import growth, learning, methods, same_weights
from benchmarks.forced import force
from benchmarks.frames import frames
from benchmarks.page import PAGE, not_run, text
from benchmarks.timing import quantiles, seconds
from seqamodal_ros import Perceiver
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.weights import load_model, save_model, shipped
from seqamodal_ros.runtimes.exported import export_folder

MISSING = {"missing": "not here"}
ROW = {
    "encodes": 1, "denoises": 6, "centrings": 1, "p50_ms": 100.0, "p95_ms": 120.0, "memory_mb": 400.0,
    "parts_ms": {"encoder": 20.0, "denoiser": 50.0, "ways to centres": 20.0, "all else": 10.0},
}  # fmt: skip
FOUND = {
    "growth": {"layers": {"1": 60.0, "2": 80.0}},
    "floor": {
        "gflop_encode": 7.0, "gflop_row": 0.9, "gflop_centres": 2.8, "rows": 18, "gflop_frame": 26.0, "megabytes_weights": 35.0,
        "megabytes_activations": 232.0, "gflops": {"float32": 192.0}, "gigabytes_a_second_copied": 44.0, "floor_ms": 60.0,
        "frame_ms": 120.0, "share": 0.5,
    },
    "learning": {"images": 2, "images_per_second": 3.0, "gflop_image": 10.0, "kind": "float32", "share": 0.5},
    "ros": {"shell_p95_ms": 4.6, "shell_label_p95_ms": 7.8, "still_iou": 1.0, "seen_anew_iou": 0.9},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["small_model", "numbered_model"])
@pytest.mark.parametrize(("steps", "denoises"), [(1, 6), (2, 11)])
def test_five_forced_layers_and_the_blank_sixth(kind, steps, denoises, request):
    """Of the sixth the first step sees nothing, so there is no second."""
    path = request.getfixturevalue(kind)
    perceiver = Perceiver.load(str(path), "cpu", runtime="torch", sampling_steps=steps, max_layers=methods.PASSES)
    forced, calls = force(perceiver, methods.LAYERS), []
    for name in ("encoder", "denoiser"):
        perceiver.model.network.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    for count in (1, 2):
        scene = perceiver(frames()[0], methods.K)
        assert len(scene.amodal) == methods.LAYERS and not scene.truncated
        assert (forced.encodes, forced.denoises) == (count, count * denoises)
    assert (calls.count("encoder"), calls.count("denoiser")) == (2, 2 * denoises)


@pytest.mark.parametrize("name", [name for name in shipped() if name != "default"])
def test_shipped_models_take_one_encoder_call_and_24_denoiser_calls_at_most(name):
    """With mirror images, too, which are in the same batch, and in the steps that each is shipped with."""
    perceiver = Perceiver.load(name, "cpu", runtime="torch", max_layers=methods.PASSES)
    calls: list[str] = []
    for part in ("encoder", "denoiser"):
        perceiver.model.network.get_submodule(part).register_forward_hook(lambda *_, part=part: calls.append(part))
    forced = force(perceiver, methods.LAYERS)
    scene = perceiver(frames()[0], methods.K)
    assert len(scene.amodal) == methods.LAYERS and perceiver.model.settings.sampling_steps <= 2
    assert calls.count("encoder") == forced.encodes == forced.centrings == 1
    assert methods.PASSES <= calls.count("denoiser") == forced.denoises <= 24


def test_where_the_time_goes_adds_up(small_model, monkeypatch):
    seen, warmed = [], []
    monkeypatch.setattr(methods, "iou_of_layers", lambda predicted: seen.extend(predicted) or {})
    monkeypatch.setattr(methods, "frames", lambda: [frames()[0]])
    monkeypatch.setattr(Perceiver, "warm_up", lambda self, samples: warmed.append(samples))
    found = methods.ours(str(small_model), "cpu", "torch", steps=1, repeats=3)
    assert warmed == [methods.K] and [len(layers) for layers in seen] == [3]  # the model's own most, none forced
    assert list(found["parts_ms"]) == ["encoder", "denoiser", "ways to centres", "all else"]
    assert found["parts_ms"].pop("ways to centres") == 0 < min(found["parts_ms"].values())
    assert 0.5 * found["p50_ms"] < sum(found["parts_ms"].values()) < 4 * found["p95_ms"]


def test_models_of_one_shape_are_measured_once(monkeypatch):
    """`fast-small` stands for those that were trained on from it, and none for the model itself."""
    assert bench.others_to(load_model("default")) == ["fast", "fast-small"]
    assert bench.others_to(load_model("fast-small-acom")) == ["fast-base", "fast"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["methods", "ours", "--repeats", "0"], "must be a whole number in 1..1000, not '0'"),
        (["methods", "ours", "--steps", "0"], "must be a whole number in 1..1000, not '0'"),
        (["methods", "ours", "--runtime", "nonsense"], "invalid choice: 'nonsense'"),
        (["methods", "ours", "--model", "nonsense"], "nonsense"),
        (["growth", "floor", "--model", "nonsense"], "nonsense"),
        (["learning", "fast", "--images", "0"], "must be a whole number in 1..1000000, not '0'"),
    ],
)
def test_a_bad_argument_of_a_part_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    module = {"methods": methods, "growth": growth, "learning": learning}[words[0]]
    for out in (tmp_path / "part.json", tmp_path / "nowhere" / "part.json"):
        monkeypatch.setattr(sys, "argv", [*words, "--device", "cpu", "--out", str(out)])
        with pytest.raises(SystemExit) as ended:
            module.main()
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1
        assert said in error or "there is no folder" in error


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_operations_of_the_floor_are_those_of_a_frame(centred_model, tmp_path, monkeypatch, mirror, steps):
    path = tmp_path / "model.safetensors"
    model = load_model(str(centred_model))
    save_model(path, model.network.state_dict(), replace(model.settings, mirror=mirror, sampling_steps=steps))
    for rate in ("matrix_rate", "copy_rate"):
        monkeypatch.setattr(growth, rate, lambda *_: 1e9)
    before = torch.get_num_threads()
    try:
        found = growth.floor(str(path), "cpu", "torch", repeats=1)
    finally:
        torch.set_num_threads(before)
    perceiver = Perceiver.load(str(path), "cpu", runtime="torch", max_layers=methods.PASSES)
    force(perceiver, methods.LAYERS)
    # attention as products of matrices: the counter knows no operations of a CPU's fused kernel, which some layouts take
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        scene = perceiver(frames()[0], methods.K)
    assert len(scene.amodal) == methods.LAYERS
    assert found["gflop_frame"] * 1e9 == pytest.approx(counter.get_total_flops(), rel=1e-9)
    parts = found["gflop_encode"] + found["rows"] * found["gflop_row"] + found["gflop_centres"]
    assert parts == pytest.approx(found["gflop_frame"]) and found["gflop_centres"] > 0
    of_all, of_denoiser = (sum(p.numel() for p in each.parameters()) for each in (model.network, model.network.denoiser))
    assert found["megabytes_weights"] == pytest.approx(4e-6 * (of_all + (5 * steps) * of_denoiser))  # read in each of its calls
    assert found["floor_ms"] == pytest.approx(1000 * max(found["gflop_frame"], found["megabytes_weights"] / 1000))


def test_how_cost_grows_is_told_of_as_many_layers_as_are_named(small_model, monkeypatch):
    """And the blank one behind them, without which the sequence would not be at its end."""
    forced = []
    monkeypatch.setattr(growth, "force", lambda *given: forced.append(force(*given)))
    monkeypatch.setattr(growth, "seconds", lambda call, repeats: [float(call() is not None)])
    monkeypatch.setattr(growth, "SIDES", {"small": (48, 64)})
    found = growth.growth(str(small_model), "cpu", "torch", repeats=1)
    assert list(found["layers"]) == [str(count) for count in range(1, 8)]
    assert [each.layers for each in forced[-7:]] == [1, 2, 3, 4, 5, 6, 7]
    # two steps of each layer; of the blank one the first sees nothing, so there is no second
    assert all(each.denoises == each.encodes * (2 * each.layers + 1) and each.encodes for each in forced)


def test_bytes_of_a_convolution_are_those_that_go_in_and_come_out():
    convolution = torch.nn.Conv2d(1, 2, 1)
    assert growth.counted(convolution, lambda: convolution(torch.zeros(1, 1, 4, 4))) == (2 * 2 * 16, 64 + 128)


def test_rates_are_of_all_that_is_multiplied_and_of_what_is_read_and_written(monkeypatch):
    monkeypatch.setattr(growth, "_best", lambda call, device: 1.0)
    assert growth.matrix_rate(torch.float32, "cpu") == 2 * 2048**3
    assert growth.copy_rate("cpu") == 2 * 4 * 2**26


def test_the_first_call_is_not_counted_and_quantiles_are_in_milliseconds():
    calls = []
    taken = seconds(lambda: calls.append(1), repeats=3)
    assert len(calls) == 4 and len(taken) == 3
    assert quantiles([k / 1000 for k in range(101)]) == pytest.approx({"p50_ms": 50, "p95_ms": 95})


def test_a_frame_of_a_thousand_steps_is_extrapolated_from_three_calls(monkeypatch):
    calls, clock = [], iter([10.0, 13.0])
    monkeypatch.setattr(methods, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(methods, "peak_memory", lambda device: {})
    found = methods.sliced(calls.append, 1000, "cpu")
    assert calls == [1, 3]
    assert found["p50_ms"] == pytest.approx(6 * 1000 * 1000) and found["extrapolated"] is True


@pytest.mark.parametrize(("sampler", "steps"), [("ancestral", 1000), ("ddim", 50)])
def test_of_the_papers_network_as_many_calls_are_made_as_are_asked_for(monkeypatch, sampler, steps):
    rows, denoise = [], PaperNetwork.denoise
    monkeypatch.setattr(methods, "PaperSettings", lambda: PaperSettings(64, 32, (1, 1, 1)))
    monkeypatch.setattr(methods, "sliced", lambda calls, *given: calls(3) or {"given": given})
    monkeypatch.setattr(PaperNetwork, "denoise", lambda self, *given: rows.append(len(given[0])) or denoise(self, *given))
    assert methods.paper(sampler, steps, "cpu") == {"runtime": "torch", "given": (steps, "cpu")}
    assert rows == [methods.K] * 3


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
def test_peak_memory_is_the_process_own_and_not_what_its_parent_had():
    measure = "from benchmarks.timing import peak_memory; print(peak_memory('cpu')['memory_mb'])"
    parent = f"import subprocess, sys; held = b'x' * {10**9}; subprocess.run([sys.executable, '-c', {measure!r}], check=True)"
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", parent], cwd=root, capture_output=True, text=True, timeout=120)
    assert 50 < float(done.stdout) < 1000, done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
def test_memory_that_was_held_and_let_go_counts():
    measure = "from benchmarks.timing import peak_memory; held = b'x' * 10**9; del held; print(peak_memory('cpu')['memory_mb'])"
    done = subprocess.run([sys.executable, "-c", measure], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert float(done.stdout) > 1000, done.stderr


def test_why_a_runtime_is_missing_is_told_in_its_row(small_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = methods.ours(str(small_model), "cpu", "openvino", steps=1, repeats=1)
    assert result["missing"].startswith("runtime 'openvino' is unavailable (") and "holds no exported model" in result["missing"]
    assert "falling back" not in result["missing"]
    assert f"not run: {result['missing']}" in text(
        {"about": "", "methods": {"ours": result}, **dict.fromkeys(FOUND, {})} | NOTHING
    )


NOTHING = {"growth": MISSING, "floor": MISSING, "ros": MISSING, "learning": {"fast": MISSING}}


def test_what_was_not_run_is_told_in_a_line_each():
    page = text({"about": "", "methods": {"peer": ROW}, **NOTHING})
    lines = ["What a frame costs", "The floor", "Training of `fast`", "The ROS overhead"]
    assert page.rstrip().split("\n\n")[-4:] == [f"{each}: not run: not here" for each in lines]
    whole = {
        "about": "",
        "methods": {"peer": ROW},
        "runtime": "torch",
        "steps": 1,
        **FOUND,
        "learning": {"fast": FOUND["learning"]},
    }
    assert "not run" not in text(whole) and not not_run(whole)
    assert "| way | encoder | denoiser | ways to centres | all else |" in page and "| peer | 20.0 | 50.0 | 20.0 | 10.0 |" in page


@pytest.mark.parametrize(
    ("p50", "cells"),
    [
        (10.0, ["10*", "100", "1/100"]),
        (640.0, ["640*", "1.56", "1/1.6"]),
        (1050.0, ["1,050*", "0.952", "1/1"]),
        (2500.0, ["2,500*", "0.4", "2.5"]),
    ],
)
def test_a_way_is_told_beside_the_peer_faster_or_slower(p50, cells):
    ways = {"peer": {**ROW, "p50_ms": 1000.0}, "ours": {**ROW, "p50_ms": p50, "extrapolated": True}}
    (row,) = [line for line in text({"about": "", "methods": ways, **NOTHING}).splitlines() if line.startswith("| ours | 1 +")]
    _, _, told, _, a_second, _, _, beside, _ = row.strip("| ").split(" | ")
    assert [told, a_second, beside] == cells


def test_the_page_is_what_its_json_says():
    said = json.loads(PAGE.with_suffix(".json").read_text())
    assert PAGE.read_text().partition(bench.MARK)[2] == f"\n\n{text(said)}"


def test_what_a_part_before_left_is_not_taken_for_that_of_one_that_fails(tmp_path):
    (tmp_path / "part.json").write_text("{}")
    assert bench.child(tmp_path, "benchmarks.nowhere")["missing"].endswith("No module named benchmarks.nowhere")


@pytest.fixture
def short(tmp_path, monkeypatch):
    """`make bench` whose parts answer at once, what `answers` says of each, in a folder of its own."""
    answers = {"methods": ROW, **FOUND}
    page = tmp_path / "docs" / "performance.md"
    page.parent.mkdir()
    page.write_text(f"above\n\n{bench.MARK}\n\nbefore\n")

    def child(out, module, *arguments):
        name = module.rpartition(".")[2]
        return answers[arguments[0] if name == "growth" else name]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ["XDG_CACHE_HOME"])  # set back afterwards
    monkeypatch.setattr(bench, "PAGE", page)
    monkeypatch.setattr(bench, "child", child)
    monkeypatch.setattr(bench, "shell_and_stillness", lambda *_: answers["ros"])
    monkeypatch.setattr(bench, "shipped", dict)
    return answers


class TestTheWholeOfIt:
    def test_the_page_is_written_where_all_was_run(self, short, small_model, tmp_path, monkeypatch):
        monkeypatch.setattr(bench, "export_missing", lambda models, cache: {})
        assert bench.main(["--device", "cpu", "--model", str(small_model), "--write"]) == 0
        page = (tmp_path / "docs" / "performance.md").read_text()
        assert page.startswith("above") and "1 + 6 + 1" in page and "before" not in page
        found = json.loads((tmp_path / "bench_out" / "performance.json").read_text())
        assert found["ros"] == FOUND["ros"]
        in_torch = [name for name in found["methods"] if name.endswith(", torch")]
        assert in_torch == [f"ours, {steps}, torch" for steps in ("1 step", "2 steps", "4 steps")]

    @pytest.mark.parametrize("part", ["methods", "growth", "floor", "learning", "ros"])
    def test_the_page_is_left_where_something_was_not(self, short, small_model, tmp_path, monkeypatch, capsys, part):
        monkeypatch.setattr(bench, "export_missing", lambda models, cache: {})
        short[part] = MISSING
        assert bench.main(["--device", "cpu", "--model", str(small_model), "--write"]) == 1
        assert (tmp_path / "docs" / "performance.md").read_text().endswith("before\n")
        said = capsys.readouterr()
        assert "docs/performance.md is left as it was" in said.err and "(not here)" in said.err
        assert "not run: not here" in said.out
        assert (tmp_path / "bench_out" / "performance.png").is_file()
        assert bench.main(["--device", "cpu", "--model", str(small_model)]) == 0

    def test_models_are_exported_into_a_cache_of_its_own(self, short, small_model, tmp_path, monkeypatch):
        ran = []

        def run(command, **_):
            ran.append((command, os.environ["XDG_CACHE_HOME"]))
            return subprocess.CompletedProcess(command, 2, "", "much\nexport: error: cannot import onnxscript\n")

        monkeypatch.setattr(subprocess, "run", run)
        assert bench.main(["--device", "cpu", "--model", str(small_model)]) == 0
        ((command, cache),) = ran
        assert command == [sys.executable, "-m", "seqamodal_ros", "export", "--model", str(small_model)]
        assert cache == str(tmp_path / "bench_out" / "cache")
        ways = json.loads((tmp_path / "bench_out" / "performance.json").read_text())["methods"]
        missing = {name for name, result in ways.items() if result == {"missing": "export: error: cannot import onnxscript"}}
        assert missing == {name for name in ways if "openvino" in name or "onnxruntime" in name} and len(missing) == 6

    def test_a_model_that_is_exported_is_left(self, short, small_model, tmp_path, monkeypatch):
        monkeypatch.setattr(bench, "read_card", lambda *_: None)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing is to be run"))
        assert bench.export_missing([str(small_model)], tmp_path / "cache") == {}
        assert export_folder(load_model(str(small_model)).model_id).is_relative_to(tmp_path / "cache")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--model", "nonsense"), "unknown model 'nonsense'"),
            (("--model", "nowhere.safetensors"), "nowhere.safetensors is missing"),
            (("--device", "cuda"), "torch sees no CUDA device here"),
            (("--device", "gpu"), "must be cpu or cuda, not 'gpu'"),
            (("--repeats", "0"), "must be a whole number in 1..1000"),
        ],
        ids=str,
    )
    def test_what_cannot_be_measured_is_told_in_a_line(self, short, tmp_path, monkeypatch, capsys, arguments, message):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(SystemExit) as ended:
            bench.main([*arguments])
        said = capsys.readouterr().err
        assert ended.value.code == 2 and message in said and said.count("\n") == 1
        assert not (tmp_path / "bench_out").exists()

    def test_no_memory_on_a_gpu_is_told_in_a_line(self, short, monkeypatch, capsys):
        def full(*_, **__):
            raise torch.OutOfMemoryError("the GPU has no memory for the model: free some, or use the device cpu\n(2 GiB)")

        monkeypatch.setattr(Perceiver, "load", full)
        with pytest.raises(SystemExit):
            bench.main(["--device", "cpu"])
        assert "the GPU has no memory for the model" in capsys.readouterr().err


@pytest.mark.parametrize("why", ["no device", "no memory"])
def test_a_comparison_that_a_gpu_lacks_for_is_told_in_a_line(tmp_path, monkeypatch, capsys, why):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(same_weights, "compare", full)
    device = "cuda" if why == "no device" else "cpu"
    monkeypatch.setattr(sys, "argv", ["same_weights", "--model", "m.safetensors", "--set", str(tmp_path), "--device", device])
    with pytest.raises(SystemExit) as ended:
        same_weights.main()
    said = capsys.readouterr().err
    expected = "torch sees no CUDA device here: use cpu" if why == "no device" else "out of GPU memory: give fewer --samples"
    assert ended.value.code == 2 and expected in said and said.count("\n") == 1

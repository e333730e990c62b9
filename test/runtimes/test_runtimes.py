# SPDX-License-Identifier: Apache-2.0
"""Exports, and the runtimes that compute them: parity with PyTorch, which one is taken, and what is said where one is missing."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seqamodal_ros import Perceiver
from seqamodal_ros.commands.export import main as export_command
from seqamodal_ros.diffusion.weights import load_model, save_model
from seqamodal_ros.runtimes import choice, exported
from seqamodal_ros.runtimes.bfloat16 import computes_bfloat16, slower_in_bfloat16
from seqamodal_ros.runtimes.choice import network_on
from seqamodal_ros.runtimes.exported import CARD, DENOISER, export_folder, read_card
from seqamodal_ros.runtimes.openvino import PIECES

pytest.importorskip("onnxscript", reason="needs the exporter: `pip install -r requirements/runtimes.txt`")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: `pip install -r requirements/runtimes.txt`")
pytest.importorskip("openvino", reason="needs OpenVINO: `pip install -r requirements/runtimes.txt`")

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


def exported_to(cache: Path, model: Path) -> Path:
    """The cache folder, with an export of a model, made by the command, which takes half a minute."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(cache))
        assert export_command(["--model", str(model)]) == 0
    return cache


@pytest.fixture(scope="module")
def original(small_model, tmp_path_factory):
    return exported_to(tmp_path_factory.mktemp("cache"), small_model)


@pytest.fixture(scope="module")
def original_with_centres(centred_model, tmp_path_factory):
    return exported_to(tmp_path_factory.mktemp("cache"), centred_model)


@pytest.fixture(scope="module")
def original_of_numbered(numbered_model, tmp_path_factory):
    return exported_to(tmp_path_factory.mktemp("cache"), numbered_model)


@pytest.fixture
def cache_of_numbered(original_of_numbered, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(original_of_numbered))


@pytest.fixture
def cache(original, tmp_path, monkeypatch):
    """A copy of it, which is the one that is looked into."""
    copy = tmp_path / "cache"
    shutil.copytree(original, copy)
    monkeypatch.setenv("XDG_CACHE_HOME", str(copy))
    return copy


@pytest.fixture
def cache_with_centres(original_with_centres, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(original_with_centres))


def folder_of(path):
    return export_folder(load_model(str(path)).model_id)


BFLOAT16 = 0.1  # of random weights, whose logits are about zero


@pytest.fixture
def bfloat16_anywhere(monkeypatch):
    """Where the CPU has no bfloat16 PyTorch makes it up: slow, but right."""
    monkeypatch.setattr(choice, "computes_bfloat16", lambda device: True)


@pytest.mark.parametrize("runtime,tolerance", [("onnxruntime", 1e-4), ("openvino", BFLOAT16), ("torch-bf16", BFLOAT16)])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_each_gives_what_pytorch_gives(cache, bfloat16_anywhere, small_model, runtime, tolerance, batch):
    model = load_model(str(small_model))
    network, name, _ = network_on(model, "cpu", runtime)
    assert name == runtime
    image, x_t = torch.rand(batch, 3, 128, 128) * 2 - 1, torch.randn(batch, 1, 32, 32)
    t, mask = torch.randint(1000, (batch,)), torch.randn(batch, 1, 32, 32).sign()
    with torch.inference_mode():
        features = network.encode(image)
        expected = model.network.encode(image)
        for got, wanted in zip(features, expected, strict=True):
            assert got.shape == wanted.shape
            assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()
        got = network.denoise(x_t, t, mask, tuple(f.float() for f in expected))
        wanted = model.network.denoise(x_t, t, mask, expected)
    assert got.dtype == torch.float32
    assert (got - wanted).abs().mean() <= tolerance * wanted.abs().mean()


def test_no_runtime_reports_its_use(cache, small_model):
    """Robots stand in closed networks; and nobody was asked."""
    code = f"""
import os, sys
from seqamodal_ros import Perceiver
for runtime in ("openvino", "onnxruntime"):
    assert Perceiver.load({str(small_model)!r}, "cpu", runtime=runtime).runtime == runtime
assert sys.modules["openvino_telemetry"] is None and os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""
    home = cache.parent / "home"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (home / "intel").exists()


@pytest.mark.parametrize("runtime,tolerance", [("onnxruntime", 0.002), ("openvino", BFLOAT16), ("torch-bf16", BFLOAT16)])
def test_a_perceiver_sees_the_same_layers(cache, bfloat16_anywhere, small_model, runtime, tolerance):
    torch_scene = Perceiver.load(str(small_model), "cpu", runtime="torch")(IMAGE)
    perceiver = Perceiver.load(str(small_model), "cpu", runtime=runtime)
    assert perceiver.runtime == runtime
    assert perceiver.precision in {"onnxruntime": ["float32"], "torch-bf16": ["bfloat16"]}.get(runtime, ["float32", "bfloat16"])
    assert perceiver.computed_by.endswith(f" on cpu by {runtime} in {perceiver.precision}")
    scene = perceiver(IMAGE)
    assert scene.amodal.shape == torch_scene.amodal.shape
    assert len(scene.amodal)
    assert (scene.amodal != torch_scene.amodal).mean() <= tolerance


@pytest.mark.parametrize("runtime,tolerance", [("onnxruntime", 0.002), ("openvino", BFLOAT16)])
def test_images_of_a_batch_are_seen_as_if_alone(cache, small_model, runtime, tolerance):
    """Its first step takes one row out of each image's, which do not lie one after the other in memory."""
    images = [IMAGE, np.ascontiguousarray(IMAGE[::-1, :, ::-1])]
    perceiver = Perceiver.load(str(small_model), "cpu", sampling_steps=2, runtime=runtime)
    assert perceiver.runtime == runtime
    for image, scene in zip(images, perceiver.batch(images), strict=True):
        alone = perceiver(image)
        assert scene.amodal.shape == alone.amodal.shape and len(alone.amodal)
        assert (scene.amodal != alone.amodal).mean() <= tolerance


def test_openvino_computes_batches_in_pieces_that_it_compiles_once(cache, small_model, monkeypatch):
    openvino = sys.modules["openvino"]
    compile_model, compiled, told = openvino.Core.compile_model, [], []

    def counted(core, model, *others):
        compiled.append(model.input(0).shape[0])
        told.append(others[-1]["INFERENCE_PRECISION_HINT"])
        return compile_model(core, model, *others)

    monkeypatch.setattr(openvino.Core, "compile_model", counted)
    model = load_model(str(small_model))
    network, name, precision = network_on(model, "cpu", "openvino")
    assert name == "openvino"
    assert compiled == [1, 1]  # the encoder and the denoiser, once, as the runtime was tried
    blank = torch.zeros(20, 1, 32, 32)
    noise, noisiest = torch.randn(20, 1, 32, 32, generator=torch.Generator().manual_seed(0)), torch.full((20,), 999)
    images = torch.rand(5, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        for size in (1, 2, 3, 4, 5):
            wanted, features = model.network.encode(images[:size]), network.encode(images[:size])
            for got, right in zip(features, wanted, strict=True):
                assert got.shape == right.shape
                assert (got - right).abs().max() <= BFLOAT16 * right.abs().max()
        for rows in (1, 2, 3, 4, 5, 6, 7, 11, 20):
            given = noise[:rows], noisiest[:rows], blank[:rows] - 1, tuple(each[:1].expand(rows, -1, -1, -1) for each in features)
            got, right = network.denoise(*given), model.network.denoise(*given)
            assert got.shape == right.shape
            assert (got - right).abs().max() <= BFLOAT16 * right.abs().max()
    assert set(told) == {{"bfloat16": "bf16", "float32": "f32"}[precision]}
    assert compiled == [1, 1, 2, 2, 3, 6]


def test_objects_are_told_apart_whatever_the_runtime(centred_model, cache_with_centres):
    expected, found = (
        Perceiver.load(str(centred_model), "cpu", area_min=4, runtime=name)(IMAGE) for name in ("torch", "onnxruntime")
    )
    assert len(expected.objects) > len(expected.amodal)
    assert [obj.layer for obj in found.objects] == [obj.layer for obj in expected.objects]
    for one, other in zip(found.objects, expected.objects, strict=True):
        assert (one.amodal != other.amodal).mean() <= 0.01


@pytest.mark.parametrize("runtime,tolerance", [("onnxruntime", 1e-4), ("openvino", BFLOAT16), ("torch-bf16", BFLOAT16)])
def test_features_of_a_larger_image_are_those_of_pytorch(
    numbered_model, cache_of_numbered, bfloat16_anywhere, runtime, tolerance
):
    model = load_model(str(numbered_model))
    network, name, _ = network_on(model, "cpu", runtime)
    assert name == runtime
    side, image_side = model.settings.network.mask_size, model.settings.network.image_size
    assert image_side == 5 * side
    image = torch.rand(2, 3, image_side, image_side) * 2 - 1
    with torch.inference_mode():
        pairs = [*zip(network.encode(image), model.network.encode(image), strict=True)]
    assert len(pairs) == 9  # the denoiser's and the encoder's, and all layers
    for got, wanted in pairs:
        assert got.shape == wanted.shape
        assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch-bf16"])
def test_ways_to_centres_are_those_of_pytorch(numbered_model, cache_of_numbered, bfloat16_anywhere, runtime):
    model = load_model(str(numbered_model))
    network, name, precision = network_on(model, "cpu", runtime)
    assert name == runtime
    side, image_side = model.settings.network.mask_size, model.settings.network.image_size
    layer, mask = (torch.randn(5, 1, side, side).sign() for _ in range(2))
    with torch.inference_mode():
        of_image = model.network.encode(torch.rand(1, 3, image_side, image_side))
        features = tuple(f.expand(5, -1, -1, -1) for f in of_image[model.network.conditions :])
        wanted = model.network.to_centres(layer, mask, features)
        views = tuple(torch.stack([f, f.flip(-1)], dim=1)[:, 0] for f in features)  # as of mirror images: not contiguous
        got = network.to_centres(layer, mask, views)
    assert got.shape == (5, 2, side, side)
    bfloat16 = runtime == "openvino" and precision == "bfloat16"  # torch-bf16 keeps float32 for these
    assert (got - wanted).abs().max() <= (0.02 if bfloat16 else 1e-4) * wanted.abs().max()


@pytest.mark.parametrize("runtime,tolerance", [("onnxruntime", 1e-4), ("openvino", BFLOAT16), ("torch-bf16", BFLOAT16)])
def test_each_tells_hypotheses_apart_as_pytorch_does(numbered_model, cache_of_numbered, bfloat16_anywhere, runtime, tolerance):
    model = load_model(str(numbered_model))
    network, name, _ = network_on(model, "cpu", runtime)
    assert name == runtime and network.hypotheses == 3
    side, image_side = model.settings.network.mask_size, model.settings.network.image_size
    rows = torch.randn(1, 1, side, side).expand(3, -1, -1, -1), torch.full((3,), 999), torch.full((3, 1, side, side), -1.0)
    with torch.inference_mode():
        features = tuple(f.expand(3, -1, -1, -1) for f in model.network.encode(torch.rand(1, 3, image_side, image_side)))
        wanted = model.network.denoise(*rows, features, torch.tensor([0, 2, 1]))
        got = network.denoise(*rows, features, torch.tensor([0, 2, 1]))
        none = network.denoise(*rows, features)
    assert (got - wanted).abs().mean() <= tolerance * wanted.abs().mean()
    for one, other in ((0, 1), (1, 2), (2, 0)):
        assert (got[one] - got[other]).abs().mean() > 2 * tolerance * wanted.abs().mean()
    torch.testing.assert_close(none, got[:1].expand_as(none), atol=tolerance, rtol=0)


def test_auto_takes_the_fastest_that_is_there(cache, small_model, monkeypatch):
    def runtime():
        return Perceiver.load(str(small_model), "cpu").runtime

    assert runtime() == "openvino"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert runtime() == "onnxruntime"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert runtime() == "torch"


def test_pytorch_gets_back_the_threads_that_an_export_took(cache, small_model, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(choice, "_threads_before", None)

    def after_each(*runtimes):
        for runtime in runtimes:
            Perceiver.load(str(small_model), "cpu", runtime=runtime)
            yield torch.get_num_threads()

    try:
        torch.set_num_threads(3)
        assert [*after_each("torch", "openvino", "onnxruntime", "torch", "torch", "openvino")] == [3, 1, 1, 3, 3, 1]
        torch.set_num_threads(2)  # the caller's own choice
        assert [*after_each("torch", "openvino", "torch")] == [2, 1, 2]
    finally:
        torch.set_num_threads(before)


def test_without_an_export_auto_is_torch_in_float32_and_says_nothing(
    bfloat16_anywhere, small_model, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    perceiver = Perceiver.load(str(small_model), "cpu")
    assert (perceiver.runtime, perceiver.precision) == ("torch", "float32")
    assert not caplog.records


def test_a_named_one_that_is_missing_is_told_and_the_next_best_takes_its_place(cache, small_model, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert Perceiver.load(str(small_model), "cpu", runtime="onnxruntime").runtime == "openvino"
    assert "pip install -r requirements/runtimes.txt" in caplog.text and "falling back to 'openvino'" in caplog.text
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert Perceiver.load(str(small_model), "cpu", runtime="onnxruntime").runtime == "torch"
    assert "falling back to 'torch'" in caplog.text
    caplog.clear()
    shutil.rmtree(folder_of(small_model))
    assert Perceiver.load(str(small_model), "cpu", runtime="onnxruntime").runtime == "torch"
    assert f"`{sys.executable} -m seqamodal_ros export --model {small_model}`" in caplog.text


def exports_a_copy_of(folder, monkeypatch):
    """Have an export be a copy of another one's files, as making them takes half a minute."""
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != CARD}
    monkeypatch.setattr(exported, "_write", lambda model, part: [(part / name).write_bytes(data) for name, data in files.items()])


def command_in(text):
    """The arguments of `export` that a message says to run."""
    (command,) = re.findall(r"`(.*?)`", text)
    python, *arguments = shlex.split(command)
    assert python == sys.executable and arguments[:3] == ["-m", "seqamodal_ros", "export"]
    return arguments[3:]


def test_the_command_for_a_file_of_ones_own_works_in_any_folder(cache, small_model, tmp_path, monkeypatch, caplog):
    exports_a_copy_of(folder_of(small_model), monkeypatch)
    own = tmp_path / "my models" / "mine.safetensors"
    own.parent.mkdir()
    shutil.copy(small_model, own)
    monkeypatch.chdir(own.parent)
    assert Perceiver.load("mine.safetensors", "cpu", runtime="openvino").runtime == "torch"
    monkeypatch.chdir(tmp_path)
    assert export_command(command_in(caplog.text)) == 0
    assert Perceiver.load(own, "cpu", runtime="openvino").runtime == "openvino"


def test_the_command_for_a_shipped_model_names_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Perceiver.load("fast-small", "cpu", runtime="onnxruntime").runtime == "torch"
    assert command_in(caplog.text) == ["--model", "fast-small"]


def test_after_an_update_of_the_weights_auto_tells_how_to_export_them_anew(cache, small_model, tmp_path, monkeypatch, caplog):
    exports_a_copy_of(folder_of(small_model), monkeypatch)
    before = load_model(str(small_model))
    updated = tmp_path / small_model.name
    state = before.network.state_dict()
    save_model(updated, {**state, "denoiser.out.3.bias": state["denoiser.out.3.bias"] + 1e-3}, before.settings)
    assert Perceiver.load(updated, "cpu").runtime == "torch"
    (told,) = caplog.messages
    assert f"holds {folder_of(small_model).name} of other weights of that name, and no export of these" in told
    monkeypatch.setattr(exported, "PARITY", 1.0)  # the files are of those before
    assert export_command(command_in(told)) == 0
    caplog.clear()
    for path in (updated, small_model):
        assert Perceiver.load(path, "cpu").runtime == "openvino"
    assert not caplog.records


def _truncate(folder):
    (folder / DENOISER).write_bytes((folder / DENOISER).read_bytes()[:-100])


def _card_with(**values):
    def change(folder):
        card = json.loads((folder / CARD).read_text())
        (folder / CARD).write_text(json.dumps({**card, **values}))

    return change


EDITED = (
    {"prediction": "epsilon", "blank": 0.0},
    {"blank": 0.0},
    {"hypotheses": "5"},
    {"conditions": 99},
    {"centres": True},
    {"sha256": {}},
    {"sha256": []},
)  # each would be a sequence of wrong masks, or an error in every frame


@pytest.mark.parametrize(
    "damage,words",
    [
        (_truncate, "is not what was written there"),
        (_card_with(model_id="other@sha256:1234"), "is of other@sha256:1234"),
        (_card_with(code="0" * 64), "was made by another version"),
        (lambda folder: (folder / CARD).write_text('{"code": "0", "kind": 1}'), "was made by another version"),
        (lambda folder: (folder / DENOISER).unlink(), "is damaged"),
        (lambda folder: (folder / CARD).write_text("{"), "is damaged"),
        (lambda folder: (folder / CARD).write_text('{"kind": 1}'), "is damaged"),
        *((_card_with(**wrong), "is not what was written there") for wrong in EDITED),
        (_card_with(model_id=5), "is of 5"),
    ],
    ids=["truncated", "other weights", "other code", "other code's card", "missing file", "no json", "other card"]
    + [*(next(iter(wrong)) for wrong in EDITED), "id"],
)
def test_an_export_that_cannot_be_trusted_is_refused(cache, small_model, caplog, damage, words):
    folder = folder_of(small_model)
    damage(folder)
    with pytest.raises(ValueError, match=words):
        read_card(folder, load_model(str(small_model)))
    assert Perceiver.load(str(small_model), "cpu", runtime="openvino").runtime == "torch"
    assert words in caplog.text and "make it anew" in caplog.text
    caplog.clear()
    assert Perceiver.load(str(small_model), "cpu").runtime == "torch"
    assert words in caplog.text


def test_a_runtime_that_cannot_read_the_export_is_told_and_the_next_best_taken(cache, small_model, monkeypatch, caplog):
    class OwnError(Exception):
        pass

    def fails(folder, card):
        raise OwnError("this opset is too new")

    monkeypatch.setitem(choice.OF_EXPORTS, "openvino", fails)
    assert Perceiver.load(str(small_model), "cpu").runtime == "onnxruntime"
    assert "this opset is too new" in caplog.text and "falling back to 'onnxruntime'" in caplog.text
    monkeypatch.setitem(choice.OF_EXPORTS, "onnxruntime", fails)
    assert Perceiver.load(str(small_model), "cpu").runtime == "torch"
    assert "falling back to 'torch'" in caplog.text


@pytest.mark.parametrize("part", [0, 1], ids=["encoder", "denoiser"])
def test_an_export_that_openvino_reads_and_cannot_compile_gets_the_next_best(cache, small_model, monkeypatch, caplog, part):
    compile_model, count = sys.modules["openvino"].Core.compile_model, iter(range(9))

    def fails(*given):
        if next(count) == part:
            raise RuntimeError("no such operation")
        return compile_model(*given)

    monkeypatch.setattr(sys.modules["openvino"].Core, "compile_model", fails)
    assert Perceiver.load(str(small_model), "cpu").runtime == "onnxruntime"
    assert "'openvino' is unavailable (no such operation): falling back to 'onnxruntime'" in caplog.text


def test_openvino_compiles_nothing_in_a_frame_after_warming_up(numbered_model, cache_of_numbered, monkeypatch):
    """With several cameras of which any may come alone."""
    perceiver = Perceiver.load(str(numbered_model), "cpu", runtime="openvino", sampling_steps=2, area_min=4)
    assert perceiver.runtime == "openvino"
    perceiver.warm_up(num_samples=4, images=3)
    parts = (perceiver.network.network._encoder, perceiver.network.network._denoiser, *perceiver.network.network._centres)
    assert [{*each._compiled} for each in parts] == [{*pieces} for pieces in PIECES]

    def compiles(*given):
        raise AssertionError("a frame waits for a compiler")

    monkeypatch.setattr(sys.modules["openvino"].Core, "compile_model", compiles)
    for count in (1, 2, 3):
        assert len(perceiver.batch([IMAGE] * count, 4, count)) == count


def test_no_memory_on_a_gpu_is_told_with_a_way_out(small_model, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(torch.OutOfMemoryError, match="no memory for the model: free some, or use the device cpu .*2.00 GiB"):
        network_on(load_model(str(small_model)), "cuda", "torch")


def test_bfloat16_is_left_where_the_hardware_has_none(small_model, monkeypatch, caplog):
    monkeypatch.setattr(choice, "computes_bfloat16", lambda device: False)
    assert Perceiver.load(str(small_model), "cpu", runtime="torch-bf16").runtime == "torch"
    assert "the cpu here does not compute in bfloat16" in caplog.text and "falling back to 'torch'" in caplog.text


@pytest.mark.parametrize("name,known", [("avx512_bf16", True), ("amx_bf16", True), ("bf16", True), ("avx2", False)])
def test_bfloat16_is_what_pytorch_says_of_the_cpu(monkeypatch, name, known):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, name: True}, raising=False)
    assert computes_bfloat16("cpu") is known


def test_a_pytorch_that_does_not_say_is_taken_for_one_without(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not computes_bfloat16("cpu")


@pytest.mark.parametrize(
    ("able", "slower"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": False}, False),  # it is not computed in at all
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True}, False),
        ({"bf16": True}, False),
    ],
)
def test_bfloat16_is_not_taken_where_it_is_slower(cache, small_model, monkeypatch, able, slower):
    """Of OpenVINO's own word on what the CPU can do nothing is changed."""
    can = sys.modules["openvino"].Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert slower_in_bfloat16("cpu") is slower and not slower_in_bfloat16("cuda")
    taken = "bfloat16" if "BF16" in can and not slower else "float32"
    assert Perceiver.load(str(small_model), "cpu", runtime="openvino").precision == taken


@pytest.mark.parametrize("known", [True, False])
def test_bfloat16_of_a_gpu_is_its_own_not_a_made_up_one(monkeypatch, known):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or known)
    assert computes_bfloat16("cuda:0") is known


def test_bfloat16_is_known_of_an_x86_cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), None)
    if flags is None:
        pytest.skip("no x86 Linux, whose /proc/cpuinfo tells")
    assert computes_bfloat16("cpu") == bool(flags & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize("text", ["", "0", "2,1", "many"])
def test_threads_are_a_number_whatever_openmp_is_told(monkeypatch, text):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert exported.threads() == (2 if text == "2,1" else len(os.sched_getaffinity(0)))


def test_exports_take_as_many_threads_as_openmp_is_told(cache, small_model, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    openvino, onnxruntime = sys.modules["openvino"].Core, sys.modules["onnxruntime"]
    compile_model, session, told = openvino.compile_model, onnxruntime.InferenceSession, []

    def compiled(core, model, device, settings):
        told.append(settings["INFERENCE_NUM_THREADS"])
        return compile_model(core, model, device, settings)

    def begun(path, options, **others):
        told.append(options.intra_op_num_threads)
        return session(path, options, **others)

    monkeypatch.setattr(openvino, "compile_model", compiled)
    monkeypatch.setattr(onnxruntime, "InferenceSession", begun)
    for runtime in ("openvino", "onnxruntime"):
        assert network_on(load_model(str(small_model)), "cpu", runtime).runtime == runtime
        assert told == [3, 3]  # encoder and denoiser
        told.clear()


def test_an_unknown_runtime_is_refused(small_model):
    with pytest.raises(ValueError, match="runtime must be one of auto, torch, .*, not 'tensorrt'"):
        Perceiver.load(str(small_model), "cpu", runtime="tensorrt")


def test_an_export_that_fails_leaves_the_one_before(cache, small_model, monkeypatch):
    folder = folder_of(small_model)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(exported, "_write", full)
    assert export_command(["--model", str(small_model)]) == 2
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_export_that_cannot_take_its_place_leaves_the_one_before(cache, small_model, monkeypatch):
    folder = folder_of(small_model)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    rename = Path.rename

    def full(self, target):
        if Path(target) == folder and not self.name.endswith("-before"):
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(exported, "_write", lambda model, part: [shutil.copy(file, part) for file in folder.iterdir()])
    monkeypatch.setattr(exported, "_difference", lambda *args: 0.0)
    monkeypatch.setattr(Path, "rename", full)
    assert export_command(["--model", str(small_model)]) == 2
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_export_is_for_all_who_may_read_what_its_maker_writes(cache, small_model):
    folder = folder_of(small_model)
    umask = os.umask(0o027)
    try:
        assert export_command(["--model", str(small_model)]) == 0
    finally:
        os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o750


def test_the_command_says_what_is_missing(monkeypatch, capsys):
    assert export_command(["--model", "nonsense"]) == 2
    assert "unknown model 'nonsense'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert export_command([]) == 2
    assert "pip install -r requirements/runtimes.txt" in capsys.readouterr().err


def test_an_export_that_differs_is_not_kept(cache, small_model, monkeypatch, capsys):
    folder = folder_of(small_model)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(exported, "_write", lambda model, part: [shutil.copy(file, part) for file in folder.iterdir()])
    monkeypatch.setattr(exported, "_difference", lambda *args: 0.5)
    assert export_command(["--model", str(small_model)]) == 2
    assert "the export differs from PyTorch by 5.0e-01" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


class Noisy:
    """An export that answers as PyTorch, with something added to what a part of it says."""

    def __init__(self, network, added, part="denoise"):
        self.network, self.added, self.batches = network, dict.fromkeys(("encode", "denoise", "to_centres"), 0.0), []
        self.added[part] = added

    def encode(self, image):
        *others, last = self.network.encode(image)
        return *others, last + self.added["encode"]

    def denoise(self, x_t, *given):
        self.batches.append(len(x_t))
        return self.network.denoise(x_t, *given) + self.added["denoise"]

    def to_centres(self, *given):
        return self.network.to_centres(*given) + self.added["to_centres"]


@pytest.mark.parametrize("added", [float("nan"), float("inf"), 0.01])
@pytest.mark.parametrize(
    "kind", ["small_model", "centred_model"]
)  # of the latter the prediction is not the last that is compared
def test_an_export_that_answers_no_numbers_or_others_is_not_kept(kind, added, request, tmp_path, monkeypatch):
    model = load_model(str(request.getfixturevalue(kind)))
    monkeypatch.setattr(exported, "_write", lambda model, part: None)
    with pytest.raises(ValueError, match="the export differs from PyTorch by .*it is not kept"):
        exported.export(model, tmp_path / "export", lambda folder, card: Noisy(model.network, added))
    assert not [*tmp_path.iterdir()]
    whole = Noisy(model.network, 0.0)
    assert exported.export(model, tmp_path / "export", lambda folder, card: whole) == 0
    assert whole.batches == [1, 3]


@pytest.mark.parametrize("part", ["encode", "denoise", "to_centres"])
def test_each_part_of_an_export_is_compared(centred_model, part, tmp_path, monkeypatch):
    model = load_model(str(centred_model))
    monkeypatch.setattr(exported, "_write", lambda model, folder: None)
    with pytest.raises(ValueError, match="the export differs from PyTorch by"):
        exported.export(model, tmp_path / "export", lambda folder, card: Noisy(model.network, 10.0, part))


@pytest.mark.parametrize(("added", "kept"), [(0.01, True), (1.0, False), (float("nan"), False)])
def test_a_runtime_in_bfloat16_may_differ_more_but_not_by_anything(small_model, tmp_path, monkeypatch, added, kept):
    model = load_model(str(small_model))
    monkeypatch.setattr(exported, "_write", lambda model, part: None)
    loads = [lambda folder, card, by=by: Noisy(model.network, by) for by in (0.0, added)]
    if kept:
        exported.export(model, tmp_path / "export", *loads)
    else:
        with pytest.raises(ValueError, match="on average, more than 1e-01: the export is not kept"):
            exported.export(model, tmp_path / "export", *loads)
    assert (tmp_path / "export").is_dir() == kept


def test_an_export_that_openvino_cannot_compute_is_kept_for_the_other_runtime(cache, small_model, monkeypatch, caplog):
    exports_a_copy_of(folder_of(small_model), monkeypatch)

    def fails(*given):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(sys.modules["openvino"].Core, "compile_model", fails)
    assert export_command(["--model", str(small_model)]) == 0
    assert "OpenVINO cannot compute the export, which is kept all the same: no such operation" in caplog.text

# SPDX-License-Identifier: Apache-2.0
"""The tables, on small models that are really trained, for two steps each."""

import json
import shutil
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import training.data.packed
import training.evaluate
import training.tables
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.paper import PaperSettings
from seqamodal_ros.diffusion.weights import ModelSettings, save_model
from seqamodal_ros.settings import from_mapping
from training.begin import build
from training.comparison import AT_ONCE, Comparison, figures_of
from training.data.compositor import CompositeSettings, Compositor, evaluation_compositor, in_turns
from training.data.packed import PackedScenes, fingerprint
from training.data.scene import Scene
from training.evaluate import Evaluation
from training.figures import worst_first
from training.hybrid import HybridSettings
from training.loop import LoopSettings
from training.methods import Layers
from training.objective import ObjectiveSettings
from training.one_shot import OneShotSettings
from training.settings import TrainSettings
from training.variants import TablesSettings, variants

from .conftest import split_of_texture

COMPOSITES = CompositeSettings(image_size=64, mask_size=16, area_min=2, max_layers=2, counts=(0, 0.3, 0.7))
CONFIG = {
    "train": {
        "network": {"image_size": 64, "mask_size": 16, "encoder_channels": [8] * 4, "denoiser_channels": [8] * 3},
        "backbone": {"imagenet": False, "frozen_stages": 0},
        "composites": {"image_size": 64, "mask_size": 16, "area_min": 2, "max_layers": 2},
        "objective": {"own": 0.0, "imperfect": 0.0, "partial": 0.0},
        "loop": {"steps": 2, "batch_size": 2, "workers": 0},
        "packed": 1.0,
    }
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory, material):
    """A packed set of eight scenes for training, one of six for testing; two images each are of one scene."""
    root = tmp_path_factory.mktemp("sets")
    compositor = Compositor(material, COMPOSITES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.data.packed, "in_parallel", lambda work, count, _: map(work, range(count)))
        for split, count in (("train", 8), ("test", 6)):
            scenes = [compositor(np.random.default_rng([count, k])) for k in range(count)]
            about, sources = {"split": split, "settings": asdict(COMPOSITES)}, np.arange(count) // 2
            training.data.packed.pack(root / split, about, lambda _, made=(scenes, sources, {}): made, 1)
    return root


def run(monkeypatch, module, *words) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    module.main()


def rows(text: str, table: str) -> dict[str, list[str]]:
    """First cell -> other cells, of the table under a heading that begins so."""
    part = next(part for part in text.split("\n## ") if part.startswith(table))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines[2:]}


@pytest.fixture
def words(tmp_path, sets):
    config = tmp_path / "tables.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    return [config, "--train", sets / "train", "--test", sets / "test", "--out", tmp_path / "out"]


def test_what_was_trained_has_figures_and_the_rest_says_so(tmp_path, words, monkeypatch, capsys):
    out = tmp_path / "out"
    run(monkeypatch, training.tables, *words, "--models")
    empty = (out / "tables.md").read_text()
    assert set(rows(empty, "Table 1")["K = 3"]) == {"not run"}
    trained = ["ours", "equal_compute_layer_1", "equal_compute_layer_2", "one_shot_diffusion", "sequential_regression"]
    run(monkeypatch, training.tables, *words, "--models", *trained)
    text = (out / "tables.md").read_text()
    assert text in capsys.readouterr().out
    for k in (3, 5, 7, 9):
        assert "not run" not in rows(text, "Table 1")[f"K = {k}"]
    assert rows(text, "Table 1")["*K = 3, ACOM*"] == ["*57.1 / 57.8*", "*44.8 / 45.4*"]  # as many layers as the set has
    assert rows(text, "Table 2")["selected mask"] == rows(text, "Table 1")["K = 3"]
    assert rows(text, "Table 3")["0%"] == rows(text, "Table 1")["K = 3"]
    assert rows(text, "Table 3")["5%"] == ["not run"] * 2
    fourth = rows(text, "Table 4")
    assert fourth["a model a layer, equal iterations, half of the rows blank"] == ["not run"] * 2
    assert "not run" not in fourth["a model a layer, equal compute, half of the rows blank"]
    assert rows(text, "Table 5")["PointRend"] == ["not run"] * 3
    grid = rows(text, "2x2")
    assert grid["one-shot, regression (K = 1, 1 step)"] == ["not run"] * 5
    for name in (
        "sequential, diffusion (K = 3, 2 steps)",
        "sequential, regression (K = 1, 1 step)",
        "one-shot, diffusion (K = 3, 2 steps)",
    ):
        assert "not run" not in grid[name]
    # what was worked out is kept, and taken again
    kept = {path: path.read_text() for path in (out / "figures").iterdir()}
    assert len(kept) == 8  # K = 3, 5, 7, 9; mean mask; models of a layer; regression; one-shot
    monkeypatch.setattr(training.comparison, "sequential_layers", None)
    run(monkeypatch, training.tables, *words, "--models")
    assert (out / "tables.md").read_text() == text
    assert {path: path.read_text() for path in (out / "figures").iterdir()} == kept
    # another training set, or another configuration, would make other models
    config = tmp_path / "tables.yaml"
    config.write_text(config.read_text().replace("own: 0.0", "own: 0.5"))
    with pytest.raises(SystemExit):
        run(monkeypatch, training.tables, *words, "--models")
    assert "ours was trained by another configuration, or on another set: give another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--models", "our"], "there is no model 'our': choose from ours, noise_05"),
        (["--test", "{train}"], "was made for training: measure on a set for val, test or unseen"),
        (["--train", "{test}"], "is a set for test: train on one that was made for training"),
    ],
)
def test_mistakes_are_told_in_a_line(sets, words, monkeypatch, capsys, change, message):
    with pytest.raises(SystemExit):
        run(monkeypatch, training.tables, *words, *(word.format(train=sets / "train", test=sets / "test") for word in change))
    assert message in capsys.readouterr().err


def test_sets_that_are_deeper_or_shallower_than_the_models(tmp_path, sets, words, monkeypatch, capsys):
    """Deeper scenes are left out of training if asked, and told of where they are measured on."""
    described = {"train": {**CONFIG["train"], "composites": {**CONFIG["train"]["composites"], "max_layers": 1}}}
    words[0].write_text(yaml.safe_dump(described))
    with pytest.raises(SystemExit):
        run(monkeypatch, training.tables, *words, "--models")
    assert "more than the 1 that the configuration draws: leave these scenes out by --leave-out-deeper" in capsys.readouterr().err
    run(monkeypatch, training.tables, *words, "--models", "--leave-out-deeper")
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "of these images have up to 2 layers, more than the 1 that the models draw" in text.split("## Table 1")[0]
    described["train"]["composites"]["max_layers"] = 3
    words[0].write_text(yaml.safe_dump(described))
    with pytest.raises(SystemExit):
        run(monkeypatch, training.tables, *words, "--models")
    said = f"draws up to 3 layers, scenes of {sets / 'train'} have at most 2: set `composites: {{max_layers: 2}}`"
    assert said in capsys.readouterr().err


@pytest.fixture
def model(tmp_path):
    """A file of random weights that reads images of the sample frames' kind."""
    torch.manual_seed(0)
    network, file = FastNetwork(FastSettings(256, 64, (8, 8, 8, 8), (8, 8, 8))), tmp_path / "small.safetensors"
    save_model(file, network.state_dict(), ModelSettings(network.settings))
    return file


def test_images_are_of_a_worse_camera_where_the_configuration_says_so(words, monkeypatch):
    changed = {**CONFIG["train"], "composites": {**CONFIG["train"]["composites"], "worn": 1.0}}
    words[0].write_text(yaml.safe_dump({"train": changed}))
    sources = []

    def fit(_settings, source, *_):
        sources.append(source)
        raise KeyboardInterrupt

    monkeypatch.setattr(training.tables, "fit", fit)
    with pytest.raises(SystemExit):
        run(monkeypatch, training.tables, *words, "--models", "ours")
    assert sources[0].worn == 1.0


def test_what_is_measured_is_the_average_of_a_run_that_ended_once_for_each_seed_and_scenes(tmp_path, monkeypatch):
    settings = from_mapping(TablesSettings, CONFIG)
    scene = Scene(np.zeros((64, 64, 3), np.uint8), np.ones((1, 16, 16), bool), np.zeros((1, 1), bool))
    average = build(settings.train.network).state_dict()
    noise = []

    def layers(network, images, *given):
        assert all(torch.equal(value, average[name]) for name, value in network.state_dict().items())
        noise.append(given[-2])
        return [Layers(np.ones((1, 16, 16), bool), np.ones((1, 1, 16, 16), bool))] * len(images)

    def figures(seed: int = 1, count: int = AT_ONCE + 1):
        return Comparison(settings, tmp_path, "a set", [scene] * count, seed).sequential("ours", 3)

    monkeypatch.setattr(training.comparison, "sequential_layers", layers)
    checkpoint = Comparison(settings, tmp_path, "a set", [scene], 1).claim("ours") / "checkpoint.pt"
    state = {"ema": average, "network": {name: 0 * value for name, value in average.items()}, "seconds": 0.0}
    torch.save({**state, "step": 1}, checkpoint)
    assert figures() is None  # of two steps
    torch.save({**state, "step": 2}, checkpoint)
    assert figures() == figures() and noise == [1, 1 + AT_ONCE]
    figures(seed=2)
    figures(count=1)
    assert noise[2:] == [2, 2 + AT_ONCE, 1]


def test_one_shot_models_have_none_of_the_parts_that_a_sequential_one_may_have():
    network = FastSettings(layers=5, centre_channels=(48, 32, 32), hypotheses=5)
    ours = TrainSettings(network=network, objective=ObjectiveSettings(all_layers=1.0, centres=0.5), packed=1.0)
    found = variants(TablesSettings(ours))
    assert found["ours"].network == network
    assert found["one_shot_diffusion"].network == found["one_shot_regression"].network == OneShotSettings()


def test_the_models_that_are_compared():
    settings = TablesSettings(TrainSettings(packed=1.0, loop=LoopSettings(steps=1000)))
    found = variants(settings)
    assert len(found) == 1 + 4 + 2 * 5 + 3
    assert found["noise_15"].objective.noise_introduction == 0.15
    assert [found[f"equal_iterations_layer_{k}"].objective.only_layer for k in range(1, 6)] == [1, 2, 3, 4, 5]
    assert sum(found[f"equal_compute_layer_{k}"].loop.steps for k in range(1, 6)) == 1000
    assert sum(found[f"equal_compute_layer_{k}"].loop.warmup for k in range(1, 6)) == found["ours"].loop.warmup
    assert found["sequential_regression"].objective.noise_only == found["one_shot_regression"].objective.noise_only == 1
    assert found["one_shot_diffusion"].objective.noise_only == ObjectiveSettings().noise_only
    assert found["one_shot_diffusion"].network.encoder_channels == settings.train.network.encoder_channels
    paper = variants(TablesSettings(TrainSettings(network=PaperSettings(), objective=HybridSettings(), packed=1.0)))
    assert len(paper) == 1 + 4 + 2 * 5
    assert paper["noise_20"].objective.noise_introduction == 0.2
    with pytest.raises(ValueError, match=r"trained on a packed set alone: set `train: {packed: 1.0}`, not 0.0"):
        TablesSettings()


def test_the_figures_of_a_method_by_hand():
    """Two layers of 4 x 4 pixels; half of the second is hidden. One hypothesis finds all of that half, one some, one nothing."""
    front, behind, visible = np.zeros((3, 4, 4), bool)
    front[:, :2], behind[:, 1:3], visible[:, 2] = True, True, True
    quarter = visible.copy()
    quarter[:2, 1] = True
    seen = Layers(np.array([front, quarter]), np.array([[front] * 3, [visible, behind, quarter]]))
    nothing = Layers(np.zeros((0, 4, 4), bool), np.zeros((0, 3, 4, 4), bool))
    scene = Scene(np.zeros((16, 16, 3), np.uint8), np.array([front, behind]), np.array([[False, False], [True, False]]))
    figures = figures_of([seen, nothing], [scene] * 2, 2, area_min=1)
    first, second = figures["layers"]
    assert (first["iou"], first["images"]) == (0.5, 2)
    assert second["iou"] == pytest.approx((6 / 8 + 0) / 2)
    assert figures["hidden"] == pytest.approx([0 / 2, (1 + 0) / 2, (0.5 + 0) / 2])  # of the first, the best, the mean of them
    ap = 1 * 0.75 + 0.25 * 0.5
    aps = [figures[name] for name in ("ap_with_layer", "ap_without_layer", "ap_by_object")]
    assert aps == pytest.approx([(1 + ap + 0.5 + 0.5) / 4] * 3)


class TestEvaluate:
    """The command, on a packed set."""

    def test_figures_differences_and_a_sheet(self, tmp_path, sets, small_model_16, monkeypatch, capsys):
        first, second = tmp_path / "first.json", tmp_path / "second.json"
        words = ["--model", small_model_16, "--set", sets / "test", "--count", 5]
        run(monkeypatch, training.evaluate, *words, "--out", first, "--sheets", tmp_path / "sheets")
        printed = capsys.readouterr().out
        assert f"**{sets.name} test**, 5 images" in printed
        assert "it cannot draw the others" not in printed
        kinds = ("best", "reliability", "typical", "worst")
        assert [path.name for path in sorted((tmp_path / "sheets").iterdir())] == [
            f"{sets.name}_test_{kind}.png" for kind in kinds
        ]
        (figures,) = json.loads(first.read_text())["figures"]
        assert figures["images"] == 5
        assert len(figures["iou_by_image"]) == 5
        assert figures["groups"] == [0, 0, 1, 2, 2]  # of images 0, 1, 2, 4 and 5
        assert figures["seconds"] > 0 and figures["max_layers"] == 2
        assert [row["images"] for row in figures["layers"]][0] == 5
        assert "more than the" not in printed and "; free-running in " in printed
        run(monkeypatch, training.evaluate, *words, "--samples", 1, "--against", first, "--out", second)
        assert "minus small@sha256:" in capsys.readouterr().out
        monkeypatch.chdir(sets / "test")  # however the set is named
        run(monkeypatch, training.evaluate, "--model", small_model_16, "--set", ".", "--count", 5, "--against", first)
        assert "minus small@sha256:" in capsys.readouterr().out
        monkeypatch.setattr(training.evaluate, "free_running", None)  # told before anything is measured
        with pytest.raises(SystemExit):
            run(monkeypatch, training.evaluate, *words[:-1], 4, "--against", first)
        assert "are of other images: measure both models on the same" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            run(monkeypatch, training.evaluate, *words[:3], shutil.copytree(sets / "test", tmp_path / "else"), "--against", first)
        assert f"{first} has no figures of '{tmp_path.name} else': give a file of the same set" in capsys.readouterr().err

    def test_it_is_interrupted_in_a_line(self, sets, small_model_16, monkeypatch, capsys):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(training.evaluate, "free_running", interrupted)
        with pytest.raises(SystemExit) as ended:
            run(monkeypatch, training.evaluate, "--model", small_model_16, "--set", sets / "test")
        assert ended.value.code == 130
        assert capsys.readouterr().err.endswith(": interrupted\n")

    def test_layers_that_the_model_cannot_draw_are_told(self, tmp_path, sets, small_model_16, monkeypatch, capsys):
        from seqamodal_ros.diffusion.weights import load_model, save_model

        model = load_model(str(small_model_16))
        shallow = replace(model.settings, sequence=replace(model.settings.sequence, max_layers=1))
        save_model(tmp_path / "shallow.safetensors", model.network.state_dict(), shallow)
        words = ["--model", tmp_path / "shallow.safetensors", "--set", sets / "test", "--out", tmp_path / "out.json"]
        run(monkeypatch, training.evaluate, *words)
        first, table = capsys.readouterr().out.split("**, 6 images: ")
        assert "have up to 2 layers, the model draws 1: it cannot draw the others" in first
        assert "of these images have up to 2 layers, more than the 1 that the model draws." in table.split("| can be picked")[0]
        (figures,) = json.loads((tmp_path / "out.json").read_text())["figures"]
        assert (figures["max_layers"], len(figures["layers"])) == (1, 2)

    def test_what_is_asked_for_is_what_is_measured(self, tmp_path, sets, small_model_16, monkeypatch):
        called = {}
        for name in ("free_running", "teacher_forced", "answer_sheet"):
            of = called.setdefault(name, []), getattr(training.evaluate, name)
            monkeypatch.setattr(training.evaluate, name, lambda *given, of=of: (of[0].append(given), of[1](*given))[1])
        monkeypatch.setattr(training.evaluate, "SHOWN", 1)
        words = ["--model", small_model_16, "--set", sets / "test", "--out", tmp_path / "out.json", "--sheets", tmp_path]
        run(monkeypatch, training.evaluate, *words, "--seed", 7, "--steps", 3, "--mirror")
        result = json.loads((tmp_path / "out.json").read_text())
        assert (result["steps"], result["mirror"], result["seed"]) == (3, True, 7)
        assert called["free_running"][0][-1] == called["teacher_forced"][0][-1] == 7
        ranked, test = worst_first(result["figures"][0]), PackedScenes(sets / "test")
        for sheet, number in ((0, ranked[0]), (2, ranked[-1])):  # the worst, and the best behind the typical ones
            assert (called["answer_sheet"][sheet][0][0].image == test[number].image).all()

    def test_a_lack_of_memory_is_told_in_a_line(self, sets, small_model_16, monkeypatch, capsys):
        import torch

        def full(*_):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

        monkeypatch.setattr(training.evaluate, "free_running", full)
        with pytest.raises(SystemExit) as ended:
            run(monkeypatch, training.evaluate, "--model", small_model_16, "--set", sets / "test")
        assert ended.value.code == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith("error: CUDA out of memory. Tried to allocate 20 GiB")

    def test_the_raw_material_the_sample_frames_two_truths_and_bare_textures(self, tmp_path, model, data, monkeypatch, capsys):
        monkeypatch.setattr(training.evaluate, "TWO_TRUTHS", 3)
        words = ["--model", model, "--data", data, "--sprites", data / "rendered", "--count", 4, "--samples", 1]
        run(monkeypatch, training.evaluate, *words, "--out", tmp_path / "out.json", "--sheets", tmp_path / "sheets")
        result = json.loads((tmp_path / "out.json").read_text())
        of = {figures["set"]: figures["images"] for figures in result["figures"]}
        assert of == {"test composites": 4, "test composites, fruits": 2, "test composites, objects": 2, "sample frames": 12}
        assert result["two_truths"].keys() == {"both_found", "best_of_3", "mean_hypothesis"}
        low, high = result["bare_textures_blank_interval"]
        assert 0 <= low <= result["bare_textures_blank"] <= high <= 1 and high - low > 0.5  # of one texture
        printed = capsys.readouterr().out
        assert "the true union of all objects taken for layer 1" in printed and "bare test textures: " in printed
        assert f" [{100 * low:.1f}, {100 * high:.1f}] % of 1 give no layer" in printed
        kinds = ("best", "reliability", "typical", "worst")
        sheets = [f"{name}_{kind}.png" for name in ("sample_frames", "test_composites") for kind in kinds]
        assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == sheets

    def test_without_any_set_the_sample_frames_alone(self, tmp_path, model, monkeypatch):
        run(monkeypatch, training.evaluate, "--model", model, "--samples", 1, "--out", tmp_path / "out.json")
        result = json.loads((tmp_path / "out.json").read_text())
        assert [(figures["set"], figures["images"]) for figures in result["figures"]] == [("sample frames", 12)]

    def test_the_seed_is_that_of_composites_and_of_their_noise(self, data, monkeypatch):
        monkeypatch.setattr(training.evaluate, "read_samples", lambda _: [])
        measured = []
        evaluation = object.__new__(Evaluation)  # without a model
        evaluation.mask_size, evaluation.result = 64, {}
        evaluation._two_truths, evaluation._bare_textures = lambda _: {}, dict
        evaluation.of = lambda name, scenes, groups, seed, *_: measured.append((fingerprint([s.layers for s in scenes]), seed))
        for seed in (1, 2):
            evaluation.args = arguments(data, count=2, seed=seed)
            evaluation.composites()
        assert [seed for _, seed in measured] == [1, 0, 2, 0]  # of sample frames always 0
        assert measured[0][0] != measured[2][0]

    def test_both_truths_are_looked_for_in_the_second_layer(self, data, monkeypatch):
        monkeypatch.setattr(training.evaluate, "TWO_TRUTHS", 4)
        compositor = evaluation_compositor(data, data / "rendered", "test")
        pairs = in_turns(compositor.two_truths, compositor.material, 4, seed=3)
        drawn = [np.stack([whole.amodal[[0, 0]], [whole.amodal[1], cut.amodal[1]]]) for whole, cut in pairs]
        monkeypatch.setattr(training.evaluate, "free_running", lambda *_: [SimpleNamespace(hypotheses=each) for each in drawn])
        figures = Evaluation._two_truths(SimpleNamespace(args=arguments(data, seed=3), perceiver=None), compositor)
        assert (figures["both_found"], figures["best_of_3"]) == (1, 1)

    @pytest.mark.parametrize(("split", "layers"), [("test", 0), ("val", 1)])
    def test_bare_textures_are_those_of_the_split_and_right_where_nothing_is_seen(self, data, monkeypatch, split, layers):
        shown = []
        seen = [SimpleNamespace(amodal=np.ones((layers, 4, 4), bool))]
        monkeypatch.setattr(training.evaluate, "free_running", lambda _, images, *__, **___: (shown.extend(images), seen)[1])
        found = Evaluation._bare_textures(SimpleNamespace(args=arguments(data, split=split), perceiver=None))
        assert found["bare_textures_blank"] == 1 - layers
        assert [split_of_texture(texture) for texture in shown] == [split]

    def test_a_family_of_which_no_scene_was_asked_for_has_no_figures(self, tmp_path, model, data, monkeypatch):
        monkeypatch.setattr(training.evaluate, "TWO_TRUTHS", 1)
        words = ["--model", model, "--data", data, "--sprites", data / "rendered", "--count", 1]
        run(monkeypatch, training.evaluate, *words, "--samples", 1, "--out", tmp_path / "out.json")
        result = json.loads((tmp_path / "out.json").read_text())
        of = {figures["set"]: figures["images"] for figures in result["figures"]}
        assert of == {"test composites": 1, "test composites, fruits": 1, "sample frames": 12}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (["--set", "{train}"], "was made for training: measure on a set for val, test or unseen"),
            (["--data", "{train}"], "give --set, or --data and --sprites"),
            (["--set", "{train}", "--data", "{train}"], "give --set, or --data and --sprites"),
            (["--set", "{absent}"], "no packed set in"),
            (["--set", "{train}", "--runtime", "openvino"], "runtime 'openvino' is unavailable here"),
        ],
    )
    def test_mistakes_are_told_in_a_line(self, tmp_path, sets, small_model_16, monkeypatch, capsys, change, message):
        where = {"train": sets / "train", "absent": tmp_path / "absent"}
        with pytest.raises(SystemExit):
            run(monkeypatch, training.evaluate, "--model", small_model_16, *(word.format(**where) for word in change))
        assert message in capsys.readouterr().err

    def test_masks_of_another_size_are_refused(self, sets, small_model, monkeypatch, capsys):
        with pytest.raises(SystemExit):
            run(monkeypatch, training.evaluate, "--model", small_model, "--set", sets / "test")
        assert "are 16 a side, of the model 32" in capsys.readouterr().err


def arguments(data, **changed) -> Namespace:
    """Of the command line, for the raw material."""
    given = {"data": data, "sprites": data / "rendered", "split": "test", "image_size": 128, "count": 4, "samples": 3, "seed": 1}
    return Namespace(**given | changed)


@pytest.fixture(scope="module")
def small_model_16(tmp_path_factory):
    """Weights of the network of `CONFIG`, at random."""
    import torch

    from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
    from seqamodal_ros.diffusion.sequence import SequenceSettings
    from seqamodal_ros.diffusion.weights import ModelSettings, save_model

    torch.manual_seed(0)
    network = FastNetwork(FastSettings(64, 16, (8, 8, 8, 8), (8, 8, 8)))
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    save_model(path, network.state_dict(), ModelSettings(network.settings, SequenceSettings(max_layers=2, area_min=2), 2))
    return path

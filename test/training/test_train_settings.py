# SPDX-License-Identifier: Apache-2.0
"""Training configurations: those shipped are read, mistakes are named."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from seqamodal_ros.diffusion.paper import PaperSettings
from seqamodal_ros.settings import from_mapping
from training.data.compositor import CompositeSettings
from training.hybrid import HybridSettings
from training.settings import TrainSettings, read_settings
from training.variants import TablesSettings, variants

FOLDER = Path(__file__).parents[2] / "training" / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "tables.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_read(path):
    settings = read_settings(path)
    assert settings.composites.image_size % settings.network.image_size == 0
    assert settings.network.mask_size == settings.composites.mask_size


def test_the_configuration_of_the_tables_is_read():
    settings = from_mapping(TablesSettings, yaml.safe_load((FOLDER / "tables.yaml").read_text()), "tables.yaml")
    assert len(variants(settings)) == 18


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (
            {"network": {}, "composites": {"image_size": 128}},
            "takes images of 256 and masks of 64, the composites have 128 and 64",
        ),
        ({"composites": {"image_size": 512}}, "the composites have 512 and 64: make them agree"),
        (
            {"network": {"kind": "one_shot", "max_layers": 3}, "objective": {"kind": "one_shot"}},
            "the network draws 3 layers, the scenes have up to 5: make them agree",
        ),
        ({"objective": {"noise_introduction": 1.5}}, "noise_introduction is a share and must be in 0..1, not 1.5"),
        ({"objective": {"only_layer": -1}}, "only_layer is a layer, from 1, or 0 for all, not -1"),
        ({"loop": {"parts": 3}}, "parts must divide batch_size, 20, and 3 does not"),
        ({"loop": {"sheet_every": 0}}, "sheet_every must be 1 or more, not 0"),
        ({"loop": {"batch_size": 0}}, "batch_size must be 1 or more, not 0"),
        ({"objective": {"rows": 0}}, "rows must be 1 or more of each image, not 0"),
        ({"composites": {"counts": [1, -1, 1]}}, "counts are shares, 0 or more and not all of them 0, not"),
        ({"composites": {"counts": [0, 0]}}, "counts are shares, 0 or more and not all of them 0, not"),
        ({"loop": {"learning_rate": math.nan}}, "learning_rate must be more than 0, not nan"),
        ({"network": {"kind": "one_shot"}, "objective": {"kind": "one_shot", "noise_only": 70}}, "noise_only is a share"),
        ({"network": {"kind": "one_shot"}, "objective": {"kind": "one_shot", "dice": -1}}, "dice must be 0 or more, not -1"),
    ],
)
def test_settings_that_do_not_fit_each_other(tmp_path, described, message):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(ValueError, match=message):
        read_settings(tmp_path / "mine.yaml")


SHARES = {
    "objective": ("noise_only", "imperfect", "partial", "own", "first"),
    "composites": [each.name for each in fields(CompositeSettings) if isinstance(each.default, float)],
    "loop": ("ema", "decay"),
}
OTHERS = {
    "objective": ("own_from", "dice", "edges", "all_layers", "centres"),
    "composites": ("area_min",),
    "loop": ("warmup", "weight_decay", "backbone_share", "workers", "learning_rate", "clip"),
}


@pytest.mark.parametrize(("wrong", "of", "said"), [(70, SHARES, "is a share"), (-3, SHARES, "is a share"), (-3, OTHERS, "must")])
def test_a_percentage_or_a_sign_is_told(tmp_path, wrong, of, said):
    for part, name in ((part, name) for part, names in of.items() for name in names):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({part: {name: wrong}}))
        with pytest.raises(ValueError, match=f"^{name} {said} .*, not {wrong}"):
            read_settings(tmp_path / "mine.yaml")


def test_what_is_no_yaml_is_told_with_its_name(tmp_path):
    (tmp_path / "mine.yaml").write_text("network: [")
    with pytest.raises(ValueError, match="mine.yaml is no YAML: while parsing a flow node"):
        read_settings(tmp_path / "mine.yaml")


def test_there_is_a_configuration_of_each_network():
    kinds = {path.name: read_settings(path).network.kind for path in CONFIGS}
    assert kinds["fast.yaml"] == "fast"
    assert kinds["paper.yaml"] == "paper"


def test_the_papers_configuration_is_the_papers():
    """Section 5.2, and what the authors' code adds to it."""
    settings = read_settings(next(path for path in CONFIGS if path.name == "paper.yaml"))
    assert settings.network == PaperSettings()
    assert settings.objective == HybridSettings(noise_introduction=0.0)
    loop = settings.loop
    assert (loop.learning_rate, loop.batch_size, loop.weight_decay, loop.ema) == (1e-4, 256, 0, 0.9999)
    assert (loop.warmup, loop.decay, loop.clip, loop.bfloat16) == (0, 0, math.inf, False)


@pytest.mark.parametrize(("network", "objective"), [("paper", "fast"), ("fast", "paper")])
def test_an_objective_of_the_other_network(tmp_path, network, objective):
    path = tmp_path / "mine.yaml"
    path.write_text(f"network: {{kind: {network}}}\nobjective: {{kind: {objective}}}")
    with pytest.raises(ValueError, match=f"the objective of kind '{objective}' does not train .* write `kind: {network}`"):
        read_settings(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loop: {step: 3}", r"mine.yaml.loop: unknown key 'step'; did you mean 'steps'"),
        ("optimiser: {}", r"mine.yaml: unknown key 'optimiser'; did you mean"),
        ("composites: {counts: [0.1, many]}", r"mine.yaml.composites.counts: expected float, got 'many'"),
        ("network: {encoder_channels: [8, 8]}", r"mine.yaml.network.encoder_channels: expected 4 values, got 2"),
        ("- loop", r"mine.yaml: expected keys and values"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_settings(path)


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    assert read_settings(tmp_path / "mine.yaml") == TrainSettings()

# SPDX-License-Identifier: Apache-2.0
"""Training configurations: those shipped are read, mistakes are named."""

from pathlib import Path

import pytest

from training.train import TrainSettings, read_settings

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_are_read(path):
    settings = read_settings(path)
    assert settings.network.image_size == settings.composites.image_size
    assert settings.network.mask_size == settings.composites.mask_size


def test_there_is_a_configuration():
    assert "fast.yaml" in [path.name for path in CONFIGS]


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

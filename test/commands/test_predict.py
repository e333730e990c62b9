# SPDX-License-Identifier: Apache-2.0
"""`predict`: files and folders in, pictures, masks and layers.json out; one line for each thing that is wrong."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from seqamodal_ros.__main__ import main as package_main
from seqamodal_ros.commands.predict import main
from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.scene.image_files import read_image


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of two images and a text file."""
    folder = tmp_path / "images"
    folder.mkdir()
    for k, name in enumerate(("b.png", "a.jpg")):
        blocks = np.random.default_rng(k).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), blocks.repeat(40, 0).repeat(40, 1))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def predict(run_command, tmp_path):
    """Runs the command with the small model into tmp_path/out; gives exit code, stdout and stderr."""

    def run(*arguments, model=None) -> tuple[int, str, str]:
        out = [] if "--out" in map(str, arguments) else ["--out", tmp_path / "out"]
        return run_command(main, *arguments, *out, model=model)

    return run


def of_a_process() -> dict[str, str]:
    """The environment of one that runs this checkout, wherever it is."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def one_line(text: str) -> str:
    """The only line of a text."""
    (line,) = text.splitlines()
    return line


def test_what_it_writes(predict, images, tmp_path):
    code, out, err = predict(images, "--num-samples", 2, "--seed", 9)
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["a.png", "a_overlay.png", "a_layers.npz", "b.png", "b_overlay.png", "b_layers.npz", "layers.json", "index.html"]
    )
    frames = json.loads((tmp_path / "out" / "layers.json").read_text())
    assert [frame["frame"] for frame in frames] == ["a", "b"]
    for frame in frames:
        assert frame["source"] == {"width": 160, "height": 120}
        assert (frame["num_samples"], frame["seed"]) == (2, 9)
        assert frame["model_id"].startswith("small@sha256:")
        with np.load(tmp_path / "out" / f"{frame['frame']}_layers.npz") as masks:
            layers = len(frame["layers"])
            assert layers >= 1
            assert masks["amodal"].shape == masks["visible"].shape == masks["probability"].shape == (layers, 32, 32)
            assert masks["hypotheses"].shape == (layers, 2, 32, 32)
            assert [layer["pixels"] for layer in frame["layers"]] == masks["amodal"].sum(axis=(1, 2)).tolist()
        overlay = read_image(tmp_path / "out" / f"{frame['frame']}_overlay.png")
        source = read_image(images / ("a.jpg" if frame["frame"] == "a" else "b.png"))
        assert overlay.shape == source.shape
        assert not np.array_equal(overlay, source)
        assert read_image(tmp_path / "out" / f"{frame['frame']}.png").shape[1] > 480
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2.*?>(.*?)</h2>", page) == ["a", "b"]
    rows = [line.split() for line in out.splitlines() if line.startswith(("a ", "b "))]
    for row, frame in zip(rows, frames, strict=True):
        assert row[:3] == [frame["frame"], str(len(frame["layers"])), str(len(frame["objects"]))]
        picks = [str(name) for name in frame["pick_order"]] or ["-"]
        assert row[4 : 4 + len(picks)] == picks
        assert (frame["status"] == "OK") == (row[4 + len(picks) :] == [])


def test_the_same_seed_gives_the_same_masks(predict, images, tmp_path):
    for name in ("one", "two"):
        assert predict(images / "b.png", "--out", tmp_path / name)[0] == 0
    one, two = (np.load(tmp_path / name / "b_layers.npz")["probability"] for name in ("one", "two"))
    assert np.allclose(one, two, atol=1e-6)


def test_options_reach_the_model(predict, images, tmp_path):
    assert predict(images / "b.png", "--max-layers", 1, "--sampling-steps", 1, "--seed", 2**64 - 1)[0] == 0
    (frame,) = json.loads((tmp_path / "out" / "layers.json").read_text())
    assert len(frame["layers"]) == 1
    assert frame["truncated"] is True
    assert frame["seed"] == 2**64 - 1


def test_a_region_alone_is_looked_at(predict, images, tmp_path):
    height, width = read_image(images / "b.png").shape[:2]
    left = width // 2
    assert predict(images / "b.png", "--region", left, 0, width - left, height)[0] == 0
    before, after = (read_image(path)[: height // 2] for path in (images / "b.png", tmp_path / "out" / "b_overlay.png"))
    assert (after[:, left + 8 :] != before[:, left + 8 :]).any()
    assert np.abs(after[:, : left - 8] - 0.4 * before[:, : left - 8]).max() < 1  # dimmed, no more; below stands the legend
    (frame,) = json.loads((tmp_path / "out" / "layers.json").read_text())
    assert frame["seen"] == {"x": left, "y": 0, "width": width - left, "height": height}


def test_a_region_of_zeros_is_all_of_it(predict, images, tmp_path):
    assert predict(images / "b.png", "--out", tmp_path / "one")[0] == 0
    assert predict(images / "b.png", "--out", tmp_path / "two", "--region", 0, 0, 0, 0)[0] == 0
    one, two = (np.load(tmp_path / name / "b_layers.npz")["probability"] for name in ("one", "two"))
    assert np.array_equal(one, two)


def test_runtime_and_mirror_images_are_the_callers_choice(predict, images, monkeypatch):
    given, load = [], Perceiver.load
    monkeypatch.setattr(Perceiver, "load", lambda *args, **others: given.append(others) or load(*args, **others))
    assert predict(images / "b.png")[0] == 0
    assert predict(images / "b.png", "--runtime", "torch", "--no-mirror")[0] == 0
    assert [(each["runtime"], each["mirror"]) for each in given] == [("auto", None), ("torch", False)]


def test_a_region_outside_an_image_fails_by_the_image_alone(predict, images, tmp_path):
    height, width = read_image(images / "b.png").shape[:2]
    code, _, err = predict(images / "b.png", "--region", 0, 0, width + 1, height)
    assert code == 1
    assert f"b.png: the region x=0 y=0 {width + 1}x{height} must be non-empty" in err


class TestFailedImages:
    def test_a_truncated_file_fails_and_the_others_are_seen(self, predict, images, tmp_path):
        whole = (images / "b.png").read_bytes()
        (images / "cut.png").write_bytes(whole[: len(whole) // 2])
        (images / "empty.png").touch()
        code, out, err = predict(images)
        assert code == 1
        lines = err.splitlines()
        assert [line for line in lines if line.startswith("predict: ")][-1] == "predict: 2 of 4 images failed"
        for name in ("cut.png", "empty.png"):
            assert sum(name in line for line in lines) == 1
        assert "2 of 4 images seen" in out
        assert [frame["frame"] for frame in json.loads((tmp_path / "out" / "layers.json").read_text())] == ["a", "b"]

    def test_a_file_that_is_no_image(self, predict, images):
        code, _, err = predict(images / "notes.txt")
        assert code == 1
        assert "notes.txt: a truncated image, or no image at all; give .bmp, .jpeg" in err

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
    def test_a_file_that_may_not_be_read(self, predict, images):
        (images / "b.png").chmod(0)
        code, _, err = predict(images)
        assert code == 1
        assert "b.png: Permission denied" in err

    def test_none_is_left(self, predict, images, tmp_path):
        code, *_ = predict(images / "notes.txt")
        assert code == 1
        assert "no image was seen" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")

    def test_what_was_seen_before_an_interrupt_is_written(self, predict, images, tmp_path, monkeypatch):
        def read(path: Path) -> np.ndarray:
            if path.name == "b.png":
                raise KeyboardInterrupt
            return read_image(path)

        monkeypatch.setattr("seqamodal_ros.commands.predict.read_image", read)
        code, out, err = predict(images)
        assert code == 130 and one_line(err) == "predict: interrupted"
        assert [frame["frame"] for frame in json.loads((tmp_path / "out" / "layers.json").read_text())] == ["a"]
        assert "1 of 2 images seen" in out and (tmp_path / "out" / "index.html").is_file()

    def test_a_page_that_cannot_be_written(self, predict, images, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "index.html").symlink_to("nowhere/index.html")
        code, out, err = predict(images)
        assert (code, out) == (2, "")  # before it has seen any
        assert re.fullmatch(r"predict: error: cannot write .*index\.html.*", one_line(err))

    def test_results_that_cannot_be_written(self, predict, images, tmp_path):
        (tmp_path / "out" / "b.png").mkdir(parents=True)
        code, out, err = predict(images)
        assert code == 1
        assert "cannot write" in err
        assert "1 of 2 images seen" in out


class TestNames:
    def test_images_of_one_stem_do_not_overwrite_each_other(self, predict, images, tmp_path):
        (images / "sub").mkdir()
        for name in ("b.bmp", "sub/b.png"):
            cv2.imwrite(str(images / name), np.full((20, 30, 3), 50, np.uint8))
        code, *_ = predict(images, images / "sub")
        assert code == 0
        frames = json.loads((tmp_path / "out" / "layers.json").read_text())
        assert [frame["frame"] for frame in frames] == ["a", "b", "b_2", "b_3"]
        assert [Path(frame["file"]).name for frame in frames] == ["a.jpg", "b.bmp", "b.png", "b.png"]
        assert len(list((tmp_path / "out").glob("*_layers.npz"))) == 4

    def test_a_stem_that_looks_like_a_result(self, predict, images, tmp_path):
        (images / "a_overlay.jpg").write_bytes((images / "a.jpg").read_bytes())
        assert predict(images)[0] == 0
        frames = json.loads((tmp_path / "out" / "layers.json").read_text())
        assert [frame["frame"] for frame in frames] == ["a", "a_overlay_2", "b"]

    def test_a_name_that_is_no_utf_8(self, images, small_model, tmp_path):
        """As of an old archive; in a process of its own, as OpenCV once ended it."""
        (images / "a.jpg").rename(images / os.fsdecode(b"caf\xe9.jpg"))
        environment = {**of_a_process(), "PYTHONIOENCODING": "utf-8:strict"}
        command = [sys.executable, "-m", "seqamodal_ros", "predict", images, "--out", "out", "--model", small_model]
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "2 of 2 images seen" in done.stdout and "caf\\udce9" in done.stdout
        assert (tmp_path / "out" / os.fsdecode(b"caf\xe9.png")).is_file()

    @pytest.mark.parametrize("stem", ["x" * 244, "\N{PEAR}" * 60])
    def test_a_name_to_which_nothing_can_be_added_is_cut(self, predict, images, tmp_path, stem):
        (images / "a.jpg").rename(images / f"{stem}.jpg")
        (images / "b.png").rename(images / f"{stem}.png")
        code, out, err = predict(images)
        assert (code, err) == (0, "")
        assert "2 of 2 images seen" in out
        names = [frame["frame"] for frame in json.loads((tmp_path / "out" / "layers.json").read_text())]
        assert names == [stem.encode()[:200].decode(), f"{stem.encode()[:200].decode()}_2"]

    def test_an_image_given_twice_is_seen_once(self, predict, images, tmp_path):
        assert predict(images, images / "b.png")[0] == 0
        assert len(json.loads((tmp_path / "out" / "layers.json").read_text())) == 2

    def test_inputs_are_never_overwritten(self, predict, images):
        before = (images / "b.png").read_bytes()
        code, _, err = predict(images, "--out", images)
        assert code == 2
        assert "would overwrite the image" in one_line(err)
        assert "--out" in err
        assert (images / "b.png").read_bytes() == before

    def test_a_page_of_others_is_never_overwritten(self, predict, images, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "index.html").write_text("<title>my home page</title>")
        code, _, err = predict(images)
        assert code == 2
        assert "index.html, which is not one of ours: name another folder with --out" in one_line(err)
        assert (tmp_path / "out" / "index.html").read_text() == "<title>my home page</title>"

    @pytest.mark.parametrize("name", ["a.png", "a_overlay.png", "b_layers.npz", "layers.json"])
    def test_no_file_of_others_is_overwritten(self, predict, images, tmp_path, name):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_bytes(b"mine")
        code, out, err = predict(images)
        assert (code, out) == (2, "")
        assert f"overwrite {tmp_path / 'out' / name}, which is not one of ours: name another folder with --out" in one_line(err)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
        assert (tmp_path / "out" / name).read_bytes() == b"mine"

    def test_files_of_others_beside_the_results_stay(self, predict, images, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "other.png").write_bytes(b"mine")
        assert predict(images)[0] == predict(images)[0] == 0
        assert (tmp_path / "out" / "other.png").read_bytes() == b"mine"

    def test_results_of_a_run_that_was_killed_are_ours_too(self, predict, images, tmp_path, monkeypatch):
        def killed(*_):
            raise SystemExit(137)

        with monkeypatch.context() as patched:
            patched.setattr("seqamodal_ros.commands.predict.row", killed)
            assert predict(images)[0] == 137
        assert (tmp_path / "out" / "a.png").is_file() and not (tmp_path / "out" / "layers.json").exists()
        assert predict(images)[0] == 0

    def test_a_page_of_ours_is(self, predict, images, tmp_path):
        for image in ("a.jpg", "b.png"):
            assert predict(images / image)[0] == 0
        assert '-name">b</h2>' in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


class TestArguments:
    def test_a_folder_without_images(self, predict, tmp_path):
        (tmp_path / "bare").mkdir()
        code, _, err = predict(tmp_path / "bare")
        assert code == 2
        assert one_line(err).startswith(f"predict: error: no images in the folder {tmp_path / 'bare'}")

    def test_a_path_that_is_not_there(self, predict, tmp_path):
        code, _, err = predict(tmp_path / "gone.png")
        assert code == 2
        assert one_line(err) == f"predict: error: no such file or folder: {tmp_path / 'gone.png'}"
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--num-samples", "0", "--num-samples: must be a whole number in 1..64, not '0'"),
            ("--num-samples", "65", "--num-samples: must be a whole number in 1..64"),
            ("--num-samples", "many", "not 'many'"),
            ("--seed", "-1", "--seed: must be a whole number in 0..18446744073709551615"),
            ("--sampling-steps", "1001", "--sampling-steps: must be a whole number in 1..1000"),
            ("--max-layers", "0", "--max-layers: must be a whole number in 1..100"),
            ("--device", "gpu", "--device: invalid choice: 'gpu'"),
            ("--layers", "3", "unrecognized arguments: --layers 3"),
        ],
    )
    def test_options_out_of_range(self, small_model, images, tmp_path, capsys, option, value, message):
        with pytest.raises(SystemExit) as stopped:
            main([str(images), "--out", str(tmp_path / "out"), option, value])
        assert stopped.value.code == 2
        assert message in one_line(capsys.readouterr().err)

    @pytest.mark.parametrize("arguments", [[], ["a.png"], ["--out", "x"]])
    def test_what_is_left_out(self, capsys, arguments):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert "the following arguments are required" in one_line(capsys.readouterr().err)

    def test_out_is_a_file(self, predict, images):
        code, _, err = predict(images, "--out", images / "notes.txt")
        assert code == 2
        assert "notes.txt" in one_line(err)


class TestModels:
    def test_a_device_without_memory_for_it(self, predict, images, monkeypatch):
        def full(*_, **__):
            raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

        monkeypatch.setattr("seqamodal_ros.commands.predict.Perceiver.load", full)
        code, _, err = predict(images)
        assert code == 2
        assert one_line(err).startswith("predict: error: CUDA out of memory.")

    def test_missing_weights(self, predict, images, tmp_path):
        code, _, err = predict(images, model=tmp_path / "none.safetensors")
        assert code == 2
        assert "none.safetensors is missing: give the path of a .safetensors file" in one_line(err)
        assert not (tmp_path / "out").exists()

    def test_truncated_weights(self, predict, images, small_model, tmp_path):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(small_model.read_bytes()[:-50])
        code, _, err = predict(images, model=path)
        assert code == 2
        assert "cut.safetensors is not a complete safetensors file" in one_line(err)

    def test_tampered_weights_and_unknown_names(self, predict, images, small_model, tmp_path, monkeypatch):
        import seqamodal_ros.diffusion.weights as weights

        monkeypatch.setattr(weights, "share_folder", lambda name: tmp_path)
        (tmp_path / "small.safetensors").write_bytes(small_model.read_bytes())
        (tmp_path / "manifest.yaml").write_text(
            "default: small\nmodels: {small: {file: small.safetensors, sha256: '0123456789abcdef'}}\n"
        )
        code, _, err = predict(images, model="default")
        assert code == 2
        assert "is not the one in manifest.yaml" in one_line(err)
        code, _, err = predict(images, model="big")
        assert code == 2
        assert "unknown model 'big': use one of default, small" in one_line(err)

    def test_cuda_where_there_is_none(self, small_model, images, tmp_path, capsys):
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device here")
        assert main([str(images), "--out", str(tmp_path / "out"), "--model", str(small_model), "--device", "cuda"]) == 2
        assert "torch sees no CUDA device here: use 'cpu' or 'auto'" in one_line(capsys.readouterr().err)


class TestThePackageAsACommand:
    def test_a_real_process(self, images, small_model, tmp_path):
        environment = of_a_process()
        command = [sys.executable, "-m", "seqamodal_ros", "predict", images, "--out", "out", "--model", small_model]
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "2 of 2 images seen" in done.stdout
        assert (tmp_path / "out" / "b.png").is_file()

    def test_where_nobody_reads_what_it_prints_the_work_goes_on(self, images, small_model, tmp_path):
        """As behind `| head -1`."""
        environment = of_a_process()
        command = [sys.executable, "-m", "seqamodal_ros", "predict", images, "--out", "out", "--model", small_model]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(list(map(str, command)), cwd=tmp_path, env=environment, text=True, **pipes) as process:
            process.stdout.close()
            assert "BrokenPipe" not in process.stderr.read()
        assert process.returncode == 0
        assert len(json.loads((tmp_path / "out" / "layers.json").read_text())) == 2

    def test_nor_does_a_bad_image_end_it_where_nobody_reads_errors(self, images, small_model, tmp_path):
        """As behind `2>&1 | head -1`."""
        (images / "0_bad.jpg").write_bytes(b"no image")
        command = [sys.executable, "-m", "seqamodal_ros", "predict", images, "--out", "out", "--model", small_model]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(list(map(str, command)), cwd=tmp_path, env=of_a_process(), **pipes) as process:
            process.stdout.close()
        assert process.returncode == 1
        assert len(json.loads((tmp_path / "out" / "layers.json").read_text())) == 2

    def test_without_a_command_it_lists_them(self, capsys):
        assert package_main([]) == 2
        assert "predict:" in capsys.readouterr().err
        assert package_main(["foretell"]) == 2
        capsys.readouterr()
        assert package_main(["--help"]) == 0
        assert "predict:" in capsys.readouterr().out

    def test_arguments_are_passed_on(self, images, small_model, tmp_path):
        assert package_main(["predict", str(images), "--out", str(tmp_path / "o"), "--model", str(small_model)]) == 0
        assert (tmp_path / "o" / "layers.json").is_file()

    def test_an_interrupt_while_it_loads_is_one_line(self, images, tmp_path, monkeypatch, capsys):
        def load(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("seqamodal_ros.commands.predict.Perceiver.load", load)
        assert package_main(["predict", str(images), "--out", str(tmp_path / "o")]) == 130
        assert one_line(capsys.readouterr().err) == "predict: interrupted"

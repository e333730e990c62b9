# SPDX-License-Identifier: Apache-2.0
"""The one door, with a small network of random weights; with the shipped model too where it is there."""

import itertools
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seqamodal_ros import LayeredScene, Perceiver
from seqamodal_ros.scene.components import components
from seqamodal_ros.scene.fragments import WITHIN
from seqamodal_ros.scene.picking import LOW_SCORE


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Blocks of colour, so that something is there at any size."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 40), -(-width // 40), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(40, 0).repeat(40, 1)[:height, :width])


@pytest.fixture(scope="module")
def perceiver(small_model) -> Perceiver:
    return Perceiver.load(str(small_model), device="cpu")


@pytest.fixture(scope="module")
def blank_model(small_model, tmp_path_factory) -> str:
    """The small model, its last bias so low that every proposal is null."""
    from seqamodal_ros.diffusion.weights import load_model, save_model

    model = load_model(str(small_model))
    state = model.network.state_dict()
    state["denoiser.out.3.bias"] = state["denoiser.out.3.bias"] - 1000
    path = tmp_path_factory.mktemp("models") / "blank.safetensors"
    save_model(path, state, model.settings)
    return str(path)


@pytest.fixture(scope="module")
def tempered_model(small_model, tmp_path_factory) -> str:
    """The small model, its published probabilities less sure."""
    from seqamodal_ros.diffusion.weights import load_model, save_model

    model = load_model(str(small_model))
    path = tmp_path_factory.mktemp("models") / "tempered.safetensors"
    save_model(path, model.network.state_dict(), replace(model.settings, temperatures=(1.5, 3.0)))
    return str(path)


def check_scene(scene: LayeredScene, samples: int, size: int, max_layers: int) -> None:
    """What holds for every scene."""
    layers = len(scene.amodal)
    assert 0 <= layers <= max_layers
    assert scene.amodal.shape == scene.visible.shape == scene.probability.shape == (layers, size, size)
    assert scene.hypotheses.shape == (layers, samples, size, size)
    assert (scene.amodal.dtype, scene.hypotheses.dtype, scene.probability.dtype) == (bool, bool, np.float32)
    assert ((scene.probability >= 0) & (scene.probability <= 1)).all()
    assert scene.truncated == (layers == max_layers) or not scene.truncated
    outside = ~scene.geometry.inside(size)
    for stack in (scene.amodal, scene.hypotheses, scene.probability):
        assert not stack[..., outside].any()
    for mask in scene.amodal:
        assert scene.to_source(mask).shape == (scene.geometry.height, scene.geometry.width)
    assert sorted(scene.pick_order) == [obj.id for obj in scene.objects]


def assert_same(a: LayeredScene, b: LayeredScene) -> None:
    assert np.array_equal(a.amodal, b.amodal)
    assert np.array_equal(a.hypotheses, b.hypotheses)
    assert np.allclose(a.probability, b.probability, atol=1e-5)
    assert a.pick_order == b.pick_order


class TestSeeing:
    def test_the_random_model_sees_something(self, perceiver):
        """Else the tests below would compare blanks."""
        scene = perceiver(picture(120, 160))
        assert len(scene.amodal) >= 1
        assert len(scene.objects) >= 1

    def test_same_seed_same_masks(self, perceiver):
        image = picture(120, 160)
        first = perceiver(image, num_samples=3, seed=7)
        assert_same(first, perceiver(image, num_samples=3, seed=7))
        assert not np.array_equal(first.probability, perceiver(image, num_samples=3, seed=8).probability)
        assert (first.seed, first.num_samples) == (7, 3)
        assert first.seconds > 0

    def test_torchs_own_generator_has_no_say_and_is_left_alone(self, perceiver):
        import torch

        image = picture(60, 60)
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = perceiver(image)
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(2)
        assert_same(first, perceiver(image))

    @pytest.mark.parametrize("mirror", [True, False])
    def test_warming_up_makes_a_call_of_each_kind(self, centred_model, mirror):
        """Each is announced, as what watches the node learns from them how long a call takes; what is seen then is the same."""
        begun, called = [], []
        warm = Perceiver.load(str(centred_model), "cpu", mirror=mirror, before_call=lambda: begun.append(1))
        for name, part in warm.model.network.named_children():
            part.register_forward_hook(lambda module, inputs, output, name=name: called.append((name, len(inputs[0]))))
        warm.warm_up(num_samples=4)
        views, numbers_of_layers = 1 + mirror, range(1, warm.model.settings.sequence.max_layers + 1)
        of_centres = [("centres", number * views) for number in numbers_of_layers]
        assert called == [("encoder", views), ("denoiser", views), ("denoiser", 4 * views), *of_centres]
        assert len(begun) == 3 + len(numbers_of_layers)
        image = picture(48, 64)
        cold = Perceiver.load(str(centred_model), "cpu", mirror=mirror)
        np.testing.assert_array_equal(warm(image).hypotheses, cold(image).hypotheses)

    @pytest.mark.parametrize(("num_samples", "rows"), [(2, [2, 1]), (4, [3, 4, 1, 2])])
    def test_warming_up_a_model_that_tells_hypotheses_apart(self, numbered_model, num_samples, rows):
        """The first step is of as many as there are numbers; those that saw nothing then are not asked again."""
        called = []
        warm = Perceiver.load(str(numbered_model), "cpu")
        warm.model.network.denoiser.register_forward_hook(lambda module, inputs, output: called.append(len(inputs[0])))
        warm.warm_up(num_samples)
        assert called == rows
        called.clear()
        scene = warm(picture(48, 64), num_samples)
        assert set(called) <= set(rows) and {rows[0], num_samples} <= set(called) and len(scene.amodal)

    def test_warming_up_makes_the_call_of_all_hypotheses(self, numbered_model):
        """The heartbeat learns from it how long a call takes: more rows than a piece of OpenVINO's are not left out."""
        called = []
        warm = Perceiver.load(str(numbered_model), "cpu", sampling_steps=2)
        warm.model.network.denoiser.register_forward_hook(lambda module, inputs, output: called.append(len(inputs[0])))
        warm.warm_up(num_samples=9, images=2)
        assert called == [3, 9, 1, 2, 4, 5]

    @pytest.mark.parametrize("steps", [1, 2])
    @pytest.mark.parametrize("mirror", [False, True])
    @pytest.mark.parametrize("kind", ["centred_model", "numbered_model"])
    def test_after_warming_up_for_several_images_no_frame_meets_a_new_batch_size(self, kind, mirror, steps, request):
        """Whichever images come together, and whichever of their hypotheses see nothing in the first of two steps."""
        import torch

        views, settings = 1 + mirror, {"mirror": mirror, "sampling_steps": steps, "area_min": 4}
        perceiver = Perceiver.load(str(request.getfixturevalue(kind)), "cpu", runtime="torch", **settings)
        sizes, generator = set(), torch.Generator().manual_seed(0)

        def of_part(name, rows):
            sizes.add((name, rows))

        def blank_some(module, inputs, output):
            blank = torch.rand(len(output) // views, generator=generator).lt(0.3).repeat_interleave(views)
            return torch.where(blank[:, None, None, None] & (inputs[1][0] == 999), -100.0, output)

        network = perceiver.model.network
        for name, part in network.named_children():
            part.register_forward_hook(lambda module, inputs, output, name=name: of_part(name, len(inputs[0])))
        network.denoiser.register_forward_hook(blank_some)
        perceiver.warm_up(num_samples=2, images=2)
        known = sizes.copy()
        sizes.clear()
        for seed in range(8):
            images = [picture(48, 64, seed), picture(64, 200, seed + 1)]
            perceiver.batch(images, 2, seed)
            perceiver(images[0], 2, seed)
        assert sizes <= known
        rows = (1, 2, 3, 4) if kind == "numbered_model" and steps == 2 else (2, 4)
        assert sizes >= {*(("encoder", views * n) for n in (1, 2)), *(("denoiser", views * n) for n in rows)}

    def test_warming_up_ends_where_a_further_batch_size_costs_nothing_more(self, small_model, monkeypatch):
        from seqamodal_ros.runtimes import blank_calls

        monkeypatch.setattr(blank_calls, "PIECES", ((1,), (3, 1)))
        rows = []
        perceiver = Perceiver.load(str(small_model), "cpu", sampling_steps=1)
        perceiver.model.network.denoiser.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
        perceiver.warm_up(num_samples=2, images=9)
        assert rows == [2, 4, 6]

    @pytest.mark.parametrize(("images", "error"), [(0, ValueError), (1.5, TypeError)])
    def test_warming_up_for_no_number_of_images(self, perceiver, images, error):
        with pytest.raises(error, match="images must be"):
            perceiver.warm_up(images=images)

    def test_a_batch_equals_its_images_alone(self, perceiver):
        images = [picture(120, 160), picture(90, 30, 1), picture(64, 64, 2)]
        together = perceiver.batch(images, num_samples=2, seed=3)
        for image, scene in zip(images, together, strict=True):
            assert_same(scene, perceiver(image, num_samples=2, seed=3))

    def test_an_empty_batch(self, perceiver):
        assert perceiver.batch([]) == []

    @pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 20), (37, 53), (480, 640), (1080, 1920)])
    @pytest.mark.parametrize("fit", ["letterbox", "centre_crop"])
    def test_any_image_size(self, small_model, size, fit):
        scene = Perceiver.load(str(small_model), "cpu", fit=fit)(picture(*size), num_samples=2)
        check_scene(scene, samples=2, size=32, max_layers=3)
        assert (scene.geometry.height, scene.geometry.width) == size

    @pytest.mark.parametrize("samples", [1, 5])
    def test_always_k_hypotheses(self, perceiver, samples):
        check_scene(perceiver(picture(120, 160), num_samples=samples), samples, 32, 3)

    def test_masks_are_blank_in_the_padding(self, perceiver):
        scene = perceiver(picture(100, 400))
        outside = ~scene.geometry.inside(32)
        assert outside.sum() == 32 * 24
        assert scene.amodal.any()
        check_scene(scene, 3, 32, 3)

    @pytest.mark.parametrize(("level", "doubt"), [(0, "black"), (255, "white"), (128, "")])
    def test_where_nothing_can_be_seen_that_is_said(self, blank_model, level, doubt):
        image = np.full((40, 160, 3), level, np.uint8)  # three quarters of its square are padding
        seen = Perceiver.load(blank_model, "cpu")(image)
        assert (doubt in seen.doubt) and bool(seen.doubt) == bool(doubt)

    def test_a_first_layer_that_is_not_sure_is_doubt_and_no_layer(self, small_model, tmp_path):
        from seqamodal_ros.diffusion.weights import load_model, save_model

        model, image = load_model(str(small_model)), picture(120, 160)
        surest = Perceiver.load(str(small_model), "cpu", runtime="torch")(image).probability[0].max()
        for first_sure, layers in ((surest - 0.01, True), (surest + 0.01, False)):
            path = tmp_path / "sure.safetensors"
            sequence = replace(model.settings.sequence, first_sure=float(first_sure))
            save_model(path, model.network.state_dict(), replace(model.settings, sequence=sequence, temperatures=(2.0, 4.5)))
            scene = Perceiver.load(str(path), "cpu", runtime="torch")(image)
            assert bool(len(scene.amodal)) == layers
            published = 1 / (1 + np.sqrt(1 / surest - 1))  # log-odds divided by the first temperature
            assert scene.doubt == ("" if layers else f"of what may lie in front no pixel is surer than {published:.2f}")

    def test_no_layer_is_a_scene_too(self, blank_model):
        scene = Perceiver.load(blank_model, "cpu")(picture(48, 64), num_samples=4)
        assert scene.amodal.shape == (0, 32, 32)
        assert scene.hypotheses.shape == (0, 4, 32, 32)
        assert scene.objects == scene.pick_order == ()
        assert not scene.truncated

    @pytest.mark.parametrize("mirror", [False, True])
    def test_objects_are_parts_of_their_layers_where_centres_are_known(self, centred_model, mirror):
        perceiver = Perceiver.load(str(centred_model), device="cpu", area_min=4, mirror=mirror)
        images = [picture(120, 160), picture(64, 64, seed=1), np.full((64, 64, 3), 128, np.uint8)]
        scenes = perceiver.batch(images)
        for image, scene in zip(images, scenes, strict=True):
            check_scene(scene, 3, len(scene.amodal[0]), 3)
            assert_same(scene, perceiver(image))
            for layer, mask in enumerate(scene.amodal, start=1):
                parts = [obj.amodal for obj in scene.objects if obj.layer == layer]
                large = np.logical_or.reduce(components(mask, 4) or [np.zeros_like(mask)])
                owners = sum((part.astype(int) for part in parts), np.zeros(mask.shape, int))
                assert owners.max(initial=0) <= 1 and large[owners == 1].all()
                if (fragments := large & (owners == 0)).any():  # each pixel but of specks and fragments is in one of them
                    behind = np.logical_or.reduce([obj.amodal for obj in scene.objects if obj.layer > layer], initial=False)
                    assert (fragments & behind).sum() >= WITHIN * fragments.sum()
                    assert scene.probability[layer - 1][fragments].mean() < LOW_SCORE
        assert len(scenes[0].objects) > len(scenes[0].amodal)

    def test_temperatures_change_probabilities_alone(self, perceiver, tempered_model):
        image = picture(120, 160)
        sure, unsure = perceiver(image), Perceiver.load(tempered_model, device="cpu")(image)
        check_scene(unsure, 3, len(sure.amodal[0]), 3)
        assert np.array_equal(sure.amodal, unsure.amodal) and np.array_equal(sure.hypotheses, unsure.hypotheses)
        inside = sure.geometry.inside(len(sure.amodal[0]))
        distance, before = (np.abs(scene.probability - 0.5)[:, inside] for scene in (unsure, sure))
        assert (distance <= before).all() and distance.mean() < 0.9 * before.mean()

    def test_a_region_is_seen_as_if_it_were_cut_out(self, perceiver):
        image = picture(200, 300)
        scene = perceiver(image, region=(40, 60, 80, 80))
        alone = perceiver(np.ascontiguousarray(image[60:140, 40:120]))
        assert np.array_equal(scene.amodal, alone.amodal)
        assert scene.amodal.any()
        seen = scene.to_source(scene.amodal[0])
        assert seen.shape == (200, 300)
        assert np.array_equal(seen[60:140, 40:120], alone.to_source(alone.amodal[0]))
        assert seen.sum() == seen[60:140, 40:120].sum()

    def test_regions_of_a_batch(self, perceiver):
        image = picture(200, 300)
        whole, part = perceiver.batch([image, image], regions=[None, (0, 0, 50, 40)])
        assert_same(whole, perceiver(image))
        assert_same(part, perceiver(image, region=(0, 0, 50, 40)))

    def test_an_image_that_is_a_view_or_read_only(self, perceiver):
        image = picture(60, 80)
        flipped = image[:, ::-1]
        image.flags.writeable = False
        assert_same(perceiver(flipped), perceiver(np.ascontiguousarray(flipped)))
        perceiver(image)


def test_the_network_is_brought_back_outside_of_inference_mode(small_model, monkeypatch):
    """Weights that were moved within it could not be moved away again."""
    import torch

    perceiver = Perceiver.load(str(small_model), "cpu")
    perceiver._network = None  # as `rest` leaves it on a GPU
    modes, network = [], perceiver.model.network

    def network_on(*_):
        modes.append(torch.is_inference_mode_enabled())
        return network, "torch", "float32"

    monkeypatch.setattr("seqamodal_ros.runtimes.choice.network_on", network_on)
    perceiver(picture(8, 8))
    assert modes == [False]


class TestSettings:
    def test_the_models_own_are_kept_unless_given(self, small_model):
        steps = count_calls(small_model)
        assert steps["encode"] == 1
        assert steps["layers"] * 2 == steps["denoise"]  # the model's own two sampling steps
        once = count_calls(small_model, sampling_steps=1)
        assert once["layers"] == once["denoise"]

    def test_max_layers(self, small_model):
        scene = Perceiver.load(str(small_model), "cpu", max_layers=1)(picture(120, 160))
        assert len(scene.amodal) == 1
        assert scene.truncated

    def test_area_min(self, small_model):
        scene = Perceiver.load(str(small_model), "cpu", area_min=32 * 32 + 1)(picture(120, 160))
        assert len(scene.amodal) == 0

    def test_model_id_and_device(self, perceiver):
        assert perceiver.model_id.startswith("small@sha256:")
        assert perceiver.device == "cpu"

    def test_at_rest_it_lets_go_of_the_gpu(self, small_model, monkeypatch):
        perceiver = Perceiver.load(str(small_model), device="cpu")
        perceiver(picture(120, 160), num_samples=1)
        emptied: list[bool] = []
        monkeypatch.setattr("torch.cuda.empty_cache", lambda: emptied.append(perceiver._network is None))
        perceiver.rest()
        assert perceiver._network is not None and not emptied  # on a CPU there is none
        monkeypatch.setattr(perceiver, "_device", "cuda")
        perceiver.rest()
        assert emptied == [True]


@pytest.mark.parametrize("count", [1, 2])
def test_hypotheses_of_an_image_share_the_first_of_several_steps(small_model, count):
    perceiver = Perceiver.load(str(small_model), "cpu", sampling_steps=3, max_layers=1)
    rows: list[int] = []
    perceiver.model.network.denoiser.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    perceiver.batch([picture(120, 160)] * count, num_samples=4)
    assert rows[:3] == [count, 4 * count, 4 * count]


def count_calls(model: Path, **settings) -> dict[str, int]:
    """Calls of before_call and proposals asked for, of one image."""
    calls: list[int] = []
    perceiver = Perceiver.load(str(model), "cpu", before_call=lambda: calls.append(1), **settings)
    encoded, denoised = [], []
    network = perceiver.model.network
    network.encoder.register_forward_hook(lambda *_: encoded.append(1))
    network.denoiser.register_forward_hook(lambda module, inputs, output: denoised.append(int(inputs[1][0])))
    perceiver(picture(120, 160))
    assert len(calls) == len(encoded) + len(denoised)
    return {"encode": len(encoded), "denoise": len(denoised), "layers": denoised.count(999)}


class TestCancellation:
    @pytest.mark.parametrize("calls", [0, 1, 2])
    def test_what_before_call_raises_ends_the_inference_and_the_next_one_works(self, small_model, calls):
        left: list[int] = []

        def before_call():
            if len(left) == 1:
                raise InterruptedError("cancelled")
            if left:
                left.pop()

        perceiver = Perceiver.load(str(small_model), "cpu", before_call=before_call)
        image = picture(120, 160)
        expected = perceiver(image)
        left.extend([1] * (calls + 1))
        with pytest.raises(InterruptedError, match="cancelled"):
            perceiver(image)
        left.clear()
        assert_same(perceiver(image), expected)


def test_calls_of_several_threads_wait_for_one_another(small_model):
    """OpenVINO would give one of them the other's answer."""
    begun: list[threading.Thread] = []
    done: list[object] = []

    def before_call() -> None:
        begun.append(threading.current_thread())
        time.sleep(0.002)  # others could come between

    perceiver = Perceiver.load(str(small_model), "cpu", before_call=before_call)
    tasks = [lambda: perceiver(picture(40, 40), 1), lambda: perceiver.batch([picture(40, 40)], 1), lambda: perceiver.warm_up(1)]
    threads = [threading.Thread(target=lambda task=task: done.append(task())) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 3
    assert len([who for who, _ in itertools.groupby(begun)]) == 3 < len(begun)


class TestErrors:
    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((4, 4, 3)), "not a float64 array"),
            (np.zeros((4, 4, 3), np.uint16), "not a uint16 array"),
            ([[[0, 0, 0]]], "not list"),
            (None, "not NoneType"),
        ],
    )
    def test_what_is_no_uint8_array(self, perceiver, image, message):
        with pytest.raises(TypeError, match=message):
            perceiver(image)

    @pytest.mark.parametrize(
        "given",
        [
            {"sampling_steps": "2"},
            {"max_layers": 2.0},
            {"area_min": [1]},
            {"mirror": "no"},
            {"majority_null": 1},
            {"model": None},
        ],
        ids=str,
    )
    def test_values_of_another_kind(self, given):
        with pytest.raises(TypeError, match="whole number|must be True, False or None|NoneType"):
            Perceiver.load(**{"model": "default", **given})

    def test_numbers_that_are_not_whole(self, perceiver):
        with pytest.raises(TypeError, match="num_samples must be a whole number, not 2.5"):
            perceiver(picture(8, 8), num_samples=2.5)

    @pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (4, 4, 1), (1, 4, 4, 3), (0, 4, 3), (4, 0, 3), (1, 16385, 3)])
    def test_shapes(self, perceiver, shape):
        with pytest.raises(ValueError, match=r"shape \[H, W, 3\]|sides must be in 1..16384"):
            perceiver(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("samples", [0, -1, 65])
    def test_num_samples(self, perceiver, samples):
        with pytest.raises(ValueError, match=rf"num_samples must be in 1..64, not {samples}"):
            perceiver(picture(8, 8), num_samples=samples)

    def test_one_bad_image_of_a_batch(self, perceiver):
        with pytest.raises(ValueError, match="shape"):
            perceiver.batch([picture(8, 8), np.zeros((8, 8), np.uint8)])

    def test_regions(self, perceiver):
        with pytest.raises(ValueError, match="region x=0 y=0 9x8 .*8x8 image"):
            perceiver(picture(8, 8), region=(0, 0, 9, 8))
        with pytest.raises(ValueError, match="regions must be one for each image, 1, not 2"):
            perceiver.batch([picture(8, 8)], regions=[None, None])
        with pytest.raises(TypeError, match="each number of a region must be a whole number, not 0.5"):
            perceiver(picture(8, 8), region=(0, 0.5, 4, 4))
        with pytest.raises(ValueError, match=r"a region is x, y, width and height, four numbers, not \(1, 2, 3\)"):
            perceiver(picture(8, 8), region=(1, 2, 3))

    def test_it_is_not_sent_to_other_processes(self, perceiver):
        with pytest.raises(TypeError, match="load one in each process"):
            pickle.dumps(perceiver)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"device": "gpu"}, "device must be one of auto, cpu, cuda, not 'gpu'"),
            ({"fit": "stretch"}, "fit must be one of letterbox, centre_crop, not 'stretch'"),
            ({"sampling_steps": 0}, r"sampling_steps must be in 1\.\.1000, not 0"),
            ({"sampling_steps": 1001}, "not 1001"),
            ({"max_layers": 0}, "at least 1"),
            ({"area_min": 0}, "at least 1"),
        ],
    )
    def test_settings_out_of_range(self, small_model, settings, message):
        with pytest.raises(ValueError, match=message):
            Perceiver.load(str(small_model), **settings)

    def test_cuda_where_there_is_none(self, small_model):
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device here")
        with pytest.raises(ValueError, match="torch sees no CUDA device here: use 'cpu' or 'auto'"):
            Perceiver.load(str(small_model), "cuda")

    def test_a_missing_weights_file(self):
        with pytest.raises(FileNotFoundError, match="is missing"):
            Perceiver.load("/nowhere/model.safetensors")


def in_a_fresh_python(code: str) -> subprocess.CompletedProcess:
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def test_importing_the_package_imports_neither_torch_nor_rclpy():
    done = in_a_fresh_python(
        "import sys, seqamodal_ros, seqamodal_ros.messages, seqamodal_ros.commands.predict, seqamodal_ros.__main__\n"
        "import seqamodal_ros.scene.pictures, seqamodal_ros.scene.report\n"
        "print(sorted({'torch', 'rclpy', 'yaml', 'training'} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_without_torch_the_error_says_how_to_install_it(missing):
    done = in_a_fresh_python(
        f"import sys; sys.modules['{missing}'] = None\n"
        "from seqamodal_ros import Perceiver\n"
        "try: Perceiver.load()\n"
        "except ImportError as error: print(error)"
    )
    assert done.stdout.startswith(f"cannot import {missing}: install"), done.stderr


class TestShippedModel:
    @pytest.fixture(scope="class")
    def shipped(self) -> Perceiver:
        return Perceiver.load("default", device="cpu")

    def test_shapes_and_sizes(self, shipped):
        scene = shipped(picture(480, 640))
        check_scene(scene, samples=3, size=64, max_layers=5)
        assert_same(scene, shipped(picture(480, 640)))

    def test_a_batch_is_close_to_its_images_alone(self, shipped):
        images = [picture(480, 640), picture(480, 640, 1)]
        for image, scene in zip(images, shipped.batch(images), strict=True):
            alone = shipped(image)
            assert len(alone.amodal) == len(scene.amodal)
            assert (alone.amodal != scene.amodal).mean() < 1e-3 if len(alone.amodal) else True


def test_of_numbered_hypotheses_number_0_draws_the_layers_and_the_others_go_along(numbered_model, rectangles):
    import torch

    perceiver = Perceiver.load(str(numbered_model), "cpu", runtime="torch", sampling_steps=1, max_layers=1)
    alone, agreed = rectangles((2, 2, 12, 12), (10, 10, 30, 30))
    drawn = torch.stack([torch.from_numpy(mask)[None] * 2.0 - 1 for mask in (alone, agreed, agreed)])
    perceiver.network.denoise = lambda x_t, t, cumulative_mask, image_features, hypothesis: drawn[hypothesis]
    scene = perceiver(np.zeros((160, 160, 3), np.uint8), 3)
    assert np.array_equal(scene.amodal, [alone])
    assert np.array_equal(scene.hypotheses, [[alone, agreed, agreed]])
    drawn[0] = -1
    assert len(perceiver(np.zeros((160, 160, 3), np.uint8), 3).amodal) == 0

# SPDX-License-Identifier: Apache-2.0
"""The picture page in a real browser: what the sliders, the keyboard and the mouse bring up, and where it lies."""

import cv2
import numpy as np
import pytest
from chromium import PROGRAM, Chromium

from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.image_files import decode_image
from seqamodal_ros.scene.layers import visible_masks
from seqamodal_ros.scene.page import PAGE, Page
from seqamodal_ros.scene.pictures import layer_colour
from seqamodal_ros.scene.scene import LayeredScene

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: `sudo apt install chromium`")

GREY = 90
POINTS = 90  # that are looked at along the longer side of a picture
# For each point of a grid over the picture, what is painted there: 1 the tint of a visible part, 2 a hatch, 3 both.
PAINTED = """((width, height, step) => {
  const box = document.querySelector(".picture").getBoundingClientRect();
  const rows = [];
  for (let y = 0; y < height; y += step) {
    const row = [];
    for (let x = 0; x < width; x += step) {
      const at = [box.x + (x + 0.5) * box.width / width, box.y + (y + 0.5) * box.height / height];
      const names = document.elementsFromPoint(...at).map((one) => one.getAttribute("class"));
      row.push((names.includes("tint") ? 1 : 0) + (names.includes("hatch") ? 2 : 0));
    }
    rows.push(row);
  }
  return rows;
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page of (name, scene) pairs over grey images; afterwards the browser must have had nothing to complain of."""
    browser.complaints.clear()
    browser.requests.clear()

    def open_page(*frames: tuple[str, LayeredScene], width: int = 1280, height: int = 900) -> Chromium:
        page = Page()
        for name, scene in frames:
            page.add(name, np.full((scene.geometry.height, scene.geometry.width, 3), GREY, np.uint8), scene)
        page.write(tmp_path / PAGE)
        browser.open(tmp_path / PAGE, width, height)
        return browser

    yield open_page
    assert browser.complaints == []
    assert all(address.startswith(("data:", (tmp_path / PAGE).as_uri())) for address in browser.requests)


@pytest.fixture
def scene(make_scene, rectangles) -> LayeredScene:
    """Three layers of 640x480, objects 1 and 2 in the first; the samples of the second and the third differ."""
    front = rectangles((6, 14, 30, 30), (44, 30, 58, 44), size=64).any(axis=0)
    amodal = np.array([front, *rectangles((20, 22, 50, 42), (24, 26, 38, 52), size=64)])
    hypotheses = np.repeat(amodal[:, None], 3, axis=1)
    hypotheses[1, 2] = rectangles((12, 22, 50, 50), size=64)[0]
    hypotheses[2, 0] = False
    return make_scene(amodal, width=640, height=480, hypotheses=hypotheses)


def shown(browser: Chromium) -> list[str]:
    """What is drawn, the front last: ``2/0`` is layer 2 as selected, ``#3`` object 3."""
    script = """[...document.querySelectorAll(".mask")].filter((mask) => getComputedStyle(mask).display !== "none")
      .map(({dataset: d}) => d.object ? "#" + d.object : d.layer + "/" + d.sample)"""
    return browser.evaluate(script)


def badges(browser: Chromium) -> list[str]:
    script = """[...document.querySelectorAll(".picture .badge")].filter((badge) => getComputedStyle(badge).display !== "none")
      .map((badge) => badge.dataset.object)"""
    return sorted(browser.evaluate(script))


def caption(browser: Chromium) -> str:
    return browser.evaluate("document.querySelector('figcaption').textContent")


def outputs(browser: Chromium) -> list[str]:
    return browser.evaluate("[...document.querySelectorAll('output')].map((output) => output.textContent)")


def slide(browser: Chromium, slider: str, *keys: str) -> None:
    browser.evaluate(f"document.querySelector('#frame-1-{slider}').focus()")
    for key in keys:
        browser.press(key)


def check_painted(browser: Chromium, scene: LayeredScene, mask: np.ndarray, front: np.ndarray) -> None:
    """Raise unless exactly `mask`, bool [h, w], is painted, tinted where `front` is not and hatched where it is."""
    width, height = scene.geometry.width, scene.geometry.height
    step = max(width, height) // POINTS
    painted = np.array(browser.evaluate(f"{PAINTED}({width}, {height}, {step})"))
    mask, front = scene.to_source(mask), scene.to_source(front)
    expected = (mask & ~front) + 2 * (mask & front)
    edge = cv2.morphologyEx(expected.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((step, step))) > 0
    sure = ~edge[::step, ::step]
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(painted[sure], expected[::step, ::step][sure])


class TestSliders:
    def test_the_keyboard_moves_them(self, opened, scene):
        browser = opened(("a", scene))
        assert (shown(browser), badges(browser)) == (["3/0", "2/0", "1/0"], ["1", "2", "3", "4"])
        assert outputs(browser) == ["all", "selected"]
        assert caption(browser) == "All layers: the selected mask of each, front ones over back ones."
        browser.press("Tab")  # the first thing to reach
        browser.press("ArrowRight")
        assert (shown(browser), badges(browser)) == (["1/0"], ["1", "2"])
        assert outputs(browser) == ["1 of 3 (front)", "selected"]
        browser.press("ArrowRight")
        browser.press("Tab")  # now that one layer is chosen
        browser.press("End")
        assert (shown(browser), badges(browser)) == (["2/3"], [])
        assert outputs(browser) == ["2 of 3", "hypothesis 3 of 3"]
        assert browser.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "hypothesis 3 of 3"
        assert caption(browser).startswith("Layer 2 of 3, hypothesis 3 of 3: 21% hidden, IOU 0.56")

    def test_all_layers_have_no_samples(self, opened, scene):
        browser = opened(("a", scene))
        disabled = "document.querySelector('#frame-1-sample').disabled"
        assert browser.evaluate(disabled)
        slide(browser, "layer", "ArrowRight")
        assert not browser.evaluate(disabled)
        slide(browser, "sample", "End")
        slide(browser, "layer", "Home")
        assert browser.evaluate(disabled)
        assert (shown(browser), outputs(browser)) == (["3/0", "2/0", "1/0"], ["all", "selected"])

    def test_the_samples_of_an_only_layer_are_at_hand(self, opened, make_scene, rectangles):
        browser = opened(("a", make_scene(rectangles((4, 4, 20, 20)))))
        slide(browser, "sample", "ArrowRight")
        assert (shown(browser), outputs(browser)) == (["1/1"], ["all", "hypothesis 1 of 2"])

    def test_a_blank_sample(self, opened, scene):
        browser = opened(("a", scene))
        slide(browser, "layer", "End")
        slide(browser, "sample", "ArrowRight")
        assert caption(browser) == "Layer 3 of 3, hypothesis 1 of 3: blank, it sees no such layer."
        check_painted(browser, scene, np.zeros((64, 64), bool), np.zeros((64, 64), bool))

    def test_the_frames_do_not_mind_each_other(self, opened, scene):
        browser = opened(("a", scene), ("b", scene))
        slide(browser, "layer", "End")
        assert shown(browser) == ["3/0", "3/0", "2/0", "1/0"]


class TestMasks:
    @pytest.mark.parametrize("layer", [1, 2, 3])
    @pytest.mark.parametrize("sample", [0, 1, 3])
    def test_the_right_one_is_painted_where_it_lies(self, opened, scene, layer, sample):
        browser = opened(("a", scene))
        slide(browser, "layer", *["ArrowRight"] * layer)
        slide(browser, "sample", *["ArrowRight"] * sample)
        mask = scene.hypotheses[layer - 1, sample - 1] if sample else scene.amodal[layer - 1]
        check_painted(browser, scene, mask, scene.amodal[: layer - 1].any(axis=0))

    @pytest.mark.parametrize("width", [1280, 400])
    @pytest.mark.parametrize(
        "geometry",
        [
            Geometry.letterbox(480, 640),
            Geometry.centre_crop(640, 480),
            Geometry.region(500, 300, 180, 90, 120, 80),
            Geometry.letterbox(1920, 1080),
        ],
        ids=["letterbox", "centre_crop", "region", "a smaller image"],
    )
    def test_in_any_geometry(self, opened, make_scene, rectangles, geometry, width):
        scene = make_scene(rectangles((8, 13, 30, 30), (20, 22, 50, 42), size=64), geometry=geometry)
        browser = opened(("a", scene), width=width)
        slide(browser, "layer", "End")
        check_painted(browser, scene, scene.amodal[1], scene.amodal[0])

    def test_what_is_seen_on_the_screen(self, opened, scene):
        """Visible parts tinted evenly, hidden ones hatched, all in their layer's colour; what is not meant is dark."""
        browser = opened(("a", scene))
        picture = screen(browser)
        assert np.abs(picture[300:350, 30:100] - GREY).max() <= 3  # no mask there
        assert np.ptp(picture[75:95, 80:160].reshape(-1, 3), axis=0).max() <= 3
        assert nearest_layer(picture[85, 120]) == 1
        assert nearest_layer(picture[170, 460]) == 2
        hidden = picture[150:210, 215:236].reshape(-1, 3)
        assert np.ptp(hidden, axis=0).max() > 60
        slide(browser, "layer", "ArrowRight", "ArrowRight")
        picture = screen(browser)
        assert picture[300:350, 30:100].max() < GREY / 2
        assert nearest_layer(picture[170, 460]) == 2
        hidden = picture[150:210, 215:290].reshape(-1, 3)
        assert np.ptp(hidden, axis=0).max() > 90
        assert nearest_layer(hidden[np.ptp(hidden, axis=1).argmax()]) == 2


class TestObjects:
    def test_hovering_shows_one_for_the_time(self, opened, scene):
        browser = opened(("a", scene))
        browser.mouse("tr[data-object='4'] td", click=False)
        assert (shown(browser), badges(browser)) == (["#4"], ["4"])
        assert caption(browser).startswith("Object 4: layer 3, score 0.90, ")
        check_painted(browser, scene, scene.objects[3].amodal, scene.amodal[:2].any(axis=0))
        browser.mouse("h1", click=False)
        assert shown(browser) == ["3/0", "2/0", "1/0"]

    def test_a_button_keeps_it_until_it_is_pressed_again(self, opened, scene):
        browser = opened(("a", scene))
        pressed = "[...document.querySelectorAll('[aria-pressed=true]')].map((button) => button.textContent)"
        browser.evaluate("document.querySelector('tr[data-object=\"2\"] button').focus()")
        browser.press("Enter")
        assert (shown(browser), browser.evaluate(pressed)) == (["#2"], ["2"])
        browser.press("Enter")
        assert (shown(browser), browser.evaluate(pressed)) == (["3/0", "2/0", "1/0"], [])

    def test_a_badge_does_the_same_and_a_slider_takes_over(self, opened, scene):
        browser = opened(("a", scene))
        browser.mouse(".picture .badge[data-object='3']", click=True)
        assert shown(browser) == ["#3"]
        slide(browser, "layer", "ArrowRight")
        assert shown(browser) == ["1/0"]
        assert not browser.evaluate("document.querySelector('[aria-pressed=true]')")

    def test_a_badge_stands_on_its_object(self, opened, scene):
        browser = opened(("a", scene))
        visible = visible_masks(np.array([scene.to_source(mask) for mask in scene.amodal]))
        for obj in scene.objects:
            script = f"""((badge, picture) => [(badge.x + badge.width / 2 - picture.x) / picture.width,
              (badge.y + badge.height / 2 - picture.y) / picture.height])(
              document.querySelector(".picture .badge[data-object='{obj.id}']").getBoundingClientRect(),
              document.querySelector(".picture").getBoundingClientRect())"""
            x, y = browser.evaluate(script)
            assert visible[obj.layer - 1][int(y * 480), int(x * 640)]


class TestPage:
    @pytest.mark.parametrize("width", [1280, 400, 320])
    def test_it_fits_wide_and_narrow(self, opened, make_scene, scene, width):
        bare = make_scene(np.zeros((0, 64, 64)), width=640, height=480)
        browser = opened(("a name that is long_" * 12, scene), ("bare", bare), width=width)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("document.querySelector('.picture').offsetWidth") > 0.5 * min(width, 900)
        assert decode_image(browser.screenshot(whole=True)).shape[0] > 900

    def test_a_hostile_name_is_shown_and_does_nothing(self, opened, scene):
        name = "</script><script>document.title = 'ha'</script><img src=x onerror=\"document.title = 'ha'\">"
        browser = opened((name, scene))
        assert browser.evaluate("document.title") == "Layered masks of 1 image"
        assert browser.evaluate("document.querySelector('h2').textContent") == name

    def test_the_browser_would_run_no_other_script(self, opened, scene, browser, tmp_path):
        opened(("a", scene))
        text = (tmp_path / PAGE).read_text(encoding="utf-8")
        (tmp_path / PAGE).write_text(text.replace("</main>", "<script>document.title = 'ha'</script></main>"), encoding="utf-8")
        browser.open(tmp_path / PAGE)
        assert browser.evaluate("document.title") == "Layered masks of 1 image"
        (complaint,) = browser.complaints
        assert "Content Security Policy" in complaint
        browser.complaints.clear()

    def test_a_page_of_nothing(self, opened, make_scene):
        browser = opened(("bare", make_scene(np.zeros((0, 64, 64)), width=64, height=48)))
        assert caption(browser) == "No layer found."
        opened()
        assert "no image was seen" in browser.evaluate("document.body.innerText")


def screen(browser: Chromium) -> np.ndarray:
    """int [480, 640, 3]: what the window shows of the picture, at the source's size."""
    x, y, width, height = browser.evaluate(
        "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('.picture').getBoundingClientRect())"
    )
    window = decode_image(browser.screenshot())
    part = window[round(y) : round(y + height), round(x) : round(x + width)]
    return cv2.resize(part, (640, 480), interpolation=cv2.INTER_NEAREST).astype(int)


def nearest_layer(pixel: np.ndarray) -> int:
    """The layer, of the first three, in whose colour's direction from grey a pixel lies."""
    directions = np.array([layer_colour(layer) for layer in (1, 2, 3)], float) - GREY
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return int((directions @ (pixel - GREY)).argmax()) + 1

# SPDX-License-Identifier: Apache-2.0
"""The picture page without a browser: names as they are, masks where they belong, nothing from elsewhere, whole files."""

import base64
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqamodal_ros.scene import page as page_module
from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.image_files import decode_image
from seqamodal_ros.scene.page import PAGE, Page, is_page
from seqamodal_ros.scene.page_frame import LONGEST, svg_outline
from seqamodal_ros.scene.scene import LayeredScene

HOSTILE = "</script><script>alert('a')</script><img src=x onerror=\"alert('b')\">&amp;"


class Elements(HTMLParser):
    """The start tags of a page, each with its attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        found = [attributes for name, attributes in self.tags if name == tag]
        return [one for one in found if all(one.get(key.replace("_", "-")) == value for key, value in wanted.items())]


@pytest.fixture
def scene(make_scene, rectangles) -> LayeredScene:
    """Two rectangles in a 640x480 image: x 60-300, y 60-220 in front, x 200-500, y 140-340 behind it."""
    return make_scene(rectangles((6, 14, 30, 30), (20, 22, 50, 42), size=64), width=640, height=480, samples=3)


@pytest.fixture
def write(tmp_path):
    """The text of a page of (name, scene) pairs, with noise for images."""

    def written(*frames: tuple[str, LayeredScene]) -> str:
        page = Page()
        for name, scene in frames:
            size = (scene.geometry.height, scene.geometry.width, 3)
            page.add(name, np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8), scene)
        page.write(tmp_path / PAGE)
        return (tmp_path / PAGE).read_text(encoding="utf-8")

    return written


def test_what_a_frame_shows(write, scene):
    elements = Elements(write(("frame_01", scene)))
    assert elements.all("html")[0]["lang"] == "en"
    assert "Layered masks of 1 image" in elements.text
    layer, sample = elements.all("input")
    assert (layer["max"], sample["max"]) == ("2", "3")
    labelled = {label["for"] for label in elements.all("label")}
    assert labelled == {layer["id"], sample["id"]}
    names = [option["label"] for option in elements.all("option")]
    assert names == ["all", "1 of 2 (front)", "2 of 2", "selected", *(f"hypothesis {k} of 3" for k in (1, 2, 3))]
    assert len(elements.all("g", data_layer="2")) == 4
    assert {g["data-layer"] for g in elements.all("g") if g.get("class") == "mask shown"} == {"1", "2"}
    assert elements.all("g", data_object="2")[0]["data-caption"] == (
        "Object 2: layer 2, score 0.90, 87% visible, under object 1, to be picked 2nd."
    )
    assert re.findall(r"<td>(.*?)</td>", write(("frame_01", scene))) == [
        *("1", "0.90", "100%", "0.00", "none", "1st"),
        *("2", "0.90", "87%", "0.36", "1", "2nd"),
    ]


def test_a_caption_tells_what_lies_on_an_object(write, make_scene, rectangles):
    front, behind = rectangles((0, 0, 8, 8)), rectangles((4, 0, 12, 8)) | rectangles((20, 20, 28, 28))
    elements = Elements(write(("a", make_scene(np.concatenate([front, behind])))))
    said = [elements.all("g", data_object=str(number))[0]["data-caption"].split(", ")[3] for number in (1, 2, 3)]
    assert said == ["nothing on it", "under object 1", "under something that is not listed"]


def test_occluders_that_not_all_hypotheses_see_have_their_share(write, make_scene, rectangles):
    one, other, behind, shorter, longer = rectangles((0, 0, 8, 8), (16, 0, 24, 8), (4, 0, 14, 8), (8, 0, 14, 8), (4, 0, 20, 8))
    amodal, blank = np.array([one | other, behind]), np.zeros_like(one)
    scene = make_scene(amodal, hypotheses=np.array([[one | other] * 4, [behind, shorter, longer, blank]]))
    text = write(("a", scene))
    assert "<td>1 (67%), perhaps 2 (33%)</td>" in text
    assert "under object 1 (67%), perhaps 2 (33%), to be picked" in text
    assert "In brackets: of the hypotheses that see the object, the share" in text
    alone = write(("a", make_scene(amodal)))
    assert "Uncertainty is of the hidden part.</p>" in alone and "In brackets" not in alone


def test_a_caption_tells_what_a_sample_is(write, make_scene, rectangles):
    amodal = rectangles((0, 0, 8, 8), (4, 0, 12, 8))
    blank, other = np.zeros((32, 32), bool), rectangles((4, 0, 12, 4))[0]
    hypotheses = np.array([[amodal[0]] * 3, [blank, other, amodal[1]]])
    elements = Elements(write(("a", make_scene(amodal, hypotheses=hypotheses))))
    captions = [g["data-caption"] for g in elements.all("g", data_layer="2")]
    assert captions == [
        "Layer 2 of 2, the selected mask: 1 object, 50% hidden, agreement 0.50.",
        "Layer 2 of 2, hypothesis 1 of 3: blank, it sees no such layer.",
        "Layer 2 of 2, hypothesis 2 of 3: 50% hidden, IOU 0.50 with the selected mask.",
        "Layer 2 of 2, hypothesis 3 of 3: 50% hidden, the one that was selected.",
    ]


def test_the_image_comes_back(tmp_path, scene):
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, 320:] = (200, 30, 90)
    page = Page()
    page.add("a", image, scene)
    page.write(tmp_path / PAGE)
    (picture,) = Elements((tmp_path / PAGE).read_text(encoding="utf-8")).all("img")
    head, _, data = picture["src"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert np.abs(decode_image(base64.b64decode(data)).astype(int) - image)[:, [100, 500]].max() < 8
    assert (picture["width"], picture["height"]) == ("640", "480")


def test_what_was_not_looked_at_is_dark(tmp_path, make_scene):
    page = Page()
    page.add(
        "a", np.full((48, 64, 3), 200, np.uint8), make_scene(np.zeros((0, 8, 8)), geometry=Geometry.region(64, 48, 32, 0, 32, 48))
    )
    page.write(tmp_path / PAGE)
    (picture,) = Elements((tmp_path / PAGE).read_text(encoding="utf-8")).all("img")
    shown = decode_image(base64.b64decode(picture["src"].partition(",")[2]))
    assert shown[:, :28].mean() < 100
    assert shown[:, 36:].mean() > 190


def test_a_large_image_is_made_smaller(write, make_scene, rectangles):
    (picture,) = Elements(write(("a", make_scene(rectangles((0, 8, 20, 20)), width=4000, height=2000)))).all("img")
    assert (picture["width"], picture["height"]) == (str(LONGEST), str(LONGEST // 2))


class TestSelfContained:
    def test_nothing_comes_from_elsewhere(self, write, scene, make_scene):
        text = write(("a", scene), ("b", make_scene(np.zeros((0, 64, 64)), width=30, height=20)))
        assert not re.search(r"https?:|//\w|@import|url\((?!#)", re.sub(r"base64,[^\"]*", "", text).replace("// ", ""))
        elements = Elements(text)
        for _, attributes in elements.tags:
            assert not {"srcset", "action", "poster", "background", "onclick", "onload"} & attributes.keys()
            assert attributes.get("src", "data:").startswith("data:")
            assert attributes.get("href", "#").startswith(("#", "data:,"))
        assert not elements.all("iframe") and len(elements.all("script")) == 1

    def test_what_is_referred_to_is_there_once(self, write, scene):
        text = write(("a", scene), ("b", scene))
        ids = [attributes["id"] for _, attributes in Elements(text).tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        referred = re.findall(r"(?:href=\"#|url\(#|for=\"|list=\"|aria-labelledby=\")([^\")]+)", text)
        assert set(referred) <= set(ids)

    def test_twelve_frames_are_small(self, tmp_path, make_scene):
        """Twelve photographs of 640x480, of five ragged layers each with samples that all differ: less than 3 MB."""
        rng = np.random.default_rng(0)

        def blobs(count: int) -> np.ndarray:
            smooth = [cv2.GaussianBlur(rng.normal(size=(64, 64)), (0, 0), 3) for _ in range(count)]
            return (np.array(smooth) > 0.03) & Geometry.letterbox(640, 480).inside(64)

        page = Page()
        for _ in range(12):
            hypotheses = blobs(15).reshape(5, 3, 64, 64)
            image = cv2.resize(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
            page.add("a", image, make_scene(hypotheses[:, 0], width=640, height=480, hypotheses=hypotheses))
        page.write(tmp_path / PAGE)
        assert (tmp_path / PAGE).stat().st_size < 3e6


class TestNames:
    def test_a_name_is_text_and_nothing_else(self, write, scene):
        text = write((HOSTILE, scene), ("b", scene))
        assert HOSTILE not in text
        elements = Elements(text)
        assert elements.text.count(HOSTILE) == 2  # headline and list of contents
        assert f"the image {HOSTILE}" in [picture["alt"] for picture in elements.all("img")]
        assert len(elements.all("script")) == 1
        assert len(elements.all("img")) == 2

    @pytest.mark.parametrize("name", ["", "früh 苹果 🍎", "a\nb\tc", "not \udce9 text"])
    def test_any_name(self, write, scene, name):
        assert name.encode("utf-8", "replace").decode() in Elements(write((name, scene))).text


class TestEmpty:
    def test_an_image_in_which_nothing_was_found(self, write, make_scene):
        elements = Elements(write(("bare", make_scene(np.zeros((0, 64, 64)), width=64, height=48))))
        assert "No layer found." in elements.text
        assert "64\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}48" in elements.text
        assert len(elements.all("img")) == 1
        assert not elements.all("input") and not elements.all("table")

    def test_an_image_of_which_nobody_can_tell(self, write, make_scene):
        scene = make_scene(np.zeros((0, 64, 64)), width=64, height=48, doubt="<i>too dark")
        assert "Cannot tell: <i>too dark." in Elements(write(("night", scene))).text

    def test_specks_alone(self, write, make_scene, rectangles):
        elements = Elements(write(("specks", make_scene(rectangles((3, 8, 5, 10)), width=32, height=32))))
        assert "No object: what the layers hold is too small to be one." in elements.text
        assert len(elements.all("input")) == 2

    def test_no_image_at_all(self, write):
        elements = Elements(write())
        assert "There is nothing to show: no image was seen." in elements.text

    def test_a_message_without_hypotheses(self, write, make_scene, rectangles):
        scene = make_scene(rectangles((4, 4, 20, 20)), hypotheses=np.zeros((1, 0, 32, 32), bool))
        _, sample = Elements(write(("a", scene))).all("input")
        assert sample["max"] == "0"

    def test_numbers_that_were_not_computed(self, write, make_scene, rectangles):
        scene = make_scene(rectangles((4, 4, 20, 20)), probability=np.full((1, 32, 32), np.nan, np.float32))
        text = write(("a", scene))
        assert "nan" not in Elements(text).text and "score –" in text


class TestOutline:
    @given(st.integers(1, 4), st.sampled_from(("letterbox", "centre_crop")), st.integers(0, 2**32 - 1))
    def test_filled_again_it_is_the_mask(self, coarseness, fit, seed):
        blocks = np.random.default_rng(seed).random((16 // coarseness + 1,) * 2) > 0.5
        mask = np.kron(blocks, np.ones((coarseness, coarseness)))[:16, :16] > 0
        at_source = getattr(Geometry, fit)(320, 240).to_source(mask)
        filled = np.zeros(at_source.shape, np.uint8)
        cv2.fillPoly(filled, [corners(part) for part in svg_outline(at_source).split("M")[1:]], 1)
        edge = cv2.morphologyEx(at_source.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5)))
        assert not ((filled > 0) != at_source)[edge == 0].any()

    def test_a_blank_mask_has_none(self):
        assert svg_outline(np.zeros((4, 6), bool)) == ""

    def test_a_pixel_and_a_line(self):
        mask = np.zeros((4, 9), bool)
        mask[1, 2] = mask[3, 4:8] = True
        assert sorted(svg_outline(mask).split("M")) == ["", "2 1l0 0z", "4 3l3 0z"]


def corners(part: str) -> np.ndarray:
    """int32 [N, 2], the corners of one closed part of an SVG path as `svg_outline` writes it."""
    start, _, steps = part.rstrip("z").partition("l")
    numbers = [np.array(re.findall(r"-?\d+", text), np.int32).reshape(-1, 2) for text in (start, steps)]
    return np.concatenate(numbers).cumsum(axis=0, dtype=np.int32)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (37, 53), (2000, 10)])
def test_any_image_size(write, make_scene, rectangles, size):
    if size == (1, 1) and tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 6):
        pytest.skip("the OpenCV of ROS 2 Humble takes no colour image of one pixel")
    height, width = size
    scene = make_scene(rectangles((0, 0, 20, 20), (10, 10, 32, 32)), width=width, height=height)
    text = write(("a", scene))
    assert len(Elements(text).all("img")) == 1
    places = re.findall(r'class="badge".*?left: (.+?)%; top: (.+?)%', text)
    assert len(places) == 2
    assert all(0 <= float(share) <= 100 for place in places for share in place)


def test_another_size_is_an_error(scene):
    with pytest.raises(ValueError, match=r"480, 640, 3.*not uint8 \[470, 640, 3\]"):
        Page().add("a", np.zeros((470, 640, 3), np.uint8), scene)


def test_what_is_too_much_is_told(write, make_scene, rectangles, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_FRAMES", 2)
    elements = Elements(write(*((f"frame {k}", make_scene(rectangles((0, 0, 8, 8)))) for k in range(5))))
    assert len(elements.all("img")) == 2
    assert "Layered masks of 5 images" in elements.text
    assert "The first 2 are shown. The pictures of the other 3 lie beside this page." in elements.text


class TestFile:
    def test_a_page_replaces_a_page_and_leaves_nothing_behind(self, write, scene, tmp_path):
        write(("old", scene))
        assert '<h2 id="frame-1-name">new</h2>' in write(("new", scene))
        assert [path.name for path in tmp_path.iterdir()] == [PAGE]

    def test_where_it_cannot_be_written_the_old_one_stays(self, write, scene, tmp_path, monkeypatch):
        before = write(("old", scene))
        monkeypatch.setattr("seqamodal_ros.files.uuid.uuid4", lambda: SimpleNamespace(hex="taken"))
        (tmp_path / ".taken.part").mkdir()
        with pytest.raises(OSError, match=f"cannot write .*{PAGE}.*check that the folder exists and has room"):
            write(("new", scene))
        assert (tmp_path / PAGE).read_text(encoding="utf-8") == before

    def test_it_knows_its_own(self, write, scene, tmp_path):
        write(("a", scene))
        (tmp_path / "other.html").write_text("<!DOCTYPE html><title>mine</title>")
        assert is_page(tmp_path / PAGE)
        assert not is_page(tmp_path / "other.html")

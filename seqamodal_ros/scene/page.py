# SPDX-License-Identifier: Apache-2.0
"""The picture page: every frame with its masks, sliders and objects as one HTML file that needs no other and no network."""

import base64
import hashlib
from html import escape
from pathlib import Path

import numpy as np

from seqamodal_ros.files import write_whole
from seqamodal_ros.scene.captions import counted
from seqamodal_ros.scene.page_frame import css_colour, frame_html
from seqamodal_ros.scene.scene import LayeredScene

PAGE = "index.html"  # its name in a folder of results
MOST_FRAMES = 100  # on a page; what is more would make it slow to open
MARK = '<meta name="generator" content="seqamodal_ros">'


class Page:
    """Collects frames; `write` makes the page of them."""

    def __init__(self) -> None:
        self._frames: list[str] = []
        self._names: list[str] = []
        self._deepest = 0

    def add(self, name: str, image: np.ndarray, scene: LayeredScene) -> None:
        """Add a frame; one after the first `MOST_FRAMES` is counted and named, and left out.

        Args:
            name: the frame's headline, such as the file's name; any text.
            image: uint8 [H, W, 3] RGB, the one that the scene was seen in.
            scene: of L layers; with none the page says that nothing was found.

        Raises:
            ValueError: image and scene differ in size.
        """
        if len(self._frames) < MOST_FRAMES:
            self._frames.append(frame_html(len(self._frames) + 1, name, image, scene))
            self._deepest = max(self._deepest, len(scene.amodal))
        self._names.append(name)

    def write(self, path: Path | str) -> None:
        """Write the page beside the old one, then put it in its place.

        Raises:
            OSError: it cannot be written there; the message says where and why.
        """
        # a file's name may hold what is no text; such a character becomes a question mark
        write_whole(Path(path), self._html().encode("utf-8", "replace"))

    def _html(self) -> str:
        style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        # the browser itself holds the page to what is in it, and to this one script
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        title = f"Layered masks of {counted(len(self._names), 'image')}"
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
{MARK}
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{self._hatches()}
<header>
<h1>{title}</h1>
{self._introduction()}
{self._contents()}
</header>
<main>
{"".join(self._frames)}</main>
<script>{script}</script>
</body>
</html>
"""

    def _introduction(self) -> str:
        if not self._frames:
            return "<p>There is nothing to show: no image was seen.</p>"
        left_out = len(self._names) - len(self._frames)
        note = (
            f"<p>The first {len(self._frames)} are shown. The pictures of the other {left_out} lie beside this page.</p>"
            if left_out
            else ""
        )
        return note + (self._legend() if self._deepest else "")

    def _legend(self) -> str:
        colours = "".join(
            f'<li><span class="swatch" style="background: {css_colour(layer)}"></span>'
            f"layer {layer}{' (front)' * (layer == 1)}</li>"
            for layer in range(1, self._deepest + 1)
        )
        return f"""<ul class="legend">
<li><span class="swatch visible"></span>visible</li>
<li><span class="swatch hidden"></span>hidden, completed</li>
<li><span class="badge" style="--colour: {css_colour(1)}"><b>3</b><i>1st</i></span>object and pick order</li>
{colours}
</ul>"""

    def _contents(self) -> str:
        if len(self._frames) < 2:
            return ""
        links = "".join(
            f'<li><a href="#frame-{number}">{escape(name)}</a></li>'
            for number, name in enumerate(self._names[: len(self._frames)], start=1)
        )
        return f'<nav aria-label="Images"><ol>{links}</ol></nav>'

    def _hatches(self) -> str:
        """A pattern for each layer; the lines of one and the next cross, so that what is hidden twice shows both."""
        patterns = "".join(
            f'<pattern id="hatch-{layer}" width="9" height="9" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate({45 if layer % 2 else -45})" color="{css_colour(layer)}">'
            '<rect class="gap" width="9" height="9"/><rect class="line" width="4" height="9"/></pattern>'
            for layer in range(2, self._deepest + 1)
        )
        return f'<svg class="patterns" aria-hidden="true"><defs>{patterns}</defs></svg>'


def is_page(path: Path) -> bool:
    """Whether a file is a page that `Page.write` wrote.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return MARK.encode() in file.read(1000)

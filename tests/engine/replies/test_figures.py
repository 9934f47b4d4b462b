"""Figures: what a page's document names as pictures, and links in their place."""

from __future__ import annotations

import pytest
from qwen_vl_suite.qwenvl.replies.figures import linked

CASES = {
    "a comment": (
        "# Title\n<!-- Image (1, 2, 30, 40) -->\nText",
        "# Title\n![image](f0.png)\nText",
        [(1, 2, 30, 40, "image")],
    ),
    "a comment about a table, or of words": (
        "<!-- Table (1, 2, 30, 40) --> <!-- Image of a cat (new) --> <!-- note (1, 2, 3, 4) -->",
        "<!-- Table (1, 2, 30, 40) --> <!-- Image of a cat (new) --> <!-- note (1, 2, 3, 4) -->",
        [],
    ),
    "an element": (
        '<div class="image" data-bbox="1 2 30 40"></div>'
        '<div class="text" data-bbox="1 2 3 4">a</div>',
        '<div class="image" data-bbox="1 2 30 40"><img src="f0.png"></div>'
        '<div class="text" data-bbox="1 2 3 4">a</div>',
        [(1, 2, 30, 40, "image")],
    ),
    "an element with a picture in it, one figure": (
        '<div class="figure" data-bbox="1 2 30 40"><img data-bbox="1 2 30 40" alt="a cat"/></div>',
        '<div class="figure" data-bbox="1 2 30 40">'
        '<img src="f0.png" data-bbox="1 2 30 40" alt="a cat"/></div>',
        [(1, 2, 30, 40, "figure")],
    ),
    "a picture that names a file": (
        "<img data-bbox='1 2 30 40' src='x.png'> and <img src='y.png'>",
        "<img src=\"f0.png\" data-bbox='1 2 30 40'> and <img src='y.png'>",
        [(1, 2, 30, 40, "img")],
    ),
    "Chandra's labels": (
        '<div data-bbox="5 6 7 8" data-label="Figure"><p>Growth</p></div>',
        '<div data-bbox="5 6 7 8" data-label="Figure"><img src="f0.png"><p>Growth</p></div>',
        [(5, 6, 7, 8, "figure")],
    ),
    "olmOCR's, by place and size": (
        "![A chart](page_10_20_30_40.png) ![b](c.png)",
        "![A chart](f0.png) ![b](c.png)",
        [(10, 20, 40, 60, "A chart")],
    ),
    "several, numbered in order": (
        "<!-- Chart (1, 1, 9, 9) -->\n<!--Photo(2, 2, 9, 9)-->",
        "![chart](f0.png)\n![photo](f1.png)",
        [(1, 1, 9, 9, "chart"), (2, 2, 9, 9, "photo")],
    ),
    "no area": ("<!-- Image (9, 9, 9, 9) -->", "<!-- Image (9, 9, 9, 9) -->", []),
}  # fmt: skip


@pytest.mark.parametrize(("document", "expected", "boxes"), CASES.values(), ids=CASES)
def test_figures_get_links(document, expected, boxes):
    text, found = linked(document, "f{}.png".format)
    assert text == expected
    assert [(box.x1, box.y1, box.x2, box.y2, box.label) for box in found] == boxes

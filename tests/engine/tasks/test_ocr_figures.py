"""Figures of pages as olmOCR names them: in pixels of the page, whatever the model was shown."""

from __future__ import annotations

import pytest
from qwen_vl_suite.qwenvl import fine_tunes
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.tasks.ocr import ocr
from qwen_vl_suite.qwenvl.types import Box, ReplyContext

PAGE = """---
primary_language: en
is_table: False
---
Text

![A chart of (sales)](page_100_50_200_100.png)

![a logo](logo.png)"""


@pytest.mark.parametrize("output", ["plain", "markdown"])
def test_a_figure_is_a_box_of_the_page(output):
    task = ocr(output, fine_tune=fine_tunes.by_name("olmocr-2-7b"))
    result = task.parse(PAGE, ReplyContext(FAMILIES["qwen2_5_vl"], (1000, 800), (500, 400)))
    assert result.boxes == (Box(200, 100, 600, 300, "A chart of (sales)"),)
    assert "![A chart of (sales)](page_200_100_400_200.png)" in result.text
    assert "![a logo](logo.png)" in result.text

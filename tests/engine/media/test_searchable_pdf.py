"""Searchable PDF: what is written is found again, where it stands, and nothing of it is seen."""

from __future__ import annotations

import pypdfium2
import pytest
import torch
from qwen_vl_suite.qwenvl.errors import QwenVLError
from qwen_vl_suite.qwenvl.media.documents import Document, Resolution
from qwen_vl_suite.qwenvl.media.searchable_pdf import SearchablePdf, _visual_order
from qwen_vl_suite.qwenvl.types import Box


@pytest.fixture
def saved(tmp_path):
    """``saved(picture, lines, size)``: a PDF of one page."""

    def write(picture, lines, size=None):
        pdf = SearchablePdf()
        pdf.add(picture, lines, size)
        pdf.save(tmp_path / "page.pdf")
        pdf.close()
        return tmp_path / "page.pdf"

    return write


def found(path):
    """Text and box in points, from the top left, of each line that PDFium finds."""
    with pypdfium2.PdfDocument(path) as pdf:
        page = pdf[0]
        text, down = page.get_textpage(), page.get_height()
        boxes = [text.get_rect(index) for index in range(text.count_rects())]
        return text.get_text_range(), [
            (text.get_text_bounded(*box), (box[0], down - box[3], box[2], down - box[1]))
            for box in boxes
        ]


GREY = torch.full((3, 600, 800), 200, dtype=torch.uint8)
LINES = [
    Box(100, 40, 500, 80, "Hello, wörld (1) \\ <x>"),
    Box(100, 200, 420, 240, "漢字かな交じり文、한국어"),
    Box(100, 300, 300, 340, "Ελληνικά, русский"),
]


def test_lines_are_found_where_they_stand(saved):
    text, lines = found(saved(GREY, LINES, (400, 300)))
    assert text.split("\r\n") == [line.label for line in LINES]
    for (words, box), line in zip(lines, LINES, strict=True):
        assert words == line.label
        assert box == pytest.approx([line.x1 / 2, line.y1 / 2, line.x2 / 2, line.y2 / 2], abs=0.5)


def test_a_search_finds_one_word_in_its_part_of_the_line(saved):
    path = saved(GREY, [Box(0, 100, 800, 140, "left 中 right")], (800, 600))
    with pypdfium2.PdfDocument(path) as pdf:
        text = pdf[0].get_textpage()
        index, count = text.search("right").get_next()
        left, *_ = text.get_charbox(index)
        right = text.get_charbox(index + count - 1)[2]
    assert (left, right) == pytest.approx((800 * 7 / 12, 800), abs=1)


def test_vertical_text_runs_downwards(saved):
    path = saved(GREY, [Box(300, 100, 340, 300, "縦書き文")], (800, 600))
    with pypdfium2.PdfDocument(path) as pdf:
        text = pdf[0].get_textpage()
        assert text.get_text_range() == "縦書き文"
        boxes = [text.get_charbox(index) for index in range(4)]
    for number, (left, bottom, right, top) in enumerate(boxes):
        place = (left, 600 - top, right, 600 - bottom)
        assert place == pytest.approx((300, 100 + 50 * number, 340, 150 + 50 * number), abs=1)


def test_right_to_left_text_is_copied_in_reading_order(saved):
    lines = ["שלום עולם", "a مرحبا b", "סעיף 12 של OK"]
    boxes = [Box(10, 50 * at, 400, 50 * at + 30, line) for at, line in enumerate(lines)]
    text, _ = found(saved(GREY, boxes))
    assert text.split("\r\n") == lines


def test_a_long_line_takes_no_longer_than_its_letters():
    dots = "." * 100_000  # each of which goes with the letters around it
    assert _visual_order(f"ש{dots}ל a") == f"a ל{dots}ש"
    assert _visual_order(f"ש{dots}") == f"{dots}ש"


def test_nothing_of_the_text_is_seen(saved):
    path = saved(GREY, LINES, (400, 300))
    with Document(path) as document:
        assert document.size(1) == (400, 300)
        page = document.picture(1, Resolution(longest_side=800))
    assert page.shape == (3, 600, 800)
    assert (page.int() - 200).abs().max() <= 2, "what JPEG loses"


def test_a_page_without_text_or_with_odd_lines(saved):
    assert found(saved(GREY, []))[0] == ""
    odd = [Box(0, 0, 9, 9), Box(0, 20, 90, 30, " \n\x00"), Box(0, 50, 90, 60, "two\nlines\x07")]
    assert found(saved(GREY, odd))[0] == "two lines"


def test_a_picture_says_nothing_of_its_paper(saved):
    with Document(saved(GREY, [])) as document:
        assert document.size(1) == pytest.approx((800 * 72 / 150, 600 * 72 / 150))
    with Document(saved(torch.zeros(3, 16, 40000, dtype=torch.uint8), [])) as document:
        assert max(document.size(1)) == 14400


def test_pages_in_the_order_added(tmp_path):
    pdf = SearchablePdf()
    for number in range(3):
        pdf.add(GREY, [Box(10, 10, 200, 40, f"page {number}")])
    pdf.save(tmp_path / "three.pdf")
    with pypdfium2.PdfDocument(tmp_path / "three.pdf") as found:
        assert [page.get_textpage().get_text_range() for page in found] == [
            "page 0", "page 1", "page 2"
        ]  # fmt: skip


def test_where_it_cannot_be_written_it_says_so(tmp_path):
    with pytest.raises(QwenVLError, match="cannot be written"):
        SearchablePdf().save(tmp_path / "none" / "page.pdf")

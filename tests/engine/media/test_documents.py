"""PDF documents: page by page to pictures; what cannot be read is said in words."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pdfs import write_encrypted_pdf, write_pdf
from qwen_vl_suite.qwenvl.errors import BadDocument, BadImage, BadOption, Unavailable
from qwen_vl_suite.qwenvl.media import documents
from qwen_vl_suite.qwenvl.media.documents import Document, Resolution, is_pdf, read_pages
from qwen_vl_suite.qwenvl.media.page_ranges import page_numbers

RED, BLUE = (1, 0, 0), (0, 0, 1)


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7]),
        (" ", [1, 2, 3, 4, 5, 6, 7]),
        ("3", [3]),
        ("1-10", [1, 2, 3, 4, 5, 6, 7]),
        ("6-", [6, 7]),
        ("-2", [1, 2]),
        ("1,4-6", [1, 4, 5, 6]),
        (" 5 - 6 ,1, ", [5, 6, 1]),
        ("2-3,3-4,2", [2, 3, 4]),
        ("2–3，5", [2, 3, 5]),
        ("1-999999999", [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_page_ranges(text, pages):
    assert page_numbers(text, 7) == pages


@pytest.mark.parametrize("text", ["0", "0-3", "4-2", "a", "1-2-3", "-", ",", "1.5", "1 2", "²"])
def test_what_is_no_page_range_is_said_so(text):
    with pytest.raises(BadOption, match="names no pages"):
        page_numbers(text, 7)


@pytest.mark.parametrize("text", ["8", "8-", "1,8-9"])
def test_pages_beyond_the_last_are_refused(text):
    with pytest.raises(BadOption, match="no page 8: the document has 7 pages"):
        page_numbers(text, 7)


@given(st.lists(st.integers(1, 30), min_size=1))
def test_single_pages_come_in_the_order_written_and_once(numbers):
    assert page_numbers(",".join(map(str, numbers)), 30) == list(dict.fromkeys(numbers))


def test_pages_are_rendered_one_by_one(tmp_path):
    path = write_pdf(tmp_path / "two.pdf", [(200, 100, RED), (100, 300, BLUE)])
    (first, red), (second, blue) = read_pages(path, "", Resolution(longest_side=600))
    assert (first, second) == (1, 2)
    assert red.shape == (3, 300, 600) and blue.shape == (3, 600, 200)
    assert red.dtype == torch.uint8 and red.movedim(0, -1).is_contiguous()
    assert red[:, 10, 10].tolist() == [255, 255, 255]
    assert red[:, 290, 300].tolist() == [255, 0, 0]
    assert blue[:, 590, 100].tolist() == [0, 0, 255]


def test_dpi_is_pixels_an_inch(tmp_path):
    path = write_pdf(tmp_path / "one.pdf", [(72, 144, RED)])
    ((_, page),) = read_pages(path, "1", Resolution(dpi=150))
    assert page.shape == (3, 300, 150)


@given(width=st.integers(20, 2000), height=st.integers(20, 2000), side=st.integers(16, 400))
def test_the_longest_side_is_met(tmp_path_factory, width, height, side):
    path = write_pdf(tmp_path_factory.getbasetemp() / "side.pdf", [(width, height, RED)])
    ((_, page),) = read_pages(path, "", Resolution(longest_side=side))
    assert max(page.shape[-2:]) == side


def test_a_rotated_page_is_upright(tmp_path):
    path = write_pdf(tmp_path / "turned.pdf", [(200, 100, RED)], rotate=90)
    with Document(path) as document:
        assert document.size(1) == (100, 200)
        page = document.picture(1, Resolution(longest_side=200))
    assert page.shape == (3, 200, 100)
    assert page[:, 100, 10].tolist() == [255, 0, 0], "what was below is at the left"


def test_an_open_file_is_left_and_taken_again(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(documents, "REOPENED_AFTER", 3)
    monkeypatch.setattr(
        Document, "_opened", lambda self, plain=Document._opened: opened.append(1) or plain(self)
    )
    path = write_pdf(tmp_path / "long.pdf", [(50, 50 + n, RED) for n in range(10)])
    heights = [page.shape[1] for _, page in read_pages(path, "", Resolution(dpi=72))]
    assert heights == [50 + n for n in range(10)]
    assert len(opened) == 4


def test_an_encrypted_file_needs_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("QVL_PDF_PASSWORD", raising=False)
    path = write_encrypted_pdf(tmp_path / "secret.pdf")
    with pytest.raises(BadDocument, match=r"secret\.pdf is encrypted.*QVL_PDF_PASSWORD holds its"):
        Document(path)
    monkeypatch.setenv("QVL_PDF_PASSWORD", "wrong")
    with pytest.raises(BadDocument, match="QVL_PDF_PASSWORD has another password"):
        Document(path)
    monkeypatch.setenv("QVL_PDF_PASSWORD", "sesame")
    with Document(path) as document:
        assert document.size(1) == (200, 100)


@pytest.mark.parametrize("content", [b"", b"%PDF-1.7\nhello", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_pdf_is_said_without_its_folder(tmp_path, content):
    path = tmp_path / "broken.pdf"
    path.write_bytes(content)
    with pytest.raises(BadDocument, match=r"^broken\.pdf cannot be read as a PDF"):
        Document(path)


def test_a_file_cut_short_is_read_as_far_as_it_goes_or_refused(tmp_path):
    path = write_pdf(tmp_path / "cut.pdf", [(200, 100, RED)] * 3)
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        try:
            pages = list(read_pages(path, "", Resolution(dpi=72)))
        except BadDocument as error:
            assert str(error).startswith("cut.pdf ")
        else:
            assert [number for number, _ in pages] == list(range(1, len(pages) + 1))


def test_a_document_without_pages_is_refused(tmp_path):
    with pytest.raises(BadDocument, match=r"empty\.pdf"):
        Document(write_pdf(tmp_path / "empty.pdf", []))


def test_no_such_file_and_a_folder(tmp_path):
    with pytest.raises(BadDocument, match=r"^none\.pdf cannot be read: there is no such file"):
        Document(tmp_path / "none.pdf")
    with pytest.raises(BadDocument, match="is a folder"):
        Document(tmp_path)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_what_can_be_no_path_is_no_file(tmp_path, name):
    with pytest.raises(BadDocument, match="cannot be read"):
        Document(tmp_path / f"{name}.pdf")
    assert not is_pdf(tmp_path / name)


def test_one_page_that_is_too_large_costs_only_itself(tmp_path):
    path = write_pdf(
        tmp_path / "plan.pdf", [(14400, 14400, RED), (100, 50, BLUE), (14400, 10, RED)]
    )
    (_, huge), (_, page), (_, strip) = read_pages(path, "", Resolution(dpi=300))
    assert isinstance(huge, BadImage)
    assert str(huge).startswith("Page 1 of plan.pdf would be 60000x60000 pixels")
    assert page.shape[-1] == 417
    assert isinstance(strip, BadImage) and "plan.pdf" in str(strip) and "200 times" in str(strip)


@pytest.mark.parametrize(
    "values",
    [{}, {"dpi": 0.5}, {"dpi": 9000}, {"longest_side": 5}, {"longest_side": 20000},
     {"dpi": 72, "longest_side": 100}, {"longest_side": -1}, {"dpi": float("nan")}],
)  # fmt: skip
def test_impossible_resolutions_are_refused(values):
    with pytest.raises(BadOption):
        Resolution(**values)


def test_is_pdf(tmp_path):
    path = write_pdf(tmp_path / "scan", [(10, 10, RED)])
    assert is_pdf(path) and is_pdf("missing.PDF")
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    assert not is_pdf(picture) and not is_pdf(tmp_path) and not is_pdf("missing.png")


def test_without_pypdfium2_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(Unavailable, match="pip install pypdfium2"):
        Document(write_pdf(tmp_path / "one.pdf", [(10, 10, RED)]))

"""PDF documents on the command line: a page is a picture, asked in bounded portions."""

from __future__ import annotations

import pytest
from pdfs import write_encrypted_pdf, write_pdf
from qwen_vl_suite.qwenvl.cli import portions
from qwen_vl_suite.qwenvl.media import documents

RED, BLUE = (1, 0, 0), (0, 0, 1)


@pytest.fixture
def pdf(tmp_path):
    return write_pdf(tmp_path / "pages.pdf", [(595, 842, RED), (300, 150, BLUE), (100, 100, RED)])


def by_size(request):
    height, width = request.images[0].shape[-2:]
    return f"{width}x{height}"


def test_a_line_a_page(run, model, pdf):
    backend = model(by_size)
    status, rows, err = run("ocr", pdf, "--pages", "1-2", "--json")
    assert (status, err) == (0, "")
    assert [(row["image"], row["page"], row["text"]) for row in rows] == [
        (str(pdf), 1, "911x1288"),
        (str(pdf), 2, "1288x644"),
    ]
    assert len(backend.batches) == 1


def test_pages_and_pictures_in_the_order_given(run, model, pdf, tmp_path):
    from PIL import Image

    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 30)).save(picture)
    model(by_size)
    status, rows, _ = run("describe", pdf, picture, pdf, "--pages", "3,1", "--dpi", "72", "--json")
    assert status == 0
    assert [(row.get("page"), row["text"]) for row in rows] == [
        (3, "100x100"), (1, "595x842"), (None, "40x30"), (3, "100x100"), (1, "595x842"),
    ]  # fmt: skip


def test_as_text_each_page_is_named(run, model, pdf):
    model("one", "two")
    _, out, _ = run("ocr", pdf, "--pages", "-2", "--longest-side", "100")
    assert out == f"{pdf}, page 1:\none\n\n{pdf}, page 2:\ntwo\n\n"


def test_a_document_that_cannot_be_read_costs_only_itself(run, model, pdf, tmp_path, monkeypatch):
    monkeypatch.delenv(documents.PASSWORD, raising=False)
    secret, short = write_encrypted_pdf(tmp_path / "secret.pdf"), tmp_path / "short.pdf"
    write_pdf(short, [(10, 10, RED)])
    model("read")
    status, rows, err = run("ocr", secret, short, pdf, "--pages", "2", "--json")
    assert status == 1
    assert "secret.pdf is encrypted" in rows[0]["error"]
    assert "no page 2: the document has 1 page." in rows[1]["error"]
    assert "page" not in rows[0] and rows[2]["page"] == 2 and rows[2]["text"] == "read"
    assert f"error: {secret}: secret.pdf is encrypted" in err


def test_a_page_that_cannot_be_rendered_costs_only_itself(run, model, tmp_path):
    plan = write_pdf(tmp_path / "plan.pdf", [(14400, 14400, RED), (100, 100, BLUE)])
    model("read")
    status, rows, _ = run("ocr", plan, "--dpi", "200", "--json")
    assert status == 1
    assert [row["page"] for row in rows] == [1, 2]
    assert "40000x40000" in rows[0]["error"] and rows[1]["text"] == "read"


@pytest.mark.parametrize("option", [("--pages", "1"), ("--dpi", "100"), ("--longest-side", "500")])
def test_options_about_pages_need_some(run, model, tmp_path, option):
    model("read")
    status, _, err = run("ocr", tmp_path / "none.png", *option)
    assert status == 2 and f"{option[0]} is about PDF documents" in err


def test_what_is_no_page_range_is_an_error(run, model, pdf):
    model("read")
    status, _, err = run("ocr", pdf, "--pages", "two")
    assert status == 2 and "'two' names no pages" in err


def test_pages_are_rendered_a_portion_ahead_at_most(run, model, tmp_path, monkeypatch):
    monkeypatch.setattr(portions, "MAX_IMAGES", 3)
    path = write_pdf(tmp_path / "long.pdf", [(50, 50, RED)] * 20)
    rendered, answered, ahead = [], [], []

    def picture(self, number, resolution, plain=documents.Document.picture):
        rendered.append(number)
        return plain(self, number, resolution)

    def before_answer(number):
        answered.append(number)
        ahead.append(len(rendered) - len(answered))

    monkeypatch.setattr(documents.Document, "picture", picture)
    model(by_size, before_answer=before_answer)
    status, rows, _ = run("ocr", path, "--json")
    assert (status, [row["page"] for row in rows]) == (0, list(range(1, 21)))
    assert max(ahead) <= 6, "the portion being answered, and the next"

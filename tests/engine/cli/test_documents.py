"""PDF documents on the command line: a page is a picture, asked in bounded portions."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from pdfs import write_encrypted_pdf, write_pdf
from qwen_vl_suite.qwenvl.backends.scripted import Reply
from qwen_vl_suite.qwenvl.cli import describing, portions
from qwen_vl_suite.qwenvl.cli.main import main
from qwen_vl_suite.qwenvl.errors import OutOfMemory
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


def test_one_question_about_all_pages(run, model, pdf, tmp_path):
    backend = model("three pages")
    status, (row,), err = run("describe", pdf, "--together", "--prompt", "How many?", "--json")
    assert (status, row["text"]) == (0, "three pages")
    assert row["images"] == [{"image": str(pdf), "page": page} for page in (1, 2, 3)]
    (request,) = backend.requests
    assert len(request.images) == 3 and request.prompt == "How many?"
    assert err.startswith("3 images, ") and err.rstrip().endswith(" tokens")
    assert (row["thinking"], row["finish_reason"], "error" in row) == ("", "stop", False)
    for how in ((), ("--json",)):
        status, rows, err = run("describe", pdf, tmp_path / "none.png", "--together", *how)
        assert status == 2 and "none.png" in err and len(backend.requests) == 1
    assert "none.png" in rows[0]["error"] and rows[0]["finish_reason"] == "error"


def test_one_question_without_an_answer_says_so(run, model, pdf):
    for reply, options, status, reason in (
        (OutOfMemory("no room"), (), 2, "error"),
        ("three", ("--max-pixels", "5"), 2, "error"),
        ("maybe", ("--choices", "yes, no"), 3, "stop"),
    ):
        model(reply)
        found, (row,), err = run("describe", pdf, "--together", "--json", *options)
        assert (found, row["finish_reason"]) == (status, reason)
        assert row["error"] in err


def test_one_question_about_all_says_that_the_answer_was_cut_or_was_not_waited_for(
    model, pdf, capsys
):
    model(Reply("Three pages, of", finish_reason="length"))
    assert main(["describe", str(pdf), "--together"]) == 0
    out, err = capsys.readouterr()
    assert out == "Three pages, of\n" and "note: The reply was cut" in err

    def interrupted(request):
        raise KeyboardInterrupt

    model(interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["describe", str(pdf), "--together"])
    assert "stopped after 0 of 1" in capsys.readouterr().err


def test_choices_are_what_is_answered(run, model, pdf):
    backend = model("Yes.")
    status, (row,), _ = run("describe", pdf, "--pages", "1", "--choices", "yes, no", "--json")
    assert (status, row["text"]) == (0, "yes")
    assert backend.requests[0].prompt.startswith("Which of these fits")


def test_more_pages_than_any_model_reads_are_refused_before_they_are_asked_about(
    run, model, pdf, monkeypatch
):
    monkeypatch.setattr(describing, "MOST_TOKENS", 1000)
    backend = model("?")
    status, _, err = run("describe", pdf, "--together")
    assert status == 2 and "--pages" in err and not backend.requests


def test_the_pages_that_fit_a_question_best(run, model, pdf):
    model("", scores=[[1, 0, 3, 0], [3, 0, 1, 0], [1, 0, 1, 0]])
    status, rows, _ = run("score", pdf, "--text", "How many?", "--top", "2", "--json")
    assert status == 0
    assert [(row["page"], row["score"], row["rank"]) for row in rows] == [(2, 0.75, 1), (3, 0.5, 2)]


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


def test_a_path_that_is_too_long_costs_only_itself(run, model, pdf, tmp_path):
    model("read")
    long = [tmp_path / f"{'a' * 300}{ending}" for ending in (".pdf", ".png", "")]
    status, rows, _ = run("ocr", *long, pdf, "--pages", "1", "--json", "--out", tmp_path / "new")
    assert status == 1 and rows[-1]["text"] == "read"
    assert all("cannot be read" in row["error"] for row in rows[:-1])


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


def test_a_resolution_of_nothing_is_refused_by_its_own_name(run, model, pdf):
    for option, words in (("--dpi", "dpi is 0"), ("--longest-side", "longest side of pages is 0")):
        status, _, err = run("ocr", pdf, option, "0")
        assert status == 2 and words in err


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


PAGE_ONE = (
    "# Report\n<!-- Image (0, 500, 1000, 1000) -->\n\n"
    "<table><tr><th>a</th><th>b</th></tr><tr><td colspan=2>1</td></tr></table>"
)


def test_a_document_with_its_figures_and_tables(run, model, pdf, tmp_path):
    from PIL import Image

    model(PAGE_ONE, "Page two", "")
    status, out, err = run("ocr", pdf, "--output", "markdown", "--out", tmp_path / "new", "--csv")
    assert (status, out) == (0, "")
    written = tmp_path / "new" / "pages.md"
    assert f"written: {written}" in err
    assert written.read_text() == (
        "<!-- Page 1 -->\n\n# Report\n![image](pages/page1-figure1.png)\n\n"
        "<table><tr><th>a</th><th>b</th></tr><tr><td colspan=2>1</td></tr></table>\n"
        "\n<!-- Page 2 -->\n\nPage two\n"
        "\n<!-- Page 3 -->\n\n\n"
    )
    with Image.open(tmp_path / "new" / "pages" / "page1-figure1.png") as figure:
        assert figure.size == (911, 644)
        assert figure.getpixel((400, 300)) == (255, 0, 0)
    table = (tmp_path / "new" / "pages" / "page1-table1.csv").read_text(encoding="utf-8-sig")
    assert table == "a,b\n1,1\n"


def test_tables_are_in_the_line_of_their_page(run, model, pdf):
    model(PAGE_ONE)
    _, rows, _ = run("ocr", pdf, "--output", "markdown", "--pages", "1", "--json")
    (table,) = rows[0]["tables"]
    assert table["rows"] == [["a", "b"], ["1", "1"]] and table["headers"] == 1
    assert table["source"].startswith("<table>")


def test_html_keeps_its_figures_too(run, model, pdf, tmp_path):
    model('<div class="image" data-bbox="0 0 500 500"><img alt="x"></div><p>Text</p>')
    run("ocr", pdf, "--pages", "1", "--output", "html", "--out", tmp_path)
    assert '<img src="pages/page1-figure1.png" alt="x">' in (tmp_path / "pages.html").read_text()
    assert (tmp_path / "pages" / "page1-figure1.png").is_file()


def test_pictures_of_one_name_are_documents_of_their_own(run, model, tmp_path):
    from PIL import Image

    paths = [tmp_path / folder / "scan.png" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        Image.new("RGB", (40, 30)).save(path)
    model("one", "two")
    status, rows, _ = run("ocr", *paths, "--out", tmp_path / "new", "--json")
    assert status == 0 and [row["text"] for row in rows] == ["one", "two"]
    found = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert found == {"scan.txt": "one\n", "scan-2.txt": "two\n"}


def test_a_page_without_an_answer_is_said_to_be_missing(run, model, tmp_path):
    plan = write_pdf(tmp_path / "plan.pdf", [(14400, 14400, RED), (100, 100, BLUE)])
    model("read")
    status, _, _ = run("ocr", plan, "--dpi", "200", "--out", tmp_path)
    assert status == 1
    first, second = (tmp_path / "plan.txt").read_text().split("\f")
    assert first.startswith("[No answer: Page 1 of plan.pdf would be 40000x40000")
    assert second == "read\n"


def test_a_searchable_pdf(run, model, pdf, tmp_path):
    import pypdfium2

    model('[{"bbox_2d": [100, 500, 900, 600], "text_content": "漢字 words"}]', "[]", "[]")
    status, out, _ = run("ocr", pdf, "--output", "pdf", "--out", tmp_path / "new")
    assert (status, out) == (0, "")
    with pypdfium2.PdfDocument(tmp_path / "new" / "pages.pdf") as found:
        assert [page.get_size() for page in found] == [(595, 842), (300, 150), (100, 100)]
        text = found[0].get_textpage()
        assert text.get_text_range() == "漢字 words"
        assert text.count_rects() == 1
        left, bottom, right, top = text.get_rect(0)
    expected = (59.5, 842 * 0.4, 595 * 0.9, 421)
    assert (left, bottom, right, top) == pytest.approx(expected, abs=1.5)
    assert documents.Document(tmp_path / "new" / "pages.pdf").picture(1, documents.Resolution(500))[
        :, 450, 100
    ].tolist() == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.parametrize("options", [("--output", "pdf"), ("--csv",)])
def test_files_need_a_folder(run, model, pdf, options):
    model("read")
    status, _, err = run("ocr", pdf, *options)
    assert status == 2 and "name a folder for them with --out" in err


def test_an_input_is_never_written_over(run, model, pdf):
    before = pdf.read_bytes()
    model("[]")
    status, _, err = run("ocr", pdf, "--output", "pdf", "--out", pdf.parent)
    assert status == 2 and "is one of the inputs" in err
    assert pdf.read_bytes() == before


def test_a_folder_that_cannot_be_written_to(run, model, pdf):
    model("read")
    status, _, err = run("ocr", pdf, "--out", pdf)
    assert status == 2 and "cannot be written to" in err


def test_a_full_disk_stops_with_what_is_whole(run, model, pdf, tmp_path, monkeypatch):
    from qwen_vl_suite.qwenvl.cli import writing

    def add(self, found, picture, result, plain=writing._TextPages.add):
        if found.page == 2:
            raise OSError(28, "No space left on device")
        plain(self, found, picture, result)

    monkeypatch.setattr(writing._TextPages, "add", add)
    model("one", "two", "three")
    status, _, err = run("ocr", pdf, "--out", tmp_path / "new")
    assert status == 1 and "No space left on device" in err
    assert (tmp_path / "new" / "pages.txt").read_text() == "one\n"


def test_a_disk_that_is_full_at_the_end_is_said(run, model, pdf, tmp_path, monkeypatch):
    from qwen_vl_suite.qwenvl.cli import writing

    def close(self, plain=writing._TextPages.close):
        plain(self)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing._TextPages, "close", close)
    model("one", "two", "three")
    status, _, err = run("ocr", pdf, "--out", tmp_path / "new")
    assert status == 1 and "pages.txt cannot be written to: No space left on device" in err


@pytest.mark.parametrize("output", ["markdown", "html"])
def test_links_to_figures_hold_for_any_name(run, model, tmp_path, output):
    name = "Müller's & [Söhne] (50%) #1.pdf"
    path = write_pdf(tmp_path / "x.pdf", [(100, 100, RED)]).rename(tmp_path / name)
    figure = '<div class="image" data-bbox="0 0 500 500"></div>'
    model(figure if output == "html" else "<!-- Image (0, 0, 500, 500) -->")
    status, _, _ = run("ocr", path, "--output", output, "--out", tmp_path / "new")
    assert status == 0
    (written,) = (found for found in (tmp_path / "new").iterdir() if found.is_file())
    (link,) = re.findall(r'src="([^"]*)"|\]\(([^()]*)\)', written.read_text(encoding="utf-8"))
    address = "".join(link)
    assert not set(address) & set(" '#&()[]")
    assert (written.parent / unquote(address)).is_file()


def test_a_document_named_twice_is_written_twice(run, model, tmp_path):
    path = write_pdf(tmp_path / "a.pdf", [(100, 100, RED), (100, 100, BLUE)])
    model("one", "two", "three", "four")
    run("ocr", path, path, "--out", tmp_path / "new")
    found = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert found == {"a.txt": "one\n\ftwo\n", "a-2.txt": "three\n\ffour\n"}


def test_a_file_in_the_place_of_the_folder_of_figures_is_refused(run, model, tmp_path):
    from PIL import Image

    (scan := tmp_path / "scan").mkdir()
    Image.new("RGB", (40, 30)).save(scan / "page", "PNG")
    backend = model("one")
    status, _, err = run("ocr", scan / "page", "--output", "markdown", "--out", scan)
    assert status == 2 and f"{scan / 'page'} is a file" in err and not backend.requests
    assert run("ocr", scan / "page", "--out", scan)[0] == 0, "plain text has no figures"
    paths = [write_pdf(tmp_path / name, [(9, 9, RED)]) for name in ("x.pdf", "x.md.pdf")]
    status, _, err = run("ocr", *paths, "--output", "markdown", "--out", tmp_path / "new")
    assert status == 2 and "x.md is a file" in err


def test_large_pages_are_read_in_tiles(run, model, tmp_path):
    large = write_pdf(tmp_path / "large.pdf", [(400, 700, RED)])
    line = '[{"bbox_2d": [100, %d, 500, %d], "text_content": "%s"}]'
    # Tiles of 500 px, 75 in common: at 0 and 200 px; the second line is seen by both.
    backend = model(line % (100, 140, "first"), line % (600, 640, "second"))
    status, rows, _ = run("ocr", large, "--dpi", "72", "--tiles", "500", "--json")
    assert status == 0 and len(rows) == 1
    assert rows[0]["text"] == "first\nsecond"
    assert [round(box["y"]) for box in rows[0]["boxes"]] == [50, 200 + 300]
    assert [tuple(request.images[0].shape) for request in backend.requests] == [(3, 500, 400)] * 2


def test_a_tile_that_cannot_be_read_costs_only_itself(run, model, tmp_path):
    large = write_pdf(tmp_path / "large.pdf", [(400, 700, RED)])
    model("What a day.", '[{"bbox_2d": [100, 600, 500, 640], "text_content": "second"}]')
    status, (row,), err = run("ocr", large, "--dpi", "72", "--tiles", "500", "--json")
    assert (status, row["text"]) == (0, "second")
    assert "1 of 2 tiles of this page are missing" in err
    model("What a day.", "And a night.")
    status, (row,), _ = run("ocr", large, "--dpi", "72", "--tiles", "500", "--json")
    assert status == 3 and row["error"]


def test_documents_are_not_read_in_tiles(run, model, pdf):
    model("x")
    status, _, err = run("ocr", pdf, "--tiles", "auto", "--output", "markdown")
    assert status == 2 and "line by line, which markdown has not" in err

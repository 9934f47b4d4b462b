"""Load PDF: pages of a file in ComfyUI's input folder as a list of pictures, and of no other."""

from __future__ import annotations

import os

import folder_paths
import pytest
import torch
from pdfs import write_pdf
from qwen_vl_suite.nodes import host, load_pdf
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption

RED, BLUE = (1, 0, 0), (0, 0, 1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """ComfyUI's input folder."""
    found = tmp_path / "input"
    found.mkdir()
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(found))
    return found


def dpi(value):
    return {"size": "dpi", "dpi": value}


def test_the_example_needs_no_file_of_the_user(run_node):
    images, numbers, count, name = run_node("QVL_LoadPDF")
    assert (numbers, count, name) == ([1, 2, 3], 3, "example")
    assert [tuple(image.shape[-1:]) for image in images] == [(3,)] * 3
    assert all(max(image.shape) == 1288 and image.dtype == torch.float32 for image in images)


def test_pages_of_different_sizes_in_the_order_asked_for(folder, run_node):
    write_pdf(folder / "Report.PDF", [(100, 50, RED), (60, 80, BLUE), (30, 30, RED)])
    images, numbers, count, name = run_node(
        "QVL_LoadPDF", file="Report.PDF", pages="2,1", size=dpi(72)
    )
    assert [tuple(image.shape) for image in images] == [(1, 80, 60, 3), (1, 50, 100, 3)]
    assert (numbers, count, name) == ([2, 1], 3, "Report")
    assert images[0][0, 70, 30].tolist() == [0, 0, 1]
    assert images[0][0, 5, 5].tolist() == [1, 1, 1]


def test_files_of_the_input_folder_are_offered(folder, nodes):
    for name in ("b.pdf", "A.PDF", "picture.png"):
        (folder / name).touch()
    (folder / "folder.pdf").mkdir()
    (folder / "inside.pdf").symlink_to(folder / "b.pdf")
    (folder / "leads out.pdf").symlink_to(write_pdf(folder.parent / "secret.pdf", [(9, 9, RED)]))
    (folder / "dangling.pdf").symlink_to(folder / "gone.pdf")
    (folder / "circle.pdf").symlink_to(folder / "circle.pdf")
    (file,) = (item for item in nodes["QVL_LoadPDF"].define_schema().inputs if item.id == "file")
    assert file.options == ["example (bundled)", "A.PDF", "b.pdf", "inside.pdf"]


@pytest.mark.parametrize(
    "name", ["../secret.pdf", "sub/../../secret.pdf", "/etc/passwd", "link.pdf", "", ".", "a\0.pdf"]
)
def test_nothing_outside_the_input_folder_is_read(folder, run_node, name):
    secret = write_pdf(folder.parent / "secret.pdf", [(10, 10, RED)])
    (folder / "sub").mkdir()
    (folder / "link.pdf").symlink_to(secret)
    with pytest.raises(BadOption, match="input folder"):
        run_node("QVL_LoadPDF", file=name)


def test_a_file_in_a_folder_of_the_input_folder(folder, run_node):
    (folder / "sub").mkdir()
    write_pdf(folder / "sub" / "one.pdf", [(10, 10, RED)])
    assert run_node("QVL_LoadPDF", file="sub/one.pdf")[2:] == (1, "one")


def test_a_changed_file_has_another_fingerprint(folder, nodes):
    fingerprint = nodes["QVL_LoadPDF"].fingerprint_inputs
    path = write_pdf(folder / "one.pdf", [(10, 10, RED)])
    before = fingerprint(file="one.pdf", pages="")
    assert before == fingerprint(file="one.pdf", pages="2")
    os.utime(path, ns=(1, 1))
    assert fingerprint(file="one.pdf") not in (before, "")
    assert fingerprint(file="none.pdf") == fingerprint(file="../x.pdf") == ""


def test_a_broken_page_stops_or_is_left_out(folder, run_node):
    write_pdf(folder / "plan.pdf", [(20, 20, RED), (14400, 14400, RED), (30, 30, BLUE)])
    given = {"file": "plan.pdf", "size": dpi(200)}
    with pytest.raises(BadImage, match=r"Page 2 of plan\.pdf would be 40000x40000"):
        run_node("QVL_LoadPDF", **given)
    images, numbers, count, _ = run_node("QVL_LoadPDF", **given, broken_pages="leave out")
    assert (len(images), numbers, count) == (2, [1, 3], 3)
    with pytest.raises(BadImage, match="Page 2"):
        run_node("QVL_LoadPDF", **given, pages="2", broken_pages="leave out")


def test_more_pages_than_memory_takes_are_refused_before_any_is_rendered(monkeypatch, run_node):
    monkeypatch.setattr(load_pdf.ram, "available", lambda: 40_000_000)
    monkeypatch.setattr(load_pdf.Document, "picture", lambda *_: pytest.fail("rendered"))
    with pytest.raises(BadOption, match=r"^3 pages .* Choose fewer pages"):
        run_node("QVL_LoadPDF")


def test_the_stop_button_is_heeded_between_pages(monkeypatch, run_node):
    class Stopped(BaseException):
        pass

    checks = []

    def check():
        checks.append(1)
        if len(checks) == 2:
            raise Stopped

    monkeypatch.setattr(host, "check_interrupt", check)
    with pytest.raises(Stopped):
        run_node("QVL_LoadPDF")
    assert len(checks) == 2


def test_pages_are_read_in_one_batch_with_their_tables(run_node, scripted):
    replies = ["<table><tr><td colspan=2>a</td></tr><tr><td>1</td><td>x|y</td></tr></table>", "b"]
    model, backend = scripted(*replies)
    images, *_ = run_node("QVL_LoadPDF", pages="1-2")
    given = {"model": model, "output": "markdown", "tables_as": "csv"}
    text, _, _, tables = run_node("QVL_OCR", **given, lists={"images": images})
    assert text == replies and len(backend.batches) == 1
    assert tables == ["a,a\n1,x|y\n", ""]


def test_a_large_page_is_read_in_tiles(run_node, scripted):
    line = '[{"bbox_2d": [100, 100, 500, 140], "text_content": "read"}]'
    model, backend = scripted(line, "[]", "[]", "[]", "[]", "[]", family="qwen3_vl")
    size = {"size": "longest side", "longest_side": 2600}
    images, *_ = run_node("QVL_LoadPDF", pages="1", size=size)
    given = {"model": model, "output": "plain", "tiles": "auto"}
    text, boxes, _, _ = run_node("QVL_OCR", **given, lists={"images": images})
    assert text == ["read"] and len(backend.requests) == 6
    assert [tuple(request.images[0].shape) for request in backend.requests] == [(3, 1288, 1288)] * 6
    assert boxes[0][0][0]["width"] == pytest.approx(0.4 * 1288, abs=2)
    with pytest.raises(BadOption, match="which html has not"):
        run_node("QVL_OCR", **{**given, "output": "html"}, lists={"images": images})

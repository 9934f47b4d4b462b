"""Pages read in tiles: each line once, whole, in its place on the page, whatever tiles cut."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption, OutOfMemory
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.query import Query
from qwen_vl_suite.qwenvl.reading import tile_reading
from qwen_vl_suite.qwenvl.reading.merging import Line, _similarity, join_texts
from qwen_vl_suite.qwenvl.reading.order import reading_order
from qwen_vl_suite.qwenvl.reading.tiling import _texts
from qwen_vl_suite.qwenvl.tasks.ocr import ocr
from qwen_vl_suite.qwenvl.types import Box, ReplyContext

LINES = ocr("lines")


def page(size):
    """A picture whose pixels say where they are, 12 bits each way: tells ``reader`` which part of
    the page it is shown."""
    height, width = size
    xs, ys = torch.arange(width)[None, :], torch.arange(height)[:, None]
    planes = [(xs >> 4) + 0 * ys, ((xs & 15) << 4) + (ys >> 8), (ys & 255) + 0 * xs]
    return torch.stack(planes).to(torch.uint8)


def place(picture):
    """x1 and y1 of a tile on its page."""
    red, green, blue = (int(value) for value in picture[:, 0, 0])
    return (red << 4) + (green >> 4), ((green & 15) << 8) + blue


def reader(lines, misread=False):
    """A model that reads, of each tile, the letters that lie in it by at least a half; with
    ``misread``, letters that a side cuts and lines that lose half their height are read wrongly."""

    def read(request):
        return read_part(request.images[0])

    def read_part(picture):
        height, width = picture.shape[-2:]
        left, top = place(picture)
        found = []
        for line in lines:
            y1, y2 = max(line.y1 - top, 0), min(line.y2 - top, height)
            if y2 - y1 < 4:
                continue
            pitch = (line.x2 - line.x1) / len(line.label)
            starts = [line.x1 + at * pitch - left for at in range(len(line.label))]
            seen = [at for at, x in enumerate(starts) if 0 <= x + pitch / 2 < width]
            if not seen:
                continue
            letters = list(line.label[seen[0] : seen[-1] + 1])
            if misread and starts[seen[0]] < 0:
                letters[0] = "?"
            if misread and starts[seen[-1]] + pitch > width:
                letters[-1] = "?"
            if misread and y2 - y1 < 0.7 * (line.y2 - line.y1):
                letters = ["~"] * len(letters)
            x1, x2 = max(starts[seen[0]], 0), min(starts[seen[-1]] + pitch, width)
            box = [x1 / width, y1 / height, x2 / width, y2 / height]
            found.append(
                {"bbox_2d": [round(1000 * v) for v in box], "text_content": "".join(letters)}
            )
        return json.dumps(found)

    read.part = read_part
    return read


def quickly_read(size, lines, tile):
    """As ``read`` of what tiles misread, without a backend."""
    reading, answers = tile_reading(tile, "lines", lambda: LINES), reader(lines, misread=True)
    steps = reading.steps(None, Query(LINES, page(size)))
    replies = []
    for query in next(steps):
        shown = tuple(query.picture.shape[-2:])
        context = ReplyContext(FAMILIES["qwen3_vl"], shown, shown)
        replies.append(LINES.parse(answers.part(query.picture), context))
    with pytest.raises(StopIteration) as end:
        steps.send(replies)
    return end.value.value


def read(size, lines, tiles, misread=True, output="lines", **fields):
    backend = ScriptedBackend(reader(lines, misread), family="qwen3_vl")
    reading = tile_reading(tiles, output, lambda: LINES)
    query = Query(ocr(output), page(size), method=reading.steps, **fields)
    (result,) = run.answer_all(backend, [query])
    return result, backend


WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "away"),
    *("from", "12", "bears", "at", "once"),
)


def paragraph(left, right, top, count, height=30, step=50, start=0):
    """Different lines of letters about half as wide as high, justified."""
    lines = []
    for number in range(start, start + count):
        text, at = f"{number}", 5 * number
        while 0.5 * height * len(text) < right - left:
            text, at = f"{text} {WORDS[at % len(WORDS)]}", at + 1 + number % 3
        y1 = top + step * (number - start)
        lines.append(Box(left, y1, right, y1 + height, text))
    return lines


def test_every_line_of_a_large_page_is_read_once():
    lines = paragraph(100, 1900, 80, 50)
    result, backend = read((2700, 2000), lines, 800)
    assert len(backend.requests) == 12 and len(backend.batches) == 1
    assert result.text.split("\n") == [line.label for line in lines]
    for box, line in zip(result.boxes, lines, strict=True):
        found, wanted = ((b.x1, b.y1, b.x2, b.y2) for b in (box, line))
        assert found == pytest.approx(wanted, abs=3)
    assert [entry["text"] for entry in result.data] == [line.label for line in lines]


def test_two_columns_and_what_spans_them():
    title = Box(200, 40, 1800, 100, "A title over both columns of the page")
    left, right = paragraph(100, 950, 150, 20), paragraph(1050, 1900, 150, 20, start=40)
    foot = Box(100, 1250, 1900, 1280, "A note at the foot of both columns, in one line")
    lines = [title, *left, *right, foot]
    result, _ = read((1400, 2000), lines, 700)
    assert result.text.split("\n") == [line.label for line in lines]


def test_a_page_that_fits_is_asked_whole():
    lines = paragraph(10, 700, 10, 5)
    result, backend = read((600, 750), lines, "auto")
    assert len(backend.requests) == 1
    assert result.text.split("\n") == [line.label for line in lines]


def test_plain_words_come_from_lines():
    lines = paragraph(100, 1900, 80, 10)
    result, backend = read((1000, 2000), lines, 900, output="plain")
    assert {request.prompt for request in backend.requests} == {LINES.prompt}
    assert result.text.split("\n") == [line.label for line in lines]


@settings(max_examples=40)
@given(st.integers(600, 1000), st.integers(0, 49), st.integers(20, 30), st.integers(600, 1900))
def test_no_line_is_doubled_or_lost_wherever_tiles_cut(tile, top, height, right):
    lines = paragraph(30, right, 20 + top, 18, height=height)
    result = quickly_read((1000, 2000), lines, tile)
    assert result.text.split("\n") == [line.label for line in lines]


def test_vertical_lines_are_joined_downwards_and_read_from_the_right():
    texts = ["縦書きの文章は上から下へ読み進めます", "行は右から左へと続いていくものです"]
    columns = [Box(900 - 200 * n, 50, 960 - 200 * n, 1130, text) for n, text in enumerate(texts)]

    def vertical(request):
        picture = request.images[0]
        height, width = picture.shape[-2:]
        left, top = place(picture)
        found = []
        for line in columns:
            if not (left <= line.x1 and line.x2 <= left + width):
                continue
            pitch = (line.y2 - line.y1) / len(line.label)
            middles = [line.y1 + (at + 0.5) * pitch - top for at in range(len(line.label))]
            seen = [at for at, y in enumerate(middles) if 0 <= y < height]
            if seen:
                y1 = max(line.y1 + seen[0] * pitch - top, 0)
                y2 = min(line.y1 + (seen[-1] + 1) * pitch - top, height)
                box = [(line.x1 - left) / width, y1 / height, (line.x2 - left) / width, y2 / height]
                words = line.label[seen[0] : seen[-1] + 1]
                found.append({"bbox_2d": [round(1000 * v) for v in box], "text_content": words})
        return json.dumps(found)

    backend = ScriptedBackend(vertical, family="qwen3_vl")
    query = Query(LINES, page((1400, 1000)), method=tile_reading(640, "lines", lambda: LINES).steps)
    (result,) = run.answer_all(backend, [query])
    assert result.text.split("\n") == texts
    assert [box.y2 - box.y1 for box in result.boxes] == pytest.approx([1080, 1080], abs=4)


def test_a_tile_that_fails_is_said_and_the_others_are_kept():
    lines = paragraph(100, 900, 80, 40)
    answers = reader(lines)

    def some(request):
        return OutOfMemory("full") if place(request.images[0])[1] == 0 else answers(request)

    backend = ScriptedBackend(some, family="qwen3_vl")
    reading = tile_reading(1200, "lines", lambda: LINES)
    query = Query(LINES, page((2160, 1000)), method=reading.steps, keep_unreadable=True)
    (result,) = run.answer_all(backend, [query])
    assert lines[-1].label in result.text and lines[0].label not in result.text.split("\n")
    assert "1 of 2 tiles of this page are missing" in result.notes[0]
    with pytest.raises(OutOfMemory):
        run.answer_all(backend, [Query(LINES, page((2160, 1000)), method=reading.steps)])


def test_a_line_without_a_place_keeps_its_words():
    def some(request):
        number = sum(place(request.images[0]))
        line = {"bbox_2d": [100, 400, 900, 430], "text_content": f"line {number}"}
        bare = {"text_content": f"bare {number}"}
        return json.dumps([bare, line] if number == 0 else [line])

    query = Query(
        LINES, page((2160, 1000)), method=tile_reading(1200, "lines", lambda: LINES).steps
    )
    (result,) = run.answer_all(ScriptedBackend(some, family="qwen3_vl"), [query])
    assert result.text.split("\n") == ["line 0", "bare 0", "line 960"]
    assert [box.label for box in result.boxes] == ["line 0", "line 960"]
    assert "Lines that came without a place: 1." in result.notes[-1]


def test_lines_without_a_place_stand_behind_the_others_of_their_tile():
    def seen(text, *tiles):
        return Line(Box(0, 0, 9, 9, text), frozenset(tiles))

    lines = [seen("a", 0), seen("b", 1), seen("c", 0, 1), seen("d", 3)]
    assert _texts(lines, [["0"], [], ["2"], ["3"]]) == ["a", "b", "c", "0", "2", "d", "3"]
    assert _texts([], [["0"], ["1"]]) == ["0", "1"] and _texts(lines[:1], [[]]) == ["a"]


def test_texts_of_long_lines_are_compared_at_their_ends():
    long = " ".join(str(number * 7919 % 1000) for number in range(300))
    assert _similarity(long, long[:700]) == _similarity(long, long[500:]) == 1
    assert _similarity(long, "x" * 900) == 0
    assert _similarity("." * 100_000, "." * 100_000) == 1  # not compared all with all


def test_the_score_of_a_line_in_parts_is_that_of_its_worse_part():
    line = '[{"bbox_2d": [%d, 400, %d, 430], "text_content": "%s"}]'
    replies = [
        Reply(line % (100, 1000, "The quick bro"), logprobs=-0.1),
        Reply(line % (0, 900, "quick brown fox"), logprobs=-0.9),
    ]
    lines = ocr("lines", scores=True)
    query = Query(lines, page((500, 900)), method=tile_reading(500, "lines", lambda: lines).steps)
    (result,) = run.answer_all(ScriptedBackend(replies, family="qwen3_vl"), [query])
    (box,) = result.boxes
    assert result.data[0]["score"] == round(box.score, 4) == pytest.approx(0.4066, abs=1e-3)


def test_nothing_found_is_nothing():
    result, _ = read((1000, 2000), [], 900)
    assert (result.text, result.boxes, result.data, result.error) == ("", (), [], "")


@pytest.mark.parametrize("choice", ["100", "-1", "all", 10000, "1.5", "１２８８"])
def test_what_is_no_choice_of_tiles_is_refused(choice):
    with pytest.raises(BadOption, match="use off, auto, or a tile's side"):
        tile_reading(choice, "lines", lambda: LINES)


def test_documents_are_not_put_together_from_tiles():
    assert tile_reading("off", "markdown", lambda: LINES) is None
    with pytest.raises(BadOption, match="line by line, which markdown has not"):
        tile_reading("auto", "markdown", lambda: LINES)


@pytest.mark.parametrize(
    ("first", "second", "shared", "whole"),
    [
        ("The quick bro", "ck brown fox", 0.5, "The quick brown fox"),
        ("The quick bro?", "?ck brown fox", 0.5, "The quick brown fox"),
        ("漢字かな交", "な交じり文", 0.4, "漢字かな交じり文"),
        ("Total 12", "12 pieces", 0.2, "Total 12 pieces"),
        ("left", "right", 0.0, "left right"),
    ],
)
def test_texts_are_joined_where_they_agree(first, second, shared, whole):
    assert join_texts(first, second, shared) == whole


def test_very_long_lines_are_joined_where_they_agree_around_the_middle():
    whole = " ".join(str(number * 7919 % 1000) for number in range(300))
    first, second = whole[:899] + "?", "?" + whole[401:]
    for counted in (480, 500, 520):  # letters in common, by the place
        assert join_texts(first, second, counted / len(second)) == whole
    dots = "." * 100_000  # not compared all with all
    assert join_texts(dots, dots, 0.9) == "." * 110_000


def test_reading_order_of_nothing_and_of_one():
    assert reading_order([]) == []
    assert reading_order([Box(0, 0, 1, 1)]) == [0]

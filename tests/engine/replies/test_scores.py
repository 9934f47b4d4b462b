"""Scores of what replies mark: traced to the characters of their own numbers and words."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend, tokenize
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.replies import read_items
from qwen_vl_suite.qwenvl.replies.scores import scores
from qwen_vl_suite.qwenvl.replies.trace import Traced, trace
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.tasks.ocr import ocr
from qwen_vl_suite.qwenvl.types import Sampling, Token

PICTURE = torch.zeros(3, 100, 100, dtype=torch.uint8)

# A form of reply: what is around all items, and an item, whose own parts are in «».
FORMS = {
    "json": ("```json\n[{}]\n```", ",\n", '{"bbox_2d": [«1», «2», «3», «4»], "label": "«l»"}'),
    "label first": ("Here: [{}]", ", ", '{"label": "«l»", "bbox_2d": [«1»,«2»,«3»,«4»]}'),
    "members": ("[{}]", ",", '{"name":"«l»","x1":«1»,"y1":«2»,"x2":«3»,"y2":«4»}'),
    "labels as keys": ("[{}]", ", ", '{"«l»": [«1», «2», «3», «4»]}'),
    "tags": ("{}", "", "<ref>«l»</ref><box>(«1»,«2»),(«3»,«4»)</box>"),
    "prose": ("{}", "\n", "- «l»: [«1», «2», «3», «4»]"),
    "cut": ("[{}, {{\"bbox_2d\": [1", ", ", '{"bbox_2d": [«1», «2», «3», «4»], "label": "«l»"}'),
}  # fmt: skip
LABELS = st.lists(
    st.sampled_from(["cat", "dog", "red", "car", "猫", "é"]),
    min_size=1,
    max_size=3,
).map(" ".join)
ITEMS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(1, 500), st.integers(1, 500))
    .map(lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3]))
    .flatmap(lambda box: st.tuples(st.just(box), LABELS)),
    min_size=1,
    max_size=6,
    unique=True,
)


Own = tuple[set[int], set[int]]
"""Positions of the characters of an item's numbers, and of those of its label."""


def written(form: str, items: list[tuple[tuple[int, ...], str]]) -> tuple[str, list[Own]]:
    """A reply of ``items``, and what is own of each."""
    around, between, item = FORMS[form]
    text, own = around.format("\0").partition("\0")[0], []
    for number, (box, label) in enumerate(items):
        text += between if number else ""
        positions: Own = set(), set()
        for index, part in enumerate(item.replace("«", "»").split("»")):
            given = {"l": label, **{str(n): str(v) for n, v in enumerate(box, 1)}}
            if index % 2:
                mine, part = positions[part == "l"], given[part]
                mine |= {len(text) + at for at, char in enumerate(part) if char != " "}
            text += part
        own.append(positions)
    return text + around.format("\0").partition("\0")[2], own


def cut_up(text: str, edges: list[int], draw: Any) -> list[Token]:
    """``text`` in tokens of random lengths and log-probabilities."""
    places = sorted({0, len(text), *(edge % len(text) for edge in edges)})
    return [Token(0, a, b, -draw.random() * 5) for a, b in pairwise(places)]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(FORMS)),
    ITEMS,
    st.lists(st.integers(0, 10**6), min_size=5, max_size=150),
    st.randoms(use_true_random=False),
)
def test_a_score_is_of_the_tokens_of_its_own_numbers_and_label(
    form: str, items: list[Any], edges: list[int], draw: Any
) -> None:
    text, own = written(form, items)
    tokens = cut_up(text, edges, draw)
    read = [(item.box or (), item.label) for item in read_items(text)]
    assert read == items
    expected = []
    for parts in own:
        hits = [[t.logprob for t in tokens if part & set(range(t.start, t.end))] for part in parts]
        numbers, label = (sum(hit) / len(hit) for hit in hits)
        expected.append(math.exp((numbers + label) / 2))
    assert scores(text, read, tokens) == pytest.approx(expected)


def test_where_and_what_count_alike_however_many_tokens_they_have() -> None:
    text = '[{"bbox_2d": [123, 234, 345, 456], "label": "cat"}]'
    certainty = {"cat": 0.25, "2": 0.5, "bbox": 0.01}
    pieces, at, tokens = tokenize(text), 0, []
    for piece in pieces:
        tokens.append(Token(0, at, at + len(piece), math.log(certainty.get(piece, 1.0))))
        at += len(piece)
    numbers = 0.5 ** (2 / 12)  # two of twelve digits are twos; that of the key is no number
    item = ((123, 234, 345, 456), "cat")
    assert scores(text, [item], tokens) == pytest.approx([math.sqrt(numbers * 0.25)])
    unnamed = text.replace(', "label": "cat"', "")
    kept = [token for token in tokens if token.end < len(unnamed)]
    assert scores(unnamed, [((123, 234, 345, 456), "")], kept) == pytest.approx([numbers])


def test_of_what_is_said_twice_the_first_counts_and_a_thought_does_not() -> None:
    one = '{"bbox_2d": [1, 2, 3, 4], "label": "cat"}'
    (first,) = trace(f"{one} {one}", [((1, 2, 3, 4), "cat")])
    assert first and first.numbers[0][0] < len(one)
    thought = "cat [1, 2, 3, 4]?</think>"
    (last,) = trace(thought + one, [((1, 2, 3, 4), "cat")])
    assert last and last.numbers[0][0] > len(thought)


def test_a_label_is_told_from_a_key_that_reads_the_same() -> None:
    text = '[{"label": "label", "bbox_2d": [2, 2, 2, 2]}]'
    (found,) = trace(text, [((2, 2, 2, 2), "label")])
    assert found == Traced(((32, 33), (35, 36), (38, 39), (41, 42)), ((12, 17),))


def test_an_item_that_is_not_in_the_text_has_no_score() -> None:
    text = '[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}]'
    tokens = [Token(0, 0, len(text), -1.0)]
    items = [((1, 2, 3, 5), "cat"), ((1, 2, 3, 4), "dog"), ((), "cat")]
    assert scores(text, items, tokens) == [None, None, None]
    assert scores(text, [((1, 2, 3, 4), "cat")], [replace(tokens[0], logprob=None)]) == [None]


TWO = (
    '[{"bbox_2d": [0, 0, 100, 100], "label": "cat"}, {"bbox_2d": [5, 5, 500, 500], "label": "cat"}]'
)


def sure_of(text: str, *certainties: float) -> Reply:
    """``text``; the letters and digits of each object have one of ``certainties``, all else 1."""
    logprobs, number, inside = [], -1, False
    for token in tokenize(text):
        number += "{" in token
        inside = "{" in token or (inside and "}" not in token)
        own = inside and token.strip().isalnum()
        logprobs.append(math.log(certainties[number]) if own else 0.0)
    return Reply(text, logprobs=logprobs)


def test_a_threshold_leaves_out_what_the_model_was_unsure_of() -> None:
    backend = ScriptedBackend(sure_of(TWO, 0.25, 0.75))
    (plain,) = run.answer(backend, ground("cat"), [PICTURE])
    assert [box.score for box in plain.boxes] == [None, None]
    (both,) = run.answer(backend, ground("cat", scores=True), [PICTURE])
    assert both.boxes[0].score == pytest.approx(0.25) and both.tokens == ()
    assert json.loads(both.text)[1]["score"] == both.data[1]["score"] == 0.75
    (kept,) = run.answer(backend, ground("cat", min_score=0.5, max_count=1), [PICTURE])
    assert kept.boxes == both.boxes[1:] and kept.data == both.data[1:] and not kept.notes
    (none,) = run.answer(backend, ground("cat", "points", min_score=0.9), [PICTURE])
    assert none.points == () and none.text == "[]"
    assert [request.logprobs for request in backend.requests] == [False, True, True, True]


def test_points_and_thinking_models_have_scores() -> None:
    reply = replace(sure_of(TWO, 0.25, 0.75), thinking="a cat at [0, 0, 100, 100]")
    backend = ScriptedBackend(reply, thinking="always")
    (found,) = run.answer(backend, ground("cat", "points", scores=True), [PICTURE])
    assert [point.score for point in found.points] == pytest.approx([0.25, 0.75])


def test_without_log_probabilities_all_is_kept_and_said() -> None:
    (found,) = run.answer(ScriptedBackend(TWO), ground("cat", min_score=0.5), [PICTURE])
    assert len(found.boxes) == 2 and "2 of 2 have no score" in found.notes[0]


def test_lines_and_blocks_of_ocr_have_scores() -> None:
    lines = TWO.replace('"label": "cat"', '"text_content": "price: 5"', 1)
    backend = ScriptedBackend(sure_of(lines, 0.25, 0.75))
    (found,) = run.answer(backend, ocr("lines", scores=True), [PICTURE])
    assert 0.25 < found.boxes[0].score < 0.35 and found.data[1]["score"] == 0.75
    (found,) = run.answer(backend, ocr("lines", min_score=0.5), [PICTURE])
    assert found.text == "cat" and len(found.boxes) == len(found.data) == 1
    first, second = '<p data-bbox="0 0 9 9">one <b>two</b></p>', '<p data-bbox="5 5 9 9">three</p>'
    page = f"```html\n{first}{second}\n```"
    sure = ["three", "5", "9"]
    logprobs = [0.0 if token.strip() in sure else -2.0 for token in tokenize(page)]
    (found,) = run.answer(
        ScriptedBackend(Reply(page, logprobs=logprobs)), ocr("html", min_score=0.5), [PICTURE]
    )
    assert [(box.label, box.score) for box in found.boxes] == [("three", 1.0)]
    assert "one" in found.text
    sketch = "A\n<!-- Image (10, 20, 300, 400) -->"
    marked = Reply(sketch, logprobs=-1.0)
    (found,) = run.answer(ScriptedBackend(marked), ocr("markdown", scores=True), [PICTURE])
    assert found.boxes[0].score == pytest.approx(math.exp(-1))


def test_thresholds_that_cannot_be_are_refused() -> None:
    with pytest.raises(BadOption, match=r"min_score is 1\.5"):
        ground("cat", min_score=1.5)
    with pytest.raises(BadOption, match="Plain text has no boxes"):
        ocr("plain", min_score=0.5)


def test_the_bundled_model_is_as_sure_in_a_batch_as_alone() -> None:
    from qwen_vl_suite.qwenvl.checkpoints import library
    from qwen_vl_suite.qwenvl.doctor import scenes
    from qwen_vl_suite.qwenvl.doctor.questions import pixels
    from qwen_vl_suite.qwenvl.model_cache import CACHE
    from qwen_vl_suite.qwenvl.types import LocalSpec

    drawn = [scenes.draw(f"scores {number}", "shapes") for number in range(3)]
    pictures = [pixels(scene) for scene in drawn]
    task = ground(drawn[0].shapes[0].name, scores=True)
    queries = [run.Query(task, picture, sampling=Sampling(200)) for picture in pictures]
    found = {}
    for optimize in ("auto", "off"):
        spec = LocalSpec(str(library.BUNDLED), precision="fp32", device="cpu", optimize=optimize)
        with CACHE.lease(spec) as backend:
            together = run.answer_all(backend, queries)
            (alone,) = run.answer_all(backend, queries[:1])
        found[optimize] = [box.score for result in (*together, alone) for box in result.boxes]
    assert found["auto"][0] == pytest.approx(found["auto"][-1], abs=1e-3)
    assert found["auto"] == pytest.approx(found["off"], abs=1e-3)
    assert all(0 < score <= 1 for score in found["auto"])

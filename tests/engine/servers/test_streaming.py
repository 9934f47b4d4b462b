"""Streams to responses: however the bytes come, whatever they hold."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import ServerError
from qwen_vl_suite.qwenvl.inference.repetition import text_loop_start
from qwen_vl_suite.qwenvl.servers.faults import Fault
from qwen_vl_suite.qwenvl.servers.logprobs import UNKNOWN_ID, place_tokens
from qwen_vl_suite.qwenvl.servers.scoring import candidate_scores
from qwen_vl_suite.qwenvl.servers.streaming import Reply
from qwen_vl_suite.qwenvl.types import Usage


def chunk(delta: dict | None = None, finish: str | None = None, **more) -> dict:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **more}


def reply(*chunks: dict, thinks: bool = False) -> tuple[Reply, str]:
    made = Reply(thinks, False, text_loop_start)
    return made, "".join(made.add(one) for one in chunks)


@settings(max_examples=40)
@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.integers(0, 40), max_size=6))
def test_how_the_text_is_cut_changes_nothing(thought: str, text: str, cuts: list[int]) -> None:
    def pieces(whole: str) -> list[str]:
        edges = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
        return [whole[a:b] for a, b in pairwise(edges)]

    def answered(thoughts: list[str], texts: list[str]):
        made, shown = reply(
            *(chunk({"reasoning": piece}) for piece in thoughts),
            *(chunk({"content": piece}) for piece in texts),
            chunk(finish="stop"),
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
        )
        return made.response([(28, 28)], 1), shown

    assert answered(pieces(thought), pieces(text)) == answered([thought], [text])
    assert answered([thought], [text])[0].usage == Usage(3, 1, 2)


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk({"content": "half"})],
        [],
        [chunk({"content": 7})],
        [{"choices": ["x"]}],
        [chunk({"content": "x"}, "abort")],
    ],
)
def test_what_is_no_whole_answer_is_a_fault(chunks: list[dict]) -> None:
    with pytest.raises(Fault):
        reply(*chunks)[0].response([], 0)


def test_a_content_filter_is_an_error_and_no_answer() -> None:
    with pytest.raises(ServerError, match="content filter"):
        reply(chunk({"content": "x"}, "content_filter"))


def test_odd_but_harmless_chunks_are_passed_over() -> None:
    made, shown = reply(
        {}, {"choices": None}, {"choices": [], "usage": None}, chunk({"content": None}),
        {"choices": [{"delta": None}]}, chunk({"content": "ok"}, "eos"),
        {"usage": {"prompt_tokens": "many", "prompt_tokens_details": {"cached_tokens": 2}}},
    )  # fmt: skip
    found = made.response([], 0)
    assert shown == found.text == "ok"
    assert (found.usage.prompt_tokens, found.usage.reused_tokens) == (0, 2)


@pytest.mark.parametrize("where", ["content", "reasoning"])
def test_an_answer_in_a_circle_is_cut(where: str) -> None:
    made = Reply(False, False, text_loop_start)
    turn, count = "It is a cat.\n", 0
    while not made.is_repeating:
        made.add(chunk({where: turn}))
        count += 1
        assert count < 1000
    found = made.response([], 0)
    assert found.finish_reason == "repetition"
    kept = found.text or found.thinking
    assert kept == turn.strip()


def entries(*tokens: str, logprob: float = -0.5) -> list[dict]:
    return [{"token": token, "bytes": None, "logprob": logprob} for token in tokens]


def test_tokens_have_their_places_in_the_answer() -> None:
    said = entries("<think>", "a cat", "</think>", "\n\n", " a", " cat", "<|im_end|>")
    placed = place_tokens(said, "a cat")
    assert [(t.start, t.end) for t in placed] == [(0, 1), (1, 5)]
    assert {(t.id, t.logprob) for t in placed} == {(UNKNOWN_ID, -0.5)}
    assert place_tokens(said, "another text") == ()


@given(st.text(alphabet="aé猫😀 ", min_size=1, max_size=12), st.data())
def test_parts_of_characters_have_the_whole_one(text: str, data: st.DataObject) -> None:
    text = text.strip() or "x"
    raw = text.encode()
    cuts = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=5))})
    pieces = [raw[a:b] for a, b in pairwise(cuts)]
    said = [
        {"token": piece.decode(errors="replace"), "bytes": list(piece), "logprob": -1}
        for piece in pieces
    ]
    placed = place_tokens(said, text)
    assert len(placed) == len(pieces)
    for token, piece in zip(placed, pieces, strict=True):
        assert piece in text[token.start : token.end].encode()
    assert (placed[0].start, placed[-1].end) == (0, len(text))


def top(**chances: float) -> list[dict]:
    tokens = [{"token": t, "logprob": math.log(p)} for t, p in chances.items()]
    return [{"token": "x", "logprob": -1, "top_logprobs": tokens}]


YES_NO = ("yes", "Yes", "no", "No")


def test_scores_are_normalised_over_the_candidates() -> None:
    found = candidate_scores(top(Yes=0.6, no=0.1, No=0.1, A=0.2), YES_NO)
    assert found == pytest.approx([0, 0.75, 0.125, 0.125])


@pytest.mark.parametrize(
    ("given_entries", "words"),
    [
        ([], "tells no log-probabilities"),
        ([{"token": "x", "logprob": -1}], "begins with none"),
        (top(The=0.9), "begins with none of 'yes'.*'The'"),
        (top(no=0.5, Ye=0.4), "'Yes' is more than one token"),
    ],
)
def test_scores_that_cannot_be_told_are_refused(given_entries: list[dict], words: str) -> None:
    with pytest.raises(ServerError, match=words):
        candidate_scores(given_entries, YES_NO)


@settings(max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "delta",
                        "content",
                        "reasoning",
                        "finish_reason",
                        "usage",
                        "logprobs",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_breaks_more_than_its_own_request(value: object) -> None:
    made = Reply(True, True, text_loop_start)
    try:
        json.dumps(value)
        made.add(value if isinstance(value, dict) else {"choices": value})
        made.response([], 0)
    except (Fault, ServerError):
        pass


CIRCLE = "It may be a cat, or not.\n" * 400


@pytest.mark.parametrize(
    ("thinks", "apart", "text", "finish", "expected"),
    [
        (True, False, CIRCLE, "stop", (True, False)),
        (True, False, "I look at it", "length", (True, False)),
        (True, True, "The picture shows", "length", (False, True)),
        (True, True, CIRCLE, "stop", (False, True)),
        (False, False, "Hm.</think>\n\nA cat.", "stop", (True, True)),
        (False, False, "Write </think> behind it.", "stop", (False, True)),
    ],
)
def test_a_thought_in_the_text_is_told_from_the_answer(
    thinks: bool, apart: bool, text: str, finish: str, expected: tuple[bool, bool]
) -> None:
    made = Reply(thinks, apart, text_loop_start)
    for piece in (*text.splitlines(keepends=True), None):
        made.add(chunk(finish=finish) if piece is None else chunk({"content": piece}))
        if made.is_repeating:
            break
    found = made.response([], 0)
    assert (bool(found.thinking), bool(found.text)) == expected


def test_what_is_no_number_is_no_log_probability() -> None:
    for value in (-(10**400), math.nan, "-1"):
        (placed,) = place_tokens([{"token": "yes", "logprob": value}], "yes")
        assert placed.logprob is None
        told = [{"token": "yes", "logprob": value}, {"token": "no", "logprob": -1}]
        with pytest.raises(ServerError, match="no number"):
            candidate_scores([{"token": "yes", "top_logprobs": told}], ("yes", "no"))


@pytest.mark.parametrize("blank", ["\n", " ", "\t", "  \n", "\r\n"])
def test_blanks_without_end_are_a_circle(blank: str) -> None:
    """Servers that hold answers to JSON let a model write blanks between two fields for ever."""
    begun = '{"colour": "green",'
    start = text_loop_start(begun + blank * 20_000)
    assert start is not None and len(begun) <= start <= len(begun) + 40
    assert text_loop_start(f"{begun}{blank * 200}") is None
    assert text_loop_start(f'{begun}{blank * 200}"count": 1}}') is None

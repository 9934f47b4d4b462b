"""Models behind real servers answer as the same checkpoint does in this process."""

from __future__ import annotations

import dataclasses
import json
import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.base import Backend
from qwen_vl_suite.qwenvl.backends.local import LocalBackend
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend
from qwen_vl_suite.qwenvl.constraints import from_choices, from_items, from_lark, from_regex
from qwen_vl_suite.qwenvl.doctor import truth
from qwen_vl_suite.qwenvl.doctor.scenes import draw_clip
from qwen_vl_suite.qwenvl.errors import QwenVLError, Unavailable, UnreadableReply
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.query import Query
from qwen_vl_suite.qwenvl.tasks.extract import extract, form
from qwen_vl_suite.qwenvl.types import Message, Request, Response, Sampling, Video
from running import Server
from trickling import Answers, Trickle

GREEDY = Sampling(24, temperature=0)
SIZES = ((300, 406), (64, 64), (1000, 37), (448, 700), (256, 256))
NARROW = "its bounds are narrower than its family's, so it is shown other sizes than were sent"
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["colour", "count"],
    "additionalProperties": False,
}
Measured = Callable[[str], None]


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Soft colours."""
    random = torch.Generator().manual_seed(height + width + seed)
    few = torch.rand((1, 3, 9, 9), generator=random) * 255
    return torch.nn.functional.interpolate(few, (height, width), mode="bilinear")[0].byte()


def questions() -> list[Request]:
    return [
        Request.ask([picture(*size)], "Describe the picture.", sampling=GREEDY) for size in SIZES
    ]


def agreement(one: str, other: str) -> float:
    """The share of ``other`` that both begin with. Servers compute in another order, so that of
    two tokens that are nearly as likely they may choose the other one."""
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
    return same / len(other) if other else float(not one)


def answered(backend: Backend, requests: Sequence[Request]) -> list[Response]:
    responses = backend.generate(requests)
    assert [response.error for response in responses] == [None] * len(requests)
    return responses


def test_its_kind_and_family_are_found_out(
    server: Server, backend: OpenAIServerBackend, local: LocalBackend
):
    assert backend.kind.name == server.kind
    assert backend.family.model_type == local.family.model_type


def test_descriptions_are_those_of_the_same_checkpoint(
    server: Server, backend: OpenAIServerBackend, local: LocalBackend, measured: Measured
):
    if server.is_nano:
        pytest.skip(NARROW)
    found, expected = answered(backend, questions()), answered(local, questions())
    shares = []
    for size, mine, theirs in zip(SIZES, found, expected, strict=True):
        if mine.input_sizes == theirs.input_sizes:
            shares.append(agreement(mine.text, theirs.text))
        measured(
            f"{size} shown as {mine.input_sizes[0]} (here {theirs.input_sizes[0]}), "
            f"{mine.usage.image_tokens} tokens of {mine.usage.prompt_tokens}"
        )
    measured(f"the same text for {', '.join(f'{share:.0%}' for share in shares)} of each answer")
    assert len(shares) >= 4 and sum(shares) / len(shares) > 0.4


def test_questions_that_come_up_while_others_are_answered(
    backend: OpenAIServerBackend, measured: Measured
):
    asked, told = questions() * 4, Answers()
    backend.generate_from(Trickle([[one] for one in asked], slow=True), told)
    expected = answered(backend, questions()) * 4
    assert [one.input_sizes for one in told.in_order] == [one.input_sizes for one in expected]
    pairs = zip(told.in_order, expected, strict=True)
    shares = [agreement(mine.text, theirs.text) for mine, theirs in pairs]
    measured(f"as they came up, the same text for {sum(shares) / len(shares):.0%} of the answers")
    assert sum(shares) / len(shares) > 0.4


def test_pictures_take_the_tokens_that_were_planned(
    server: Server, backend: OpenAIServerBackend, measured: Measured
):
    """The text around them is the same, so what is left of the prompt is too."""
    if server.is_nano:
        pytest.skip(NARROW)
    side = backend.family.patch_factor
    sizes = [(side * (8 + n), side * (8 + 3 * n % 7)) for n in range(8)] + [*SIZES, (37, 1000)]
    asked = [
        Request.ask([picture(*size)], "Describe.", sampling=Sampling(1, temperature=0))
        for size in sizes
    ]
    found = answered(backend, asked)
    rest = {response.usage.prompt_tokens - response.usage.image_tokens for response in found}
    measured(f"{len(sizes)} sizes, beside the pictures {rest} tokens")
    assert len(rest) == 1


def test_what_is_in_drawn_scenes_is_found_as_here(
    server: Server, backend: OpenAIServerBackend, local: LocalBackend, measured: Measured
):
    if not server.is_nano:
        pytest.skip("random weights find nothing")
    there = truth.ask(backend, 12, Observer(), lambda _: None)
    here = truth.ask(local, 12, Observer(), lambda _: None)
    for kind, task in there.tasks.items():
        own = here.tasks[kind]
        iou = f", mean IoU {task.mean_iou:.3f}" if task.mean_iou is not None else ""
        measured(f"{kind}: {task.hits} of {task.total} found (here {own.hits}){iou}")
        assert task.failed == own.failed == 0
        assert abs(task.hits - own.hits) <= 1
        assert task.hits > 0.8 * task.total


def test_extract_is_held_to_its_form_or_refused(
    server: Server, backend: OpenAIServerBackend, measured: Measured
):
    task = extract(form("schema", json.dumps(SCHEMA)))
    query = Query(task, picture(256, 256), sampling=Sampling(200, temperature=0))
    if "json_schema" not in backend.kind.forms:
        with pytest.raises(UnreadableReply):  # neither these weights nor nano know that form
            run.answer_all(backend, [query])
        return
    (result,) = run.answer_all(backend, [query])
    measured(f"{result.text}; {result.notes}")
    # Random weights may write blanks between two fields for ever, which JSON allows.
    is_cut = any("was cut" in note for note in result.notes)
    assert is_cut or (result.data.keys() == {"colour", "count"} and not result.notes)
    assert result.data["colour"] in ("red", "green", "blue")
    assert 0 <= result.data.get("count", 0) <= 9


HELD = {
    "choice": (from_choices(["red", "a blue one", "green"]), r"red|a blue one|green"),
    "regex": (from_regex(r"[0-9]{2}:[0-5][0-9] (am|pm)"), r"[0-9]{2}:[0-5][0-9] (am|pm)"),
    "lark": (from_lark('start: item ("," item){2}\nitem: "<" WORD ">"\nWORD: /[a-f]+/'), None),
    "boxes": (from_items({"bbox_2d": (4,)}, "on"), None),
}
"""Constraints, and a pattern of all that they allow where that is plain."""


@pytest.mark.parametrize("form", HELD)
def test_answers_are_held_to_choices_patterns_and_grammars(
    form: str, server: Server, backend: OpenAIServerBackend, measured: Measured
):
    constraint, pattern = HELD[form]
    if (form if form in ("choice", "regex") else "lark") not in backend.kind.forms:
        pytest.skip("it is known to take none")
    shown = [picture(256, 256)]
    asked = Request.ask(shown, "Which?", sampling=Sampling(60, temperature=0))
    (response,) = answered(backend, [dataclasses.replace(asked, constraint=constraint)])
    measured(f"{form}: {response.text!r} ({response.finish_reason}), {response.notes}")
    assert not any("held" in note for note in response.notes)
    if pattern:
        assert re.fullmatch(pattern, response.text)
    elif form == "lark":
        assert re.fullmatch(r"(<[a-f]+>(,|$)){3}|<[a-f<>,]*", response.text)
    else:
        assert response.text.startswith(("[", "```json"))


def test_a_second_turn_knows_the_first(
    server: Server, backend: OpenAIServerBackend, local: LocalBackend, measured: Measured
):
    sampling = Sampling(16, temperature=0)
    begun = Request.ask([picture(256, 320)], "What is this?", sampling=sampling)
    (first,), (expected,) = answered(backend, [begun]), answered(local, [begun])
    shares = [agreement(first.text, expected.text)]
    # Not what random weights have written: other tokens can spell that, too.
    said = Message("assistant", ("A red ball.",))
    messages = (*begun.messages, said, Message("user", ("And beside it?",)))
    second = Request(messages, sampling=sampling)
    (found,), (expected,) = answered(backend, [second]), answered(local, [second])
    shares.append(agreement(found.text, expected.text))
    measured(f"the same text for {shares[0]:.0%} and {shares[1]:.0%} of each turn")
    assert min(shares) > 0.3


def test_videos_are_watched(
    server: Server, backend: OpenAIServerBackend, local: LocalBackend, measured: Measured
):
    clip = draw_clip("servers 1")
    times = [0.5 * step for step in range(6)]
    frames = torch.from_numpy(clip.frames(times)).movedim(-1, 1).contiguous()
    request = Request.ask([Video(frames, tuple(times))], "What happens?", sampling=GREEDY)
    (mine,), (theirs,) = answered(backend, [request]), answered(local, [request])
    share = agreement(mine.text, theirs.text)
    measured(
        f"{len(times)} frames as {backend.kind.video}: {mine.usage.image_tokens} tokens "
        f"(here {theirs.usage.image_tokens}); the same text for {share:.0%}"
    )
    assert mine.usage.image_tokens > 0
    if backend.kind.video == "frames" and mine.input_sizes == theirs.input_sizes:
        assert share > 0.3


def test_log_probabilities_are_the_models_or_refused(
    server: Server, backend: OpenAIServerBackend, local: LocalBackend, measured: Measured
):
    request = Request.ask(
        [picture(300, 406)], "Describe the picture.", sampling=GREEDY, logprobs=True
    )
    if backend.kind.logprobs == "none":
        with pytest.raises(Unavailable, match="log-probabilities"):
            backend.generate([request])
        with pytest.raises(QwenVLError):
            backend.score([request], ["Yes", "No"])
        return
    (mine,), (theirs,) = answered(backend, [request]), answered(local, [request])
    shared = [
        (one.logprob, other.logprob)
        for one, other in zip(mine.tokens, theirs.tokens, strict=False)
        if mine.text[one.start : one.end] == theirs.text[other.start : other.end]
    ]
    assert shared and all(one is not None and other is not None for one, other in shared)
    apart = abs(shared[0][0] - shared[0][1])  # type: ignore[operator]
    measured(f"the first token's log-probability is {apart:.4f} from the one here")
    assert apart < 0.05
    first = mine.text[mine.tokens[0].start : mine.tokens[0].end]
    (there,), (here,) = (asked.score([request], [first, "Yes"]) for asked in (backend, local))
    measured(f"score {there} (here {here})")
    assert isinstance(there, list) and isinstance(here, list)
    assert there[0] == pytest.approx(here[0], abs=0.05)


def test_thoughts_are_told_apart(thinking_server: Server, measured: Measured):
    sampling = Sampling(8, temperature=0, max_thinking_tokens=16)
    asked = Request.ask([picture(256, 256)], "Describe.", sampling=sampling)
    backend = OpenAIServerBackend(thinking_server.spec)
    assert backend.thinks()
    (response,) = backend.generate([asked])
    backend.close()
    measured(f"thought {response.thinking!r}, answer {response.text!r}, {response.finish_reason}")
    assert response.error is None
    assert response.thinking and "<think>" not in response.thinking + response.text


class Pieces(Observer):
    def __init__(self, stop_after: int = 0):
        self.pieces: list[str] = []
        self._stop_after = stop_after

    def token(self, index: int, text: str) -> None:
        self.pieces.append(text)
        if len(self.pieces) == self._stop_after:
            raise KeyboardInterrupt


def test_text_comes_as_it_is_written(backend: OpenAIServerBackend, measured: Measured):
    watched = Pieces()
    request = Request.ask([picture(256, 256)], "Describe the picture.", sampling=GREEDY)
    (response,) = backend.generate([request], watched)
    measured(f"{len([piece for piece in watched.pieces if piece])} pieces")
    assert len(watched.pieces) > 3
    if not response.thinking:
        assert "".join(watched.pieces).strip() == response.text.strip()


def test_an_interrupt_frees_the_servers_place(
    server: Server, backend: OpenAIServerBackend, measured: Measured
):
    if server.is_nano:
        pytest.skip("its answers are short; the server ends them by itself")
    request = Request.ask(
        [picture(256, 256)], "Describe.", sampling=Sampling(6000, temperature=1.0, seed=1)
    )
    with pytest.raises(KeyboardInterrupt):
        backend.generate([request], Pieces(stop_after=3))
    began = time.monotonic()
    while busy(server) and time.monotonic() < began + 30:
        time.sleep(0.05)
    measured(f"free after {time.monotonic() - began:.2f} s")
    assert not busy(server)


def busy(server: Server) -> bool:
    """Whether the server still works on something, by its own account."""
    if server.kind == "llama.cpp":
        slots: Any = json.loads(_read(f"{server.root}/slots"))
        return any(slot["is_processing"] for slot in slots)
    lines = _read(f"{server.root}/metrics").splitlines()
    counts = [line for line in lines if line.startswith("vllm:num_requests_running")]
    return any(float(line.rsplit(" ", 1)[1]) for line in counts)


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()

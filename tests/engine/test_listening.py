"""Long sounds in parts, and what listening asks, by a scripted model."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption, OutOfMemory
from qwen_vl_suite.qwenvl.listening import expected_tokens, quiet_parts, transcription
from qwen_vl_suite.qwenvl.query import Query
from qwen_vl_suite.qwenvl.tasks.listen import listen
from qwen_vl_suite.qwenvl.types import Audio, Response

RATE = 1000


def sound(seconds: float, *quiet: float) -> Audio:
    """Noise, silent for half a second from each of ``quiet`` on."""
    samples = torch.rand(1, round(seconds * RATE), generator=torch.Generator().manual_seed(1)) - 0.5
    for at in quiet:
        samples[:, round(at * RATE) : round((at + 0.5) * RATE)] = 0
    return Audio(samples, RATE)


def test_long_sounds_are_cut_where_they_are_quiet() -> None:
    whole = sound(65, 26.0, 52.0)
    parts = quiet_parts(whole, 30)
    assert torch.equal(torch.cat([part.samples for part in parts], 1), whole.samples)
    lengths = [part.samples.shape[1] / RATE for part in parts]
    assert 26 <= lengths[0] <= 26.5 and 52 <= lengths[0] + lengths[1] <= 52.5
    assert max(lengths) <= 30 and len(quiet_parts(whole, 100)) == 1


def test_a_long_transcript_is_that_of_its_parts_in_order() -> None:
    backend = ScriptedBackend(
        ["one", Response("two", finish_reason="length")], family="qwen2_5_omni"
    )
    long = sound(400)
    queries = [Query(listen(), long, method=transcription)]
    result = run.answer_all(backend, queries, about="sound")[0]
    assert result.text == "one\ntwo" and not result.is_complete
    assert "cut at 8192 tokens" in result.notes[0]
    assert backend.batches == [2]
    heard = [request.media[0] for request in backend.requests]
    assert sum(part.samples.shape[1] for part in heard if isinstance(part, Audio)) == 400 * RATE
    assert expected_tokens(backend, long) == pytest.approx(400 * 25, abs=2)
    assert backend.requests[0].prompt == "Transcribe the audio into text."
    assert backend.requests[0].sampling.temperature == 0


def test_a_part_that_fails_is_told_and_the_others_are_kept() -> None:
    failed = Response("", finish_reason="error", error=OutOfMemory("No memory."))
    backend = ScriptedBackend(["one", failed, "three"], family="qwen2_5_omni")
    damaged = dataclasses.replace(sound(700), notes=("It is damaged.",))
    query = Query(listen(), damaged, method=transcription, keep_unreadable=True)
    result = run.answer_all(backend, [query], about="sound")[0]
    assert result.text == "one\nthree" and result.error == "Part 2 of 3: No memory."
    assert not result.is_complete and result.finish_reason == "error"
    assert result.notes == damaged.notes


def test_what_is_asked_follows_what_is_wanted() -> None:
    assert listen("transcribe", language="Chinese").prompt == (
        "Transcribe the Chinese audio into text."
    )
    assert listen("transcribe", " \n", " ").prompt == "Transcribe the audio into text."
    own = listen("transcribe", " Write lines. ", " German ")
    assert own.prompt == "Write lines.\nThe speech is in German."
    assert "heard" in listen("describe").prompt and not listen("describe").greedy
    assert listen("ask").prompt == "" and listen("ask", "Who speaks?").prompt == "Who speaks?"
    with pytest.raises(BadOption, match="one of transcribe"):
        listen("hear")
    with pytest.raises(BadOption, match="say it in the prompt"):
        listen("ask", language="Chinese")

"""Listen with a scripted model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from qwen_vl_suite.nodes import host
from qwen_vl_suite.qwenvl.errors import BadAudio, BadOption
from qwen_vl_suite.qwenvl.types import Audio, Response

Run = Callable[..., tuple[Any, ...]]


def sounds(batch: int = 1, seconds: float = 1.0, rate: int = 44_100) -> dict[str, Any]:
    """An AUDIO, as ComfyUI's nodes give it."""
    noise = torch.rand(batch, 2, round(seconds * rate), generator=torch.Generator().manual_seed(2))
    return {"waveform": noise - 0.5, "sample_rate": rate}


def test_every_sound_of_a_batch_and_list_is_answered_in_one_run(
    run_node: Run, scripted: Any
) -> None:
    model, backend = scripted("one", "two", "three", family="qwen2_5_omni")
    lists = {"audio": [sounds(2), sounds(rate=8_000)]}
    text, _, complete = run_node("QVL_Listen", model=model, lists=lists)
    assert text == ["one", "two", "three"] and complete == [True] * 3
    assert backend.batches == [3]
    heard = [request.media[0] for request in backend.requests]
    assert [(len(part.samples), part.rate) for part in heard] == [(2, 44_100)] * 2 + [(2, 8_000)]


def test_each_widget_changes_what_is_asked(run_node: Run, scripted: Any) -> None:
    model, backend = scripted("hm", family="qwen2_5_omni")

    def asked(**widgets: Any) -> Any:
        run_node("QVL_Listen", model=model, **{"audio": sounds(), **widgets})
        return backend.requests[-1]

    assert asked().prompt == "Transcribe the audio into text." and asked().voice is None
    assert asked(language="German").prompt == "Transcribe the German audio into text."
    assert asked(task="describe", seed=4).sampling.seed == 4
    assert asked(task="describe").prompt != asked(task="describe", prompt="Which bird?").prompt
    own = asked(task="ask", prompt="Who speaks?", max_new_tokens=7, speak=True, voice="Ethan")
    assert own.prompt == "Who speaks?" and own.sampling.max_new_tokens == 7
    assert own.voice == "Ethan" and asked(speak=True).voice == "" and asked(voice="x").voice is None
    alone = asked(audio=None, task="ask", prompt="Say hello.")
    assert alone.media == () and alone.prompt == "Say hello."


def test_speech_is_an_audio_and_none_stops_only_what_takes_it(
    run_node: Run, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Audio(torch.rand(1, 2_400), 24_000)
    model, _ = scripted(Response("Hello.", speech=said), family="qwen2_5_omni")
    _, (speech,), _ = run_node("QVL_Listen", model=model, audio=sounds(), speak=True)
    assert speech["sample_rate"] == 24_000 and torch.equal(speech["waveform"][0], said.samples)
    monkeypatch.setattr(host, "execution_blocker", lambda message: message)
    model, _ = scripted("Hello.", family="qwen2_5_omni")
    text, (speech,), _ = run_node("QVL_Listen", model=model, audio=sounds())
    assert text == ["Hello."] and "turn speak on" in speech


def test_a_bad_sound_costs_its_own_answer_alone(
    run_node: Run, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "execution_blocker", lambda message: message)
    bad = {"waveform": torch.zeros(5), "sample_rate": 8}
    model, _ = scripted("one", "two", family="qwen2_5_omni")
    lists = {"audio": [sounds(), bad, sounds()]}
    given = {"when_unreadable": "keep going", "speak": True}
    text, speech, complete = run_node("QVL_Listen", model=model, lists=lists, **given)
    assert text == ["one", "", "two"] and complete == [True, False, True]
    assert "batch, channels and samples" in speech[1]


def test_missing_speech_is_explained(
    run_node: Run, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "execution_blocker", lambda message: message)
    model, _ = scripted("", family="qwen2_5_omni")
    _, (why,), _ = run_node("QVL_Listen", model=model, audio=sounds(), speak=True)
    assert "answer is empty" in why and "turn speak on" not in why


def test_what_cannot_be_asked_is_said(run_node: Run, scripted: Any) -> None:
    model, _ = scripted("hm", family="qwen2_5_omni")
    with pytest.raises(BadOption, match="connect a sound, or write a prompt"):
        run_node("QVL_Listen", model=model)
    with pytest.raises(BadAudio, match=r"[Ss]ound 1 of 1.*batch, channels and samples"):
        run_node("QVL_Listen", model=model, audio={"waveform": torch.zeros(5), "sample_rate": 8})

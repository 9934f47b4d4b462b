"""Speech: answers spoken by the talker of whole Omni checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from asking import picture
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.checkpoints.files import read_settings
from qwen_vl_suite.qwenvl.errors import BadOption, IncompleteCheckpoint, UnsuitableModel
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.inference import speech
from qwen_vl_suite.qwenvl.types import Audio, LocalSpec, Request, Sampling, Video

SPEAKING = ["qwen2_5_omni", "qwen3_omni_moe"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("whole")

    def made(model_type: str) -> Path:
        folder = root / model_type
        return folder if folder.exists() else tiny.make(model_type, folder, speaks=True)

    return made


def opened(folder: Path) -> LocalBackend:
    return load(LocalSpec(str(folder), device="cpu"))


def asked(words: str, voice: str | None = "", tokens: int = 4, seed: int = 6) -> Request:
    return Request.ask(
        (picture(64, 96),), words, "Speak.", sampling=Sampling(tokens, seed=seed), voice=voice
    )


def official(
    folder: Path, model_type: str, backend: LocalBackend, request: Request
) -> torch.Tensor:
    """What the official whole model speaks, asked as its makers do."""
    import transformers
    from qwen_vl_suite.qwenvl.inference.generic import model_inputs

    row = FAMILIES[model_type].speech
    assert row is not None
    cls = getattr(transformers, row.transformers_class)
    model = cls.from_pretrained(folder, dtype=torch.float32).eval()
    if not hasattr(model.talker.config, "audio_config"):  # the library asks for it, and fails
        model.talker.config.audio_config = model.thinker.config.audio_config
    template = backend.chat_template
    inputs = model_inputs(model.thinker, backend.prompt(request))
    pixels = {f"thinker_{n}": inputs.pop(n) for n in [*inputs] if n.startswith("pixel_values")}
    talker = read_settings(folder, "config.json")["talker_config"]
    ends = [talker[f"tts_codec_{n}_token_id"] for n in ("pad", "end") if row.voices_file]
    torch.manual_seed(request.sampling.seed)
    _, wave = model.generate(
        **inputs,
        speaker=request.voice,
        **pixels,
        thinker_max_new_tokens=request.sampling.max_new_tokens,
        thinker_eos_token_id=sorted(template.eos_ids),
        thinker_do_sample=False,
        thinker_repetition_penalty=1.0,
        talker_max_new_tokens=speech.MAX_CODES,
        thinker_suppress_tokens=sorted(template.media_token_ids),
        **({"talker_eos_token_id": ends} if ends else {}),
    )
    return wave.reshape(1, -1)


@pytest.mark.parametrize("model_type", SPEAKING)
def test_an_answer_is_spoken_as_the_official_model_speaks_it(
    whole: Callable[[str], Path], model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "MAX_CODES", 6)
    folder = whole(model_type)
    backend = opened(folder)
    silent = backend.generate([asked("What is it?", voice=None)])[0]
    assert silent.speech is None and not backend.speaks
    lean = backend.nbytes
    spoken = backend.generate([asked("What is it?", "ethan")])[0]
    assert spoken.text == silent.text and spoken.ids == silent.ids
    assert spoken.speech is not None and spoken.speech.rate == 24_000
    name = "Ethan" if model_type == "qwen2_5_omni" else "ethan"
    expected = official(folder, model_type, backend, asked("What is it?", name))
    assert spoken.speech.samples.shape == expected.shape and expected.std() > 0.01
    assert torch.allclose(spoken.speech.samples, expected, atol=1e-4)
    assert spoken.notes[-1].startswith("The speech was cut")
    # The next answer without a voice gives the memory of the speaking half and the speed back.
    assert backend.nbytes > lean and backend.plain_reason
    again = backend.generate([asked("What is it?", voice=None)])[0]
    assert again.ids == silent.ids and backend.nbytes == lean and not backend.plain_reason


@pytest.mark.parametrize("model_type", SPEAKING)
def test_an_answer_about_a_video_with_its_sound_is_spoken(
    whole: Callable[[str], Path], model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "MAX_CODES", 6)
    backend = opened(folder := whole(model_type))
    generator = torch.Generator().manual_seed(4)
    frames = torch.randint(0, 256, (4, 3, 64, 96), generator=generator, dtype=torch.uint8)
    sound = Audio(torch.randn(1, 40_000, generator=generator) * 0.1, 16_000)
    video = Video(frames, (0.0, 0.5, 1.0, 1.5), sound)
    name = "Ethan" if model_type == "qwen2_5_omni" else "ethan"
    sampling = Sampling(4, seed=6)
    request = Request.ask((video,), "What is it?", "Speak.", sampling=sampling, voice=name)
    spoken = backend.generate([request])[0].speech
    expected = official(folder, model_type, backend, request)
    assert spoken is not None and torch.allclose(spoken.samples, expected, atol=1e-4)
    silent = dataclasses.replace(video, audio=None)
    with pytest.raises(BadOption, match="some with their sound and some without"):
        backend.generate([Request.ask((video, silent), "Both?", voice=name)])


def test_voices_are_those_of_the_checkpoint(whole: Callable[[str], Path]) -> None:
    backend = opened(folder := whole("qwen2_5_omni"))
    with pytest.raises(BadOption, match="no voice 'Bob'; its voices are Ethan, Chelsie"):
        backend.generate([asked("Hello", "Bob")])
    assert backend.prompt(Request.ask((), "Hello", voice="")).request.voice == "Chelsie"
    assert "virtual human" in backend.prompt(Request.ask((), "Hello", voice="")).request.system
    file = folder / "spk_dict.pt"
    held = file.read_bytes()
    try:
        file.write_bytes(b"none")
        with pytest.raises(IncompleteCheckpoint, match=r"without spk_dict\.pt"):
            backend.generate([asked("Hello")])
        for wrong in ([torch.zeros(1)], {1: {}}, {"Ethan": torch.zeros(1)}, {"Ethan": {"cond": 1}}):
            torch.save(wrong, file)
            with pytest.raises(IncompleteCheckpoint, match=r"without spk_dict\.pt"):
                backend.generate([asked("Hello")])
    finally:
        file.write_bytes(held)


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("qwen2_5_omni", "holds the thinker of Qwen2.5-Omni alone"),
        ("qwen3_omni_moe_thinker", "is the thinker alone: it cannot speak"),
        ("qwen3_vl", "cannot speak. Choose a whole Qwen2.5-Omni or Qwen3-Omni checkpoint"),
    ],
)
def test_a_model_that_cannot_speak_says_so(
    checkpoint: Callable[..., Path], model_type: str, why: str
) -> None:
    with pytest.raises(UnsuitableModel, match=why):
        opened(checkpoint(model_type)).generate([Request.ask((), "Hello", voice="")])


def test_an_empty_answer_is_not_spoken(
    whole: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened(whole("qwen2_5_omni"))
    every = frozenset(range(tiny.VOCABULARY))
    monkeypatch.setattr(backend.chat_template, "eos_ids", every)
    found = backend.generate([Request.ask((), "Hello", voice="")])[0]
    assert found.text == "" and found.speech is None
    assert found.notes == ("There is no speech, since the answer is empty.",)


def test_an_answer_of_one_token_is_not_said_to_be_empty(whole: Callable[[str], Path]) -> None:
    found = opened(whole("qwen2_5_omni")).generate([asked("What is it?", tokens=1)])[0]
    assert found.ids and found.speech is None and found.finish_reason == "length"
    assert "max_new_tokens" in found.notes[-1] and "empty" not in found.notes[-1]

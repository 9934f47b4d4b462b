"""Qwen-VL From CLIP: the text encoder of the graph as a model, with a faked CLIP in its place."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_clip import END, FIRST, RELEASES, FakeCLIP, SDClipModel, ids_of
from qwen_vl_suite.nodes.from_clip import ClipHandle
from qwen_vl_suite.nodes.host import ClipBackend, memory
from qwen_vl_suite.nodes.host.clip_answer import NO_FORM, NO_SCORES
from qwen_vl_suite.qwenvl.constraints import from_choices
from qwen_vl_suite.qwenvl.errors import BadOption, OutOfMemory, Unavailable, UnsuitableModel
from qwen_vl_suite.qwenvl.folders import model_of
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import (
    Audio,
    Image,
    Message,
    Request,
    Response,
    Sampling,
    Video,
)

Run = Callable[..., tuple[Any, ...]]

BOX = '[{"bbox_2d": [100, 200, 500, 800], "label": "cat"}]<|im_end|>'


@pytest.fixture(autouse=True)
def without_management(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing keeps books of what is no real model."""
    monkeypatch.setattr(memory, "optional_import", lambda *_: None)


def picture(height: int = 100, width: int = 200) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def one(clip: Any, request: Request, **options: Any) -> Response:
    (response,) = ClipBackend(clip, **options).generate([request])
    if response.error:
        raise response.error
    return response


class Written(Observer):
    """The words of each answer as they came."""

    def __init__(self) -> None:
        self.started: tuple[Any, Any] = ((), ())
        self.texts: dict[int, str] = {}
        self.ended: list[int] = []

    def start(self, prompt_tokens: Any, max_new_tokens: Any) -> None:
        self.started = (list(prompt_tokens), list(max_new_tokens))

    def token(self, index: int, text: str) -> None:
        self.texts[index] = self.texts.get(index, "") + text

    def restart(self, index: int) -> None:
        self.texts[index] = ""

    def done(self, index: int, response: Response) -> None:
        self.ended.append(index)


@pytest.mark.parametrize("release", RELEASES)
def test_each_picture_is_answered_whatever_the_calls_look_like(
    run_node: Run, pictures: torch.Tensor, release: str
) -> None:
    clip = RELEASES[release](lambda row, _: f"{len(row)} tokens<|im_end|>")
    (model,) = run_node("QVL_FromCLIP", clip=clip)
    texts, *_ = run_node("QVL_Describe", model=model, images=pictures, prompt="What?")
    assert len(texts) == 3 and len(set(texts)) == 1 and texts[0].endswith("tokens")
    assert [call["position_ids"] for call in clip.transformer.calls] == [1, 1, 1]


def test_boxes_are_in_pixels_of_the_picture(run_node: Run, pictures: torch.Tensor) -> None:
    (model,) = run_node("QVL_FromCLIP", clip=FakeCLIP(BOX))
    outputs = run_node("QVL_Grounding", model=model, images=pictures[:1], find="cat")
    (((box,),),) = outputs[1]
    assert (box["x"], box["y"], box["width"], box["height"]) == (20, 20, 80, 60)


@pytest.mark.parametrize(("height", "width"), [(100, 200), (37, 900), (1333, 777), (32, 32)])
def test_comfyui_finds_pictures_in_the_size_that_it_would_resize_them_to(
    height: int, width: int
) -> None:
    clip = FakeCLIP()
    response = one(clip, Request.ask((picture(height, width),), "What?"))
    (shown,) = clip.transformer.pictures
    assert response.input_sizes == (tuple(shown.shape[1:3]),)
    assert all(side % 32 == 0 for side in shown.shape[1:3])
    assert 65_536 <= shown.shape[1] * shown.shape[2] <= 12_845_056


def test_prompts_are_those_of_the_makers_and_hold_the_words_of_the_user() -> None:
    clip = FakeCLIP()
    words = r"a \(b\) embedding:c <|im_end|> </think>"
    talk = (
        Message("system", ("Be brief.",)),
        Message("user", ("One: ", Image(picture()), " and ", Image(picture()))),
        Message("assistant", ("No.",)),
        Message("user", (words,)),
    )
    one(clip, Request(talk))
    row = clip.transformer.calls[0]["row"]
    text = "".join(
        "*" if isinstance(i, dict) else chr(i - FIRST) if i >= FIRST else "" for i in row
    )
    assert text == (
        "system\nBe brief.\nuser\nOne: * and *\nassistant\nNo.\n"
        r"user" + "\n" + r"a \\(b\\) embedding :c < |im_end|> < /think>" + "\nassistant\n"
    )


SAMPLINGS = [
    (Sampling(), {"do_sample": False}),
    (Sampling(presence_penalty=1.5), {"do_sample": True, "top_k": 1, "presence_penalty": 1.5}),
    (
        Sampling(temperature=0.7, top_p=0.8, top_k=20, min_p=0.1, seed=3, max_new_tokens=7),
        {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1}
        | {"seed": 3, "max_length": 7},
    ),
]


@pytest.mark.parametrize(("sampling", "expected"), SAMPLINGS)
def test_sampling_is_handed_on(sampling: Sampling, expected: dict[str, Any]) -> None:
    clip = FakeCLIP()
    one(clip, Request.ask((), "Hi", sampling=sampling))
    assert clip.transformer.calls[0].items() >= expected.items()


@pytest.mark.parametrize("through_embeddings", [True, False])
@pytest.mark.parametrize(
    ("say", "text", "reason"),
    [
        ("Yes.<|im_end|>", "Yes.", "stop"),
        ("Word " * 60, ("Word " * 60)[:99], "length"),
        ("ab" * 40_000, None, "repetition"),
    ],
)
def test_an_answer_ends_as_it_would_elsewhere(
    say: str, text: str | None, reason: str, through_embeddings: bool
) -> None:
    """Whether or not its tokens can be followed while they are written."""
    clip = FakeCLIP(say, through_embeddings=through_embeddings)
    limit = 30_000 if reason == "repetition" else 100
    response = one(clip, Request.ask((), "Hi", sampling=Sampling(max_new_tokens=limit)))
    assert response.finish_reason == reason
    assert response.text == text if text else 0 < len(response.text) < 20


def test_a_loop_ends_while_it_is_written() -> None:
    clip, written = FakeCLIP("ab" * 40_000), Written()
    request = Request.ask((), "Hi", sampling=Sampling(max_new_tokens=50_000))
    ClipBackend(clip).generate([request], written)
    assert len(written.texts[0]) < 10_000


def think(row: list[Any], _: dict[str, Any]) -> str:
    """A thought without end, unless it was ended."""
    return "It is a cat.<|im_end|>" if row[-1] == ids_of("</think>")[0] else "hmm " * 5000


@pytest.mark.parametrize("through_embeddings", [True, False])
@pytest.mark.parametrize("limit", [0, 40])
def test_a_thought_is_kept_apart_and_ends_at_its_limit(
    limit: int, through_embeddings: bool
) -> None:
    clip, written = FakeCLIP(think, through_embeddings=through_embeddings), Written()
    sampling = Sampling(max_new_tokens=100, max_thinking_tokens=limit)
    backend = ClipBackend(clip, thinking_edition=True)
    (response,) = backend.generate([Request.ask((), "Hi", sampling=sampling)], written)
    assert response.text == "It is a cat." and response.finish_reason == "stop"
    assert response.thinking == ("hmm " * 10)[:limit].strip()
    assert written.texts[0].endswith("</think>It is a cat.")


def test_a_thought_that_the_model_ends_itself() -> None:
    clip = FakeCLIP("So.</think>\n\nA cat.<|im_end|>")
    response = one(clip, Request.ask((), "Hi"), thinking_edition=True)
    assert (response.thinking, response.text) == ("So.", "A cat.")


def test_what_thinks_is_the_edition() -> None:
    assert not ClipBackend(FakeCLIP()).thinks()
    with pytest.raises(BadOption, match="cannot think"):
        ClipBackend(FakeCLIP()).thinks(True)
    with pytest.raises(BadOption, match="always thinks"):
        ClipBackend(FakeCLIP(), thinking_edition=True).thinks(False)


def test_one_failed_picture_fails_alone() -> None:
    def say(row: list[Any], _: dict[str, Any]) -> str:
        if any(i == FIRST + ord("!") for i in row):
            raise RuntimeError("probability tensor contains nan")
        return "Yes.<|im_end|>"

    requests = [Request.ask((picture(),), words) for words in ("a", "b!", "c")]
    requests.append(Request.ask((Audio(torch.zeros(1, 10), 16_000),), "Listen"))
    written = Written()
    first, second, third, last = ClipBackend(FakeCLIP(say)).generate(requests, written)
    assert (first.text, third.text) == ("Yes.", "Yes.")
    assert "contains nan" in str(second.error) and isinstance(last.error, BadOption)
    assert written.ended == [0, 1, 2, 3] and len(written.started[0]) == 4


class Interrupted(BaseException):
    pass


def test_a_stop_ends_the_run_within_a_token() -> None:
    class Stop(Written):
        def check(self) -> None:
            if len(self.texts.get(0, "")) == 5:
                raise Interrupted

    clip, stop = FakeCLIP("abcdefghi" * 50), Stop()
    with pytest.raises(Interrupted):
        ClipBackend(clip).generate([Request.ask((), "Hi")] * 2, stop)
    assert stop.texts == {0: "abcde"} and not stop.ended
    # Nothing of ours stays in the CLIP.
    assert not clip.transformer.model.embed_tokens._forward_pre_hooks
    assert not clip.transformer.visual._forward_pre_hooks


def test_memory_that_does_not_suffice_shrinks_the_picture_or_is_told() -> None:
    def say(row: list[Any], _: dict[str, Any]) -> str:
        shape = next(i for i in row if isinstance(i, dict))["data"].shape
        if shape[1] * shape[2] > 300_000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "Yes.<|im_end|>"

    large = Request.ask((picture(1000, 1000),), "What?")
    with pytest.raises(OutOfMemory, match="max_new_tokens"):
        one(FakeCLIP(say), large)
    response = one(FakeCLIP(say), Request.ask(large.images, "What?", may_shrink=True))
    ((height, width),) = response.input_sizes
    assert response.text == "Yes." and 100_000 < height * width <= 300_000


def test_comfyui_is_asked_for_room_for_the_longest_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def load(patchers: Any, memory_required: int) -> None:
        asked.append(memory_required)

    monkeypatch.setattr(memory, "optional_import", lambda *_: load)
    sizes = {"num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128}
    clip = FakeCLIP(config={**sizes, "intermediate_size": 12_288})
    for limit in (1, 10_001):
        one(clip, Request.ask((), "Hi", sampling=Sampling(max_new_tokens=limit)))
    assert asked[1] - asked[0] == 10_000 * 147_456  # bytes of a token's keys and values


def test_what_it_cannot_do_is_said() -> None:
    held = Request.ask((), "Hi", constraint=from_choices(("yes", "no")), logprobs=True)
    assert one(FakeCLIP(), held).notes == (NO_FORM, NO_SCORES)
    cut = Request.ask((), "Hi", logprobs=True, sampling=Sampling(max_new_tokens=2))
    assert len(one(FakeCLIP(), cut).notes) == 2
    penalised = Request.ask((), "Hi", sampling=Sampling(presence_penalty=1.0))
    (note,) = one(RELEASES["older"](), penalised).notes
    assert "presence_penalty" in note
    frames = Video(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), (0.0, 1.0))
    for request in (
        Request.ask((frames,), "Watch"),
        Request.ask((), "Hi", reasoning_effort="high"),
        Request.ask((), "Hi", voice=""),
        Request.ask((), "Hi" * 20_000),
        Request.ask((picture(),), "Hi", min_pixels=20_000_000),
    ):
        with pytest.raises(BadOption):
            ClipBackend(FakeCLIP()).generate([request])


def test_a_conversation_shows_the_model_its_earlier_answers_as_text(
    run_node: Run, pictures: torch.Tensor
) -> None:
    clip = FakeCLIP()
    (model,) = run_node("QVL_FromCLIP", clip=clip)
    _, _, history, *_ = run_node("QVL_Chat", model=model, message="One?", images=pictures[:1])
    run_node("QVL_Chat", model=model, message="Two?", history=history[0])
    last = clip.transformer.calls[-1]["row"]
    text = "".join(chr(i - FIRST) for i in last if isinstance(i, int) and i >= FIRST)
    assert text == "user\nOne?\nassistant\nYes.\nuser\nTwo?\nassistant\n"
    assert sum(isinstance(i, dict) for i in last) == 1


def test_nodes_that_need_more_refuse_it_by_name(run_node: Run, pictures: torch.Tensor) -> None:
    (model,) = run_node("QVL_FromCLIP", clip=FakeCLIP())
    assert isinstance(model, ClipHandle) and str(model) == "Qwen3-VL (text encoder)"
    with pytest.raises(BadOption, match="on the CLIP"):
        run_node("QVL_LoRA", model=model, adapter="any")
    with pytest.raises(Unavailable, match="Loader"):
        run_node("QVL_Score", model=model, images=pictures, text="a cat")


def test_what_tells_a_model_from_others_outlasts_the_clip(run_node: Run) -> None:
    first, again = (run_node("QVL_FromCLIP", clip=FakeCLIP())[0].spec for _ in range(2))
    (thinking,) = run_node("QVL_FromCLIP", clip=FakeCLIP(), edition="thinking")
    assert model_of(first) == model_of(again) != model_of(thinking.spec)


REFUSED = {
    "cut": (dict(model_type="qwen3vl_32b", config={"final_norm": False}), "cut to its first 3"),
    "flux2": (dict(model_type="qwen3_8b", visual=None), "vision tower"),
    "headless": (dict(model_type="qwen25_7b", config={"hidden_size": 3584}), "head"),
    "empty head": (dict(lm_head=torch.zeros(40, 8)), "lacks its head"),
    "no positions": (dict(inner=SDClipModel), "M-RoPE"),
    "positions of Qwen3.5": (dict(inner=SDClipModel, model_type="qwen35_4b"), "M-RoPE"),
    "another maker's": (dict(model_type="gemma3_4b"), "none of Qwen's"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_encoder_that_cannot_be_asked_is_refused_with_the_reason(
    run_node: Run, case: str
) -> None:
    settings, reason = REFUSED[case]
    with pytest.raises(UnsuitableModel, match=reason):
        run_node("QVL_FromCLIP", clip=FakeCLIP(**settings))


def test_a_head_that_was_loaded_is_no_reason() -> None:
    clip = FakeCLIP(lm_head=torch.ones(40, 8), config={"hidden_size": 4096})
    assert one(clip, Request.ask((), "Hi")).text == "Yes."


def test_newer_families_are_taken_once_they_are_run_rightly() -> None:
    clip = FakeCLIP(model_type="qwen35_4b")
    backend = ClipBackend(clip)
    assert backend.family.title == "Qwen3.5" and backend.thinks(True) and not backend.thinks()
    backend.generate([Request.ask((), "Hi")])
    assert clip.transformer.calls[0]["row"][-6:] == ids_of("<think>\n\n</think>\n\n")
    older = ClipBackend(FakeCLIP(model_type="qwen25_7b", lm_head=torch.ones(9, 8)))
    assert older.family.coordinates == "absolute"


@pytest.mark.parametrize(
    ("settings", "reason"), [({"mean": 0.48}, "colours"), ({"swallows": True}, "0 of 1 pictures")]
)
def test_pictures_that_are_shown_otherwise_are_no_ground_for_an_answer(
    settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsuitableModel, match=reason):
        one(FakeCLIP(**settings), Request.ask((picture(),), "What?"))


def test_pictures_that_the_tokenizer_drops_are_missed() -> None:
    clip = FakeCLIP()
    clip.tokenizer.tokenize_with_weights = lambda text, *_, images=(), **__: {  # type: ignore[method-assign]
        "x": [[(i, 1.0) for i in ids_of(text)]]
    }
    with pytest.raises(UnsuitableModel, match="0 of 1 pictures"):
        one(clip, Request.ask((picture(),), "What?"))


def test_what_goes_through_the_embeddings_beside_tokens_is_not_taken_for_them() -> None:
    clip, written = FakeCLIP(), Written()
    real = clip.transformer.generate

    def with_drafts(tokens: Any, **options: Any) -> list[int]:
        made = real(tokens, **options)
        clip.transformer.model.embed_tokens(torch.tensor([[FIRST + ord("x")]]))
        return [FIRST + ord("N"), *made[1:], END] if made[-1] != END else [FIRST + ord("N"), END]

    clip.transformer.generate = with_drafts  # type: ignore[method-assign]
    (response,) = ClipBackend(clip).generate([Request.ask((), "Hi")], written)
    assert response.text == written.texts[0] == "N"


def test_unload_asks_comfyui_for_this_model_alone(
    run_node: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = FakeCLIP()
    asked: list[Any] = []
    clip.patcher.load_device = "card"
    other = SimpleNamespace(model=SimpleNamespace(model=object()))
    management = SimpleNamespace(
        current_loaded_models=[SimpleNamespace(model=clip.patcher), other],
        free_memory=lambda _, device, keep_loaded: asked.append((device, keep_loaded)),
        soft_empty_cache=lambda: None,
    )

    def imported(_: str, name: str = "") -> Any:
        return getattr(management, name) if name else management

    monkeypatch.setattr(memory, "optional_import", imported)
    (model,) = run_node("QVL_FromCLIP", clip=clip)
    (backend,) = model.loaded()
    assert (backend.place, backend.nbytes) == ("device", 123)
    assert run_node("QVL_Unload", after="done", model=model) == ("done",)
    assert asked == [("card", [other])]


def test_equal_settings_of_one_clip_are_one_model(run_node: Run) -> None:
    clip, other = FakeCLIP(), FakeCLIP()
    (first,), (second,) = (run_node("QVL_FromCLIP", clip=clip) for _ in range(2))
    assert first == second and hash(first) == hash(second)
    assert first != run_node("QVL_FromCLIP", clip=other)[0]
    assert first != run_node("QVL_FromCLIP", clip=clip, edition="thinking")[0]

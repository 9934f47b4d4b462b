"""Logits stages, log-probabilities, and the tokens of an answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from asking import Always, Never, ask, counted, picture
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.backends.local import LocalBackend
from qwen_vl_suite.qwenvl.inference import logits, sampler
from qwen_vl_suite.qwenvl.inference.active_request import ActiveRequest
from qwen_vl_suite.qwenvl.inference.detokenizer import Detokenizer
from qwen_vl_suite.qwenvl.inference.logits import LogitsStage, can_verify
from qwen_vl_suite.qwenvl.inference.sampler import Sampler
from qwen_vl_suite.qwenvl.inference.sequence import Row
from qwen_vl_suite.qwenvl.inference.speculative.prompt_lookup import PromptLookup
from qwen_vl_suite.qwenvl.types import Request, Response, Sampling

CPU, VOCABULARY = torch.device("cpu"), 20


def row(**fields: Any) -> Row:
    return Row(0, fields.pop("sampling", Sampling()), [1], frozenset({0}), (8, 9), **fields)


def test_banned_tokens_are_never_chosen_nor_verified() -> None:
    scores = torch.zeros(1, VOCABULARY)
    scores[0, 5], scores[0, 6] = 9.0, 3.0
    for sampling in (Sampling(), Sampling(temperature=1.0, top_k=1), Sampling(presence_penalty=1)):
        subject = Sampler([row(sampling=sampling, banned_ids=frozenset({5}))], CPU, VOCABULARY)
        subject.prepare()
        assert subject.sample(scores).tokens.tolist() == [6]
    assert subject.verify(scores[:, None]).tokens.tolist() == [[6]]
    assert scores[0, 5] == 9.0, "the model's own scores stay as they are"


class Allowing:
    """A matcher that allows given tokens, whatever was written."""

    is_waiting, problem = False, ""

    def __init__(self, *allowed: Sequence[int]):
        self.allowed = allowed

    def follow(self, answer: Sequence[int], after_thought: bool = False) -> None: ...

    def fill(self, words: torch.Tensor, at: int = 0) -> None:
        words.zero_()
        for token in self.allowed[at]:
            words[token // 32] |= 1 << (token % 32)

    def possible(self, draft: Sequence[int]) -> Sequence[int]:
        return draft

    def fill_behind(self, draft: Sequence[int], words: Sequence[torch.Tensor]) -> None:
        for at, _ in enumerate(draft, 1):
            self.fill(words[at - 1], at)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0)])
def test_masks_of_a_grammar_are_the_same_whole_and_only_where_needed(sampling: Sampling) -> None:
    """On a card all scores are masked; on a processor those of rows that need it."""
    vocabulary = 70
    held = row(matcher=Allowing([3, 40], [5], [69]), sampling=sampling)
    stage = logits.GrammarMask([row(), held], CPU, vocabulary)
    scores = torch.randn(2, 3, vocabulary, generator=torch.Generator().manual_seed(2))
    stage.prepare()
    whole = stage._masked(scores[:, 0].clone(), stage.state["next"])
    assert torch.equal(whole[0], scores[0, 0])
    assert torch.isfinite(whole[1]).nonzero()[:, 0].tolist() == [3, 40]
    assert torch.equal(stage(scores[:, 0].clone()).argmax(-1), whole.argmax(-1))
    assert stage.prepare_drafts([[], [3, 5]], 0) == [[], [3, 5]]
    masks = torch.cat([stage.state["next"][:, None], stage.state["drafts"][:, :2]], 1)
    whole = stage._masked(scores.clone(), masks)
    assert torch.isfinite(whole[1]).nonzero().tolist() == [[0, 3], [0, 40], [1, 5], [2, 69]]
    assert torch.equal(stage(scores.clone()).argmax(-1), whole.argmax(-1))


def test_log_probabilities_are_the_models_own_before_penalties_bans_and_temperature() -> None:
    scores = torch.linspace(-2, 2, VOCABULARY)[None]
    sampling = Sampling(temperature=0.3, top_k=1, presence_penalty=2.0)
    subject = Sampler(
        [row(sampling=sampling, logprobs=True, banned_ids=frozenset({VOCABULARY - 1}))],
        CPU,
        VOCABULARY,
    )
    subject.prepare()
    tokens, logprobs = subject.sample(scores)
    assert tokens.tolist() == [VOCABULARY - 2] and logprobs is not None
    assert torch.equal(logprobs, scores.log_softmax(-1)[:, VOCABULARY - 2])
    assert Sampler([row()], CPU, VOCABULARY).sample(scores).logprobs is None


def test_a_thought_ends_where_the_model_would_end_its_text_also_by_several_tokens() -> None:
    """And the first token of the end alone, written by the model, is not taken for its end."""
    scores = torch.zeros(1, VOCABULARY)
    subject = Sampler([row(thinking=True)], CPU, VOCABULARY)
    drawn = []
    for high in (8, 5, 0, 5, 5, 0):
        scores.zero_()[0, high] = 4.0
        drawn += subject.sample(scores).tokens.tolist()
    assert drawn == [8, 5, 8, 9, 5, 0]


def test_drafts_can_be_verified_unless_a_stage_depends_on_what_was_generated() -> None:
    assert can_verify(row()) and can_verify(row(banned_ids=frozenset({4}), logprobs=True))
    assert not can_verify(row(thinking=True))
    for sampling in (
        Sampling(temperature=0.1),
        Sampling(presence_penalty=0.5),
        Sampling(repetition_penalty=1.1),
    ):
        assert not can_verify(row(sampling=sampling))


class CountUp(LogitsStage):
    """Behind each token only the next one by number, known on the host alone."""

    needs_host = True
    seen: list[int] = []  # noqa: RUF012

    def __init__(self, rows: Sequence[Row], device: torch.device, vocabulary: int):
        super().__init__(rows, device, vocabulary)
        last = [row.output_ids[-1] if row.output_ids else -1 for row in rows]
        self.state["last"] = self.tensor(last)
        self.state["wanted"] = self.tensor([self.is_wanted(row) for row in rows])

    @classmethod
    def is_wanted(cls, row: Row) -> bool:
        return row.sampling.seed == 77

    def accept(self, slot: int, token: int) -> None:
        if self.state["wanted"][slot]:
            self.seen.append(token)
            self.state["last"][slot] = token

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        last = self.state["last"][:, None]
        blocked = (
            self.state["wanted"][:, None]
            & (last >= 0)
            & (torch.arange(scores.shape[-1]) != (last + 1) % scores.shape[-1])
        )
        return scores.masked_fill(blocked, -torch.inf)


@pytest.fixture
def count_up(monkeypatch: pytest.MonkeyPatch) -> type[CountUp]:
    stages = (*logits.STAGES, CountUp)
    for module in (logits, sampler):
        monkeypatch.setattr(module, "STAGES", stages)
    CountUp.seen = []
    return CountUp


@pytest.mark.usefixtures("cuda_policy")
def test_a_stage_that_needs_the_host_knows_every_token_before_the_next_step(
    backend: Any, count_up: type[CountUp]
) -> None:
    """Also where the host would lag a step behind, beside a row that does not want it."""
    subject: LocalBackend = backend("qwen3_vl")
    subject.prefix_cache.clear()
    subject.adaptive_lookup = Always()
    plain = ask("again again again", tokens=24)
    held = ask("again again again", tokens=24, seed=77)
    (expected,) = subject.generate([plain])
    other, found = subject.generate([plain, held])
    assert other == expected
    assert found.ids == tuple(range(found.ids[0], found.ids[0] + 24))
    assert count_up.seen == list(found.ids[:-1]), "the last one ends the row"


# Log-probabilities of answers


def log_probabilities(subject: LocalBackend, request: Request, response: Response) -> list[float]:
    """By one pass over the prompt and the whole answer."""
    prompt = subject.prompt(request)
    ids = torch.tensor([[*prompt.ids, *response.ids]])
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        scores = subject.model(**inputs).logits[0].log_softmax(-1)
    start = len(prompt.ids) - 1
    return [float(scores[start + at, token]) for at, token in enumerate(response.ids)]


@pytest.mark.parametrize("speculate", [True, False])
@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen3_5"])
def test_log_probabilities_of_answers_equal_those_of_one_pass(
    backend: Any, model_type: str, speculate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject: LocalBackend = backend(model_type)
    subject.prefix_cache.clear()
    subject.adaptive_lookup = Always() if speculate else Never()
    request = Request.ask((), "go on go on go on", sampling=Sampling(24), logprobs=True)
    draft = PromptLookup.draft
    # Right and wrong ones.
    monkeypatch.setattr(PromptLookup, "draft", lambda self: draft(self)[:2] or [101, 102])
    with counted() as counts:
        (found,) = subject.generate([request])
    assert bool(counts["verifications"]) == speculate
    expected = log_probabilities(subject, request, found)
    assert len(found.tokens) == 24
    for token, logprob in zip(found.tokens, expected, strict=True):
        assert token.logprob == pytest.approx(logprob, abs=2e-4)
    (plain,) = subject.generate([Request.ask((), "go on go on go on", sampling=Sampling(24))])
    assert {token.logprob for token in plain.tokens} == {None} and plain.ids == found.ids


@pytest.mark.usefixtures("cuda_policy")
def test_log_probabilities_in_a_batch_are_those_of_the_request_alone(backend: Any) -> None:
    """Also in captured steps, and where only one of the rows asks for them."""
    subject: LocalBackend = backend("qwen3_vl")
    wanted = Request.ask((picture(50, 80),), "what?", sampling=Sampling(16), logprobs=True)
    (alone,) = subject.generate([wanted])
    others = [ask("one", tokens=9), wanted, ask("two", picture(64, 64), tokens=20)]
    first, found, third = subject.generate(others)
    assert found.ids == alone.ids
    assert {token.logprob for token in (*first.tokens, *third.tokens)} == {None}
    for token, lonely in zip(found.tokens, alone.tokens, strict=True):
        assert token.logprob == pytest.approx(lonely.logprob, abs=2e-4)


# Places of tokens in the text


class Bytes:
    """A tokenizer of bytes, of which a character may take several."""

    media_token_ids: frozenset[int] = frozenset()

    @staticmethod
    def decode(ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


class FakePrompt:
    chat_template = Bytes
    thinking, ids, image_tokens, input_sizes, notes = False, (), 0, (), ()


def answered(text: str, thought: str = "") -> Response:
    ids = list((thought + text).encode())
    held = Row(0, Sampling(), [], frozenset(), tuple(b"</think>"), output_ids=ids)
    held.output_logprobs = [-float(index) for index in range(len(ids))]
    held.thought_length, held.finish_reason = len(thought.encode()), "stop"
    prompt: Any = FakePrompt()
    prompt.thinking = bool(thought)
    return ActiveRequest(held, prompt, Detokenizer(Bytes.decode)).response()


def characters(response: Response) -> Iterator[tuple[int, str]]:
    for token in response.tokens:
        yield token.id, response.text[token.start : token.end]


@given(st.text(max_size=40), st.sampled_from(["", "hm\nhm</think>", "日本</think>"]))
def test_each_token_stands_where_its_characters_are(text: str, thought: str) -> None:
    if text.lstrip().startswith("<think>") or "\ufffd" in text or "\r" in text:
        return
    response = answered(text, thought)
    assert response.text == text.strip()
    assert bytes(response.ids).decode() == text
    at = 0
    for token, part in characters(response):
        assert token in part.encode() or not part
        at += 1
    assert at == len(text.encode())
    spans = [(token.start, token.end) for token in response.tokens]
    assert (
        spans == sorted(spans)
        and "".join(response.text[start:end] for start, end in dict.fromkeys(spans)) == text.strip()
    )


def test_blanks_around_an_answer_have_no_place_in_it() -> None:
    response = answered("\n 猫! \n")
    assert response.text == "猫!"
    assert list(characters(response)) == [
        *((byte, "") for byte in b"\n "),
        *((byte, "猫") for byte in "猫".encode()),
        (ord("!"), "!"),
        *((byte, "") for byte in b" \n"),
    ]
    assert [token.logprob for token in response.tokens][:3] == [0.0, -1.0, -2.0]


def test_a_thought_is_not_among_the_tokens_of_an_answer() -> None:
    asked, unasked = answered("\nyes", "hm</think>"), answered("<think>hm</think>\nyes")
    assert asked.text == unasked.text == "yes"
    assert (asked.thinking, unasked.thinking) == ("hm", "hm")
    assert bytes(asked.ids) == b"\nyes" and bytes(unasked.ids).strip() == b"yes"
    assert unasked.tokens[-1].end == 3


def test_half_a_character_at_the_end_belongs_to_its_tokens() -> None:
    ids = [*b"ab", *"猫".encode()[:2]]
    held = Row(0, Sampling(), [], frozenset(), (), output_ids=ids, output_logprobs=[None] * 4)
    response = ActiveRequest(held, FakePrompt(), Detokenizer(Bytes.decode)).response()  # type: ignore[arg-type]
    assert response.text == "ab\ufffd"
    assert [(t.start, t.end) for t in response.tokens] == [(0, 1), (1, 2), (2, 3), (2, 3)]

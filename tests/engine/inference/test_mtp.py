"""Speculative decoding by a checkpoint's MTP head: loading, hidden states, drafts that never change
an answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import tiny
import torch
from asking import Always, Never, ask, counted, generated_ids, picture
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl.backends.local import load
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner
from qwen_vl_suite.qwenvl.inference.mrope import PositionRule
from qwen_vl_suite.qwenvl.inference.speculative import mtp
from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
from qwen_vl_suite.qwenvl.inference.speculative.mtp import DRAFT_TOKENS, MTPDraft
from qwen_vl_suite.qwenvl.models.footprint import estimated_bytes
from qwen_vl_suite.qwenvl.models.model_tensors import model_bytes
from qwen_vl_suite.qwenvl.models.patches import mtp_head
from qwen_vl_suite.qwenvl.types import LocalSpec

FAMILIES = ("qwen3_5", "qwen3_5_moe")
REQUESTS = [
    ask("what is it?", picture(50, 80), tokens=20),
    ask("only words", tokens=30),
    ask("long", picture(64, 64), tokens=30),
]


@pytest.fixture(params=FAMILIES)
def subject(backend: Any, request: pytest.FixtureRequest) -> Any:
    made = backend(request.param, mtp=True)
    made.prefix_cache.clear()
    made.batch_limits, made.adaptive_lookup, made.adaptive_mtp = BatchLimits(), Never(), Never()
    return made


def scripted_drafts(answer: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """MTP drafts that run the head, and then take of ``answer`` as many right tokens as chance
    has it, and wrong ones behind them."""
    compute, random_draw = MTPDraft.draft, random.Random(5)
    append = MTPDraft.append

    def counted_append(self: Any, hidden: torch.Tensor, tokens: torch.Tensor) -> None:
        # The first call is for the prompt, and ends with the first token of the answer.
        self.done = self.done + len(tokens) if hasattr(self, "done") else 1
        append(self, hidden, tokens)

    def draft(self: Any, count: int = DRAFT_TOKENS) -> list[int]:
        assert len(compute(self, count)) == count
        right = answer[self.done :][:count]
        wrong = random_draw.randrange(count + 1)
        return [*right[:wrong], *(random_draw.randrange(100, 200) for _ in right[wrong:])]

    monkeypatch.setattr(MTPDraft, "append", counted_append)
    monkeypatch.setattr(MTPDraft, "draft", draft)


@pytest.mark.parametrize(
    ("step_policy", "subject"),
    [("as on CUDA", "qwen3_5"), ("as on the CPU", "qwen3_5_moe")],
    indirect=True,
)
@pytest.mark.usefixtures("step_policy")
def test_mtp_drafts_never_change_an_answer(subject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the head's own drafts, and with drafts that are right up to a token; the second time
    behind a cached prefix; and with drafts by prompt lookup in between."""
    alone = [subject.generate([question])[0] for question in REQUESTS]
    answers = [generated_ids(subject, question) for question in REQUESTS]
    for subject.adaptive_lookup in (Never(), Always()):
        subject.adaptive_mtp = Always()
        assert [subject.generate([question])[0] for question in REQUESTS] == alone
        for question, expected, ids in zip(REQUESTS, alone, answers, strict=True):
            subject.prefix_cache.clear()
            with pytest.MonkeyPatch.context() as patch, counted() as counts:
                scripted_drafts(ids, patch)
                assert [subject.generate([question])[0] for _ in range(2)] == [expected] * 2
            assert counts["tokens"] > 1.5 * counts["verifications"] > 0
    for rows in (1, 3):
        subject.batch_limits = BatchLimits(rows=rows)
        assert subject.generate(REQUESTS) == alone


@pytest.mark.usefixtures("step_policy")
def test_the_head_gets_the_models_hidden_states(
    subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every state with the token that followed it, once and in order, whatever was drafted."""
    question = REQUESTS[1]
    monkeypatch.setattr(subject.chat_template, "eos_ids", frozenset())
    answer = generated_ids(subject, question)
    fed: list[tuple[torch.Tensor, torch.Tensor]] = []
    scripted_drafts(answer, monkeypatch)
    append = MTPDraft.append

    def recorded_append(self: MTPDraft, hidden: torch.Tensor, tokens: torch.Tensor) -> None:
        fed.append((hidden, tokens))
        append(self, hidden, tokens)

    monkeypatch.setattr(MTPDraft, "append", recorded_append)
    subject.adaptive_lookup, subject.adaptive_mtp = Sometimes(), Sometimes()
    with counted() as counts:
        subject.generate([question])
    assert counts["launches"] > 2 and counts["verifications"] > 2
    prompt = subject.chat_template.encode(question, [])
    whole = [*prompt, *answer]
    with torch.no_grad():
        runner = ModelRunner(subject.model, PositionRule({}, 2))
        runner.prefill(whole, [])
    states, tokens = (torch.cat(part) for part in zip(*fed, strict=True))
    count = min(len(tokens), len(whole) - 1)  # a step may have been in flight at the end
    assert count > len(whole) - 10
    assert tokens[:count].tolist() == whole[1:][:count]
    expected = mtp_head.of(subject.model).last_hidden[0][0, :count]  # type: ignore[union-attr]
    assert torch.allclose(states[:count], expected, atol=1e-3)


class Sometimes(AdaptiveSpeculation):
    """Pays from time to time."""

    asked = 0

    @property
    def pays(self) -> bool:
        self.asked += 1
        return self.asked % 9 < 4


def test_a_draft_equals_that_of_the_official_layer(subject: Any) -> None:
    modeling = pytest.importorskip("transformers.modeling_layers")
    if not hasattr(modeling, "MtpModel"):
        pytest.skip("this transformers has no MTP layer")
    from transformers.cache_utils import MtpCache

    config = subject.model.config.get_text_config()
    config.num_mtp_layers, config.mtp_layer_types = 1, ["full_attention"]
    ids = [101, 102, 103, 104, 105, 106, 107]
    try:
        official = modeling.MtpModel.from_pretrained(subject.model)
        with torch.no_grad():
            runner = ModelRunner(subject.model, PositionRule({}, 2))
            runner.prefill(ids, [])
            states = mtp_head.of(subject.model).last_hidden[0]  # type: ignore[union-attr]
            ours = mtp.new_draft(runner, ids, 108)
            positions = torch.arange(1, 8)
            theirs, _, _ = official(
                input_ids=torch.tensor([[*ids[1:], 108]]),
                last_hidden_states=states,
                attention_mask=None,
                position_ids=positions[None],
                mtp_cache=MtpCache(config=config.get_mtp_config()),
            )
            assert ours is not None
            assert ours.draft(1) == theirs[0].tolist()
    finally:
        del config.num_mtp_layers, config.mtp_layer_types


def test_the_head_counts_as_and_moves_with_the_weights(checkpoint: Any) -> None:
    folder = checkpoint("qwen3_5", mtp=True)
    spec = LocalSpec(str(folder), device="cpu")
    subject = load(spec)
    part = mtp_head.of(subject.model)
    assert part is not None
    assert model_bytes(subject.model) - model_bytes(part) > 0.5 * model_bytes(subject.model)
    plain = checkpoint("qwen3_5")
    more = estimated_bytes(folder, spec) - estimated_bytes(plain, LocalSpec(str(plain)))
    assert more == sum(weight.nbytes for weight in part.parameters())
    subject.adaptive_lookup, subject.adaptive_mtp = Never(), Never()
    expected_answers = subject.generate(REQUESTS[:1])
    subject.adaptive_mtp = Always()
    for back in (subject.offload, subject.release):
        with counted() as counts:
            assert subject.generate(REQUESTS[:1]) == expected_answers
        assert counts["verifications"]
        back()


def test_interrupts_of_two_models_in_turn(backend: Callable[..., Any]) -> None:
    pair = [backend(name, mtp=True) for name in FAMILIES]
    for subject in pair:
        subject.adaptive_lookup, subject.adaptive_mtp, subject.batch_limits = (
            Never(),
            Never(),
            BatchLimits(),
        )
    expected_answers = [subject.generate(REQUESTS[:2]) for subject in pair]

    for subject in pair:
        subject.adaptive_mtp = Always()
    for _ in range(2):
        for subject, expected in zip(pair, expected_answers, strict=True):
            with pytest.raises(Interrupt):
                subject.generate(REQUESTS[:1], InterruptAt(8))
            assert [subject.generate([one])[0] for one in REQUESTS[:2]] == expected


def test_sampled_rows_have_no_mtp_draft(subject: Any) -> None:
    subject.adaptive_mtp = Always()
    with counted() as counts:
        subject.generate([ask("warm", temperature=1.0, seed=2, tokens=20)])
        subject.generate([ask("again", repetition_penalty=1.1, tokens=20)])
    assert counts["launches"] and not counts["verifications"]


@pytest.mark.parametrize("damage", ["other names", "other shapes", "eight bits"])
def test_a_head_of_an_unknown_form_is_not_loaded(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    if not tiny.available("qwen3_5"):
        pytest.skip("this transformers has no qwen3_5")
    folder = tiny.make("qwen3_5", tmp_path / "damaged", mtp=True)
    weights = load_file(folder / "model.safetensors")
    fused = weights.pop("mtp.fc.weight")
    if damage == "other names":
        weights["mtp.fc.weight_packed"] = fused
    elif damage == "eight bits":
        weights["mtp.fc.weight"] = fused.to(torch.float8_e4m3fn)
        weights["mtp.fc.weight_scale_inv"] = torch.ones(1, 1)
    else:
        weights["mtp.fc.weight"] = fused[:, :-1].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    read = MagicMock(side_effect=AssertionError("read, only to be thrown away"))
    monkeypatch.setattr(mtp_head, "_read", read)
    subject = load(LocalSpec(str(folder), device="cpu"))
    assert mtp_head.of(subject.model) is None
    subject.adaptive_lookup = subject.adaptive_mtp = Always()
    assert subject.generate(REQUESTS[:1])[0].text


def test_a_head_that_will_not_be_loaded_does_not_count(
    tmp_path: Path, checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    plain = checkpoint("qwen3_5")
    without = estimated_bytes(plain, LocalSpec(str(plain), device="cpu"))
    folder = checkpoint("qwen3_5", mtp=True)
    assert estimated_bytes(folder, LocalSpec(str(folder), device="cpu")) > without
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    split = LocalSpec(str(folder), device="split", precision="fp32")
    assert estimated_bytes(folder, split) == without
    quantised = tiny.make("qwen3_5", tmp_path / "quantised", mtp=True)
    weights = load_file(quantised / "model.safetensors")
    weights["mtp.fc.weight"] = weights["mtp.fc.weight"].to(torch.float8_e4m3fn)
    save_file(weights, quantised / "model.safetensors", metadata={"format": "pt"})
    assert estimated_bytes(quantised, LocalSpec(str(quantised), device="cpu")) == without

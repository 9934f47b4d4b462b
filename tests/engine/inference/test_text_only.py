"""Models that read text only: the tokens of transformers' ``generate`` by all fast paths, thoughts
that a template leaves to the model, and pictures refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from asking import Always, ask, counted, picture, recorded_ids
from fake_cuda_graphs import FakeCudaGraphs
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.checkpoints import inspection
from qwen_vl_suite.qwenvl.errors import UnsuitableModel
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.inference.fast_path_check import FastPathCheck
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.types import Generated, LocalSpec, Message, Request, Sampling
from safetensors.torch import load_file, save_file

ASKED = [
    ask("Only words.", tokens=24),
    ask("a red circle and a blue square in the picture " * 4, tokens=30),
    Request.ask((), "Write a prompt.", system="Be brief.", sampling=Sampling(9)),
    ask("a", tokens=16),
]


def reference(backend: LocalBackend, folder: Path) -> Callable[[Request], list[int]]:
    """``generate`` of the model as the library loads it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    template = backend.chat_template

    def answer(request: Request) -> list[int]:
        ids = torch.tensor([backend.prompt(request).ids])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request.sampling.max_new_tokens,
            do_sample=False,
            repetition_penalty=1.0,  # else the checkpoint's own applies
            eos_token_id=sorted(template.eos_ids),
            suppress_tokens=sorted(template.media_token_ids),
            pad_token_id=template.pad_id,
        )
        return [token for token in out[0, ids.shape[1] :].tolist() if token not in template.eos_ids]

    return answer


def answers(backend: LocalBackend, asked: list[Request]) -> list[list[int]]:
    with recorded_ids() as found:
        backend.generate(asked)
    return [found[index] for index in range(len(asked))]


@pytest.mark.parametrize("model_type", tiny.TEXT_CONFIGS)
def test_tokens_are_those_of_the_library(
    checkpoint: Callable[..., Path],
    backend: Callable[..., LocalBackend],
    cuda_policy: list[FakeCudaGraphs],
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
) -> None:
    """With few slots, steps as on CUDA, and drafts that are verified."""
    loaded, folder = backend(model_type), checkpoint(model_type)
    assert not loaded.plain_reason and inspection.require_complete(folder).family
    expected = [*map(reference(loaded, folder), ASKED)]
    assert len({tuple(tokens) for tokens in expected}) == len(ASKED) and min(map(len, expected))
    monkeypatch.setattr(loaded, "batch_limits", BatchLimits(rows=2))
    assert answers(loaded, ASKED) == expected
    assert cuda_policy[0].replays or not tiny.can_be_captured(model_type)
    monkeypatch.setattr(loaded, "adaptive_lookup", Always())
    assert answers(loaded, ASKED[::-1]) == expected[::-1]


def test_mtp_drafts_change_nothing(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint("qwen3_5_text", mtp=True)
    loaded = load(LocalSpec(str(folder), device="cpu"))
    monkeypatch.setattr(loaded, "adaptive_mtp", Always())
    with counted() as counts:
        assert answers(loaded, ASKED[:1]) == [reference(loaded, folder)(ASKED[0])]
    assert counts["verifications"]


@pytest.mark.parametrize("model_type", ["qwen3", "qwen3_5_text"])
def test_a_next_turn_goes_on_behind_what_was_read(
    backend: Callable[..., LocalBackend], model_type: str
) -> None:
    loaded = backend(model_type)
    loaded.prefix_cache.clear()
    first = Request.ask((), "a red circle " * 9, sampling=Sampling(12), continues=True)
    (answered,) = loaded.generate([first])
    turns = (
        *first.messages,
        Message("assistant", (Generated(answered.ids),)),
        Message("user", ("And then?",)),
    )
    following = Request(turns, Sampling(12))
    hits = loaded.prefix_cache.hits
    behind = answers(loaded, [following])
    assert loaded.prefix_cache.hits > hits
    loaded.prefix_cache.clear()
    assert answers(loaded, [following]) == behind


def test_a_model_whose_vision_tower_was_taken_out_reads_text(
    checkpoint: Callable[..., Path], backend: Callable[..., LocalBackend], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint("qwen3_5"), tmp_path / "Qwen3.5-text")
    weights = load_file(folder / "model.safetensors")
    left = {name: tensor for name, tensor in weights.items() if "visual" not in name}
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    del config["vision_config"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").unlink()
    loaded = load(LocalSpec(str(folder), device="cpu"))
    assert not loaded.plain_reason and not loaded.family.sees
    assert answers(loaded, ASKED[:2]) == answers(backend("qwen3_5"), ASKED[:2])


def test_fast_paths_are_checked_without_a_picture(backend: Callable[..., LocalBackend]) -> None:
    loaded = backend("qwen3")
    problems = FastPathCheck(loaded, loaded.load_weights(0, Observer()), Observer()).run()
    assert problems and not any(problems.values())


def test_pictures_are_refused_before_a_weight_is_read(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "QwQ-32B"
    folder.symlink_to(checkpoint("qwen2"))
    loaded = load_lazily(folder)
    with pytest.raises(UnsuitableModel, match=r"QwQ-32B .*reads text only.*Qwen-VL Prompt"):
        run.answer(loaded, describe(), [picture(64, 64)])
    assert loaded.model is None
    shown, said = loaded.generate([ask("What is it?", picture(64, 64)), ask("Hello")])
    assert isinstance(shown.error, UnsuitableModel) and said.text and not said.error


def load_lazily(folder: Path) -> LocalBackend:
    from qwen_vl_suite.qwenvl.backends.local import open_checkpoint

    return open_checkpoint(LocalSpec(str(folder), device="cpu"))


def test_a_thought_that_the_template_leaves_to_the_model_is_begun(
    backend: Callable[..., LocalBackend],
) -> None:
    loaded = backend("qwen3", "open")
    template = loaded.chat_template
    assert [template.thinks(wish) for wish in (None, True, False)] == [True, True, False]
    for wish, ending in ((None, "<think>\n"), (False, "<think>\n\n</think>\n\n")):
        request = Request.ask((), "Hello", thinking=wish)
        assert template.decode(loaded.prompt(request).ids).endswith(f"assistant\n{ending}")
    limited = Request.ask((), "Hello", sampling=Sampling(5, max_thinking_tokens=6))
    (answer,) = loaded.generate([limited])
    assert answer.thinking and "think>" not in answer.text


def test_sampling_without_pictures_is_the_makers_own() -> None:
    class Talks:
        def __init__(self, model_type: str, thinks: bool):
            self.family, self._thinks = FAMILIES[model_type], thinks

        def thinks(self, *_wish: Any) -> bool:
            return self._thinks

    def values(model_type: str, thinks: bool, text_only: bool) -> tuple[float, ...]:
        backend: Any = Talks(model_type, thinks)
        found = run.sampling_for(backend, describe(), text_only=text_only)
        penalties = found.presence_penalty, found.repetition_penalty
        return found.temperature, found.top_p, found.top_k, *penalties

    assert values("qwen3_vl", False, True) == (1.0, 1.0, 40, 2.0, 1)
    assert values("qwen3_vl", False, False) == (0.7, 0.8, 20, 1.5, 1)
    assert values("qwen3_5", True, True) == (1.0, 0.95, 20, 1.5, 1)
    assert values("qwen3_5", True, False) == values("qwen3", True, True) == (0.6, 0.95, 20, 0, 1)
    assert values("qwen3", False, True) == (0.7, 0.8, 20, 0, 1)
    assert values("qwen2", False, True) == (0.7, 0.8, 20, 0, 1.05)
    assert values("qwen2", True, True) == (0.6, 0.95, 20, 0, 1)

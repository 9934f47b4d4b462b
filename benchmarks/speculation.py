"""Speculative decoding: prompt lookup on a list of boxes, and the cost of verifying drafts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .figures import Figure, Growth, compare, measure_growth
from .models import Model
from .speed import generated_ids, picture


def _boxes(count: int) -> str:
    draw = random.Random(count)
    lines = []
    for _ in range(count):
        box = [draw.randrange(1000) for _ in range(4)]
        lines.append(f'\t{{"bbox_2d": {box}, "label": "{draw.choice(["cat", "dog", "bird"])}"}}')
    return "```json\n[\n" + ",\n".join(lines) + "\n]\n```"


@contextmanager
def _scripted_output(backend: Any, words: str) -> Iterator[int]:
    """Makes the model generate ``words``; yields their number of tokens. It computes all that it
    always does, then the logits are overwritten: random weights would write nothing that repeats as
    real answers do."""
    script = backend.chat_template.tokenizer.encode(words, add_special_tokens=False)
    begins: list[int] = []

    def said(_module: Any, _args: Any, given: dict[str, Any], out: Any) -> None:
        places = given["position_ids"][0]
        if out.logits.shape[1] == 1 and places.shape[1] > 1:
            begins[:] = [int(places[0, -1])]  # a prompt, or its opening, has been read
        for place in range(out.logits.shape[1]):
            at = int(places[0, place - out.logits.shape[1]]) - begins[0]
            out.logits[0, place, script[at % len(script)]] = 1e4

    hook = backend.model.register_forward_hook(said, with_kwargs=True)
    try:
        yield len(script)
    finally:
        hook.remove()


def prompt_lookup(name: str, wanted: float | None, model: Model, boxes: int) -> Figure:
    """Greedy decoding of a single request whose answer is a list of boxes, as in grounding."""
    from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    class Never(AdaptiveSpeculation):
        @property
        def pays(self) -> bool:
            return False

    backend, own = model.backend, model.backend.adaptive_lookup
    words = _boxes(boxes)

    def answer(worth: AdaptiveSpeculation) -> list[list[int]]:
        backend.adaptive_lookup = worth
        return generated_ids(backend, [asked])

    try:
        with _scripted_output(backend, words) as length:
            asked = Request.ask(
                (picture(256, 0),), "Locate every animal.", sampling=Sampling(length)
            )
            learnt = AdaptiveSpeculation()
            figure = compare(
                name,
                lambda: answer(learnt),
                lambda: answer(Never()),
                wanted=wanted,
                repeats=2,
                note="decoding with prompt lookup against without; what the model says is scripted",
            )
            assert backend.chat_template.decode(answer(learnt)[0]).strip() == words.strip()
    finally:
        backend.adaptive_lookup = own
    return figure


@torch.no_grad()
def cost_of_verifying(
    name: str, wanted: float | None, model: Model, lengths: Sequence[int]
) -> Growth:
    """Cost of a forward pass over several tokens of one row."""
    from qwen_vl_suite.qwenvl.inference.kv_cache import SlotCache
    from qwen_vl_suite.qwenvl.inference.loaded_model import model_runner

    backend = model.backend
    runner = model_runner(backend)
    prefill, position = runner.prefill(list(range(100, 300)), [])
    kv_cache = SlotCache(runner.device)
    kv_cache.add([prefill.cache], [prefill.length], [300])

    def work(index: int) -> None:
        kv_cache.reserve(lengths[index])
        tokens = torch.full((1, lengths[index]), 105)
        runner.step(kv_cache, tokens, torch.tensor([position]))

    work(0)
    return measure_growth(name, wanted, "tokens", lengths, work, repeats=12)

"""Prompt lookup: a list of boxes as real models write them, with guesses and without."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .figures import Figure, compare
from .speed import _model, _picture, _tokens


def _boxes(count: int) -> str:
    draw = random.Random(count)
    lines = []
    for _ in range(count):
        box = [draw.randrange(1000) for _ in range(4)]
        lines.append(f'\t{{"bbox_2d": {box}, "label": "{draw.choice(["cat", "dog", "bird"])}"}}')
    return "```json\n[\n" + ",\n".join(lines) + "\n]\n```"


@contextmanager
def _saying(backend: Any, words: str) -> Iterator[int]:
    """The model computes all that it always does, and then says ``words``, of so many tokens:
    random weights would say nothing that repeats as real answers do."""
    script = backend.template.tokenizer.encode(words, add_special_tokens=False)
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


def guessing(model_type: str = "qwen3_vl", boxes: int = 12) -> Figure:
    """A list of boxes, greedy, alone: the answer that grounding and reading give."""
    from qwen_vl_suite.qwenvl.guessing import Worth
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    class Never(Worth):
        @property
        def pays(self) -> bool:
            return False

    backend, _ = _model(model_type)
    words = _boxes(boxes)

    def answer(worth: Worth) -> list[list[int]]:
        backend.worth = worth
        return _tokens(backend, [asked])

    with _saying(backend, words) as length:
        asked = Request((_picture(256, 0),), "Locate every animal.", sampling=Sampling(length))
        learnt = Worth()
        figure = compare(
            f"a list of {boxes} boxes ({length} tokens), {model_type}",
            lambda: answer(learnt),
            lambda: answer(Never()),
            wanted=1,
            note="guesses by prompt lookup against none; what the model says is scripted",
        )
        assert backend.template.decode(answer(learnt)[0]).strip() == words.strip()
    return figure


def cost_of_a_check(model_type: str = "qwen3_vl") -> dict[str, Any]:
    """Seconds of a pass over 1 to 17 tokens of one row."""
    import time

    from qwen_vl_suite.qwenvl.decoder import Decoder
    from qwen_vl_suite.qwenvl.slots import Slots

    backend, _ = _model(model_type)
    decoder = Decoder(backend.model, backend.template.image_id, 2)
    seconds = {}
    with torch.no_grad():
        read, position = decoder.read(list(range(100, 300)), [])
        slots = Slots(decoder.device)
        slots.add([read.cache], [read.length], [300])
        for new in (1, 2, 3, 5, 9, 17):
            slots.make_room(new)
            tokens = torch.full((1, new), 105)
            times = []
            for _ in range(12):
                start = time.perf_counter()
                decoder.step(slots, tokens, torch.tensor([position]))
                times.append(time.perf_counter() - start)
            seconds[new] = sorted(times)[len(times) // 2]
    return {"tokens": list(seconds), "seconds": list(seconds.values())}

"""Constrained decoding: what a grammar's masks cost over a real vocabulary, and what is saved where
it leaves no choice."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from .figures import Figure, compare
from .models import SHAPES, Model, full_in, open_model, write
from .speed import generated_ids, picture, questions

VOCABULARY = 151_936
"""Tokens of Qwen3-VL."""

# As its tokenizer cuts lists of boxes: what a grammar forces is a handful of tokens.
_PIECES = ('{"', "bbox", '":', "Ġ[", "],", 'Ġ"', "label", '"},', 'Ġ{"', "cat", "dog")


@cache
def model() -> Model:
    """The small Qwen3-VL with a vocabulary of the real size."""
    return of_vocabulary(SHAPES["qwen3_vl"], VOCABULARY)


def on_card() -> Model:
    """Qwen3-VL 2B on a card, with as many tokens."""
    folder = write("qwen3_vl", None)
    grow_tokenizer(folder, VOCABULARY)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["vocab_size"] = VOCABULARY
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return full_in(folder, "2B", endless=False, device="cuda")


def of_vocabulary(shape: dict[str, Any], size: int) -> Model:
    """A Qwen3-VL of ``shape`` with so many tokens; its answers can end."""
    shape = json.loads(json.dumps(shape))
    shape["text_config"] |= {"vocab_size": size, "tie_word_embeddings": True}
    folder = write("qwen3_vl", {**shape, "tie_word_embeddings": True})
    grow_tokenizer(folder, size)
    return open_model(folder, endless=False, device="cpu", precision="fp32")


def grow_tokenizer(folder: Path, size: int) -> None:
    """Gives the tokenizer in ``folder`` the pieces that lists of boxes are made of, and made-up
    words up to ``size`` tokens."""
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    last = max([*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"])])
    numbers = itertools.count(last + 1)
    for piece in _PIECES:
        for end in range(2, len(piece) + 1):
            if piece[:end] not in vocabulary:
                vocabulary[piece[:end]] = next(numbers)
                merges.append([piece[: end - 1], piece[end - 1]])
    draw = random.Random(5)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    while (number := next(numbers)) < size:
        word = "".join(draw.choices(letters, k=draw.randint(3, 9)))
        vocabulary.setdefault(draw.choice(("", "Ġ")) + word + str(number), number)
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _boxes(count: int) -> Any:
    from qwen_vl_suite.qwenvl import constraints

    number = {"type": "integer", "minimum": 0, "maximum": 1000}
    item = {
        "type": "object",
        "properties": {
            "bbox_2d": {"type": "array", "items": number, "minItems": 4, "maxItems": 4},
            "label": {"enum": ["cat", "dog"]},
        },
        "required": ["bbox_2d", "label"],
        "additionalProperties": False,
    }
    schema = {"type": "array", "items": item, "minItems": count, "maxItems": count}
    return constraints.from_schema(schema)


def masks(name: str, wanted: float | None, held: Model, rows: int, tokens: int) -> Figure:
    """A batch whose answers are held to a schema, against the same one free."""
    backend = held.backend
    free = questions(rows, side=64, tokens=tokens)
    constrained = [replace(request, constraint=_boxes(tokens)) for request in free]

    def form(ours: list[list[int]], theirs: list[list[int]]) -> str:
        assert all(len(ids) == tokens for ids in (*ours, *theirs)), "an answer ended early"
        texts = [backend.chat_template.decode(ids) for ids in ours]
        assert all(text.startswith('[{"bbox_2d": [') for text in texts), texts
        return f"{tokens} tokens each, those that are held in their form"

    return compare(
        name,
        lambda: generated_ids(backend, constrained),
        lambda: generated_ids(backend, free),
        wanted=wanted,
        repeats=3,
        note="tokens a second, held against free",
        agreement=form,
    )


def forced(name: str, wanted: float | None, held: Model, boxes: int) -> Figure:
    """One answer of so many boxes, with forced tokens as drafts against one token at a time."""
    from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    backend = held.backend
    own = backend.adaptive_forced, backend.adaptive_lookup
    asked = Request.ask((picture(64, 0),), "Find all.", sampling=Sampling(60 * boxes))
    asked = replace(asked, constraint=_boxes(boxes))
    never, learnt = AdaptiveSpeculation(), AdaptiveSpeculation()
    never.turn_off()

    def answer(source: AdaptiveSpeculation) -> list[list[int]]:
        backend.adaptive_forced = source
        return generated_ids(backend, [asked])

    try:
        backend.adaptive_lookup = never
        figure = compare(
            name,
            lambda: answer(learnt),
            lambda: answer(never),
            wanted=wanted,
            repeats=2,
            note="forced tokens as drafts against one token at a time",
        )
        written = json.loads(backend.chat_template.decode(answer(learnt)[0]))
        assert len(written) == boxes
    finally:
        backend.adaptive_forced, backend.adaptive_lookup = own
    return figure

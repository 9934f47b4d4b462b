"""Whole requests: batches of images, several questions about one image, and how costs grow."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from . import figures
from .figures import Figure, Growth, compare
from .models import Model, without_patches


def picture(side: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, side // 16, side // 16, generator=generator)
    smooth = torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear")
    return smooth[0].mul(255).to(torch.uint8)


class PlainGenerate:
    """The baseline: one request after another by transformers' ``generate`` and the official
    processor."""

    def __init__(self, model: Model):
        from transformers import AutoImageProcessor

        self.backend, self.model = model.backend, model.backend.model
        self.chat_template = model.backend.chat_template
        self.processor = AutoImageProcessor.from_pretrained(model.folder)
        # Releases before 5 find the image tokens themselves.
        self.takes_token_types = (
            "mm_token_type_ids" in inspect.signature(self.model.forward).parameters
        )

    @torch.no_grad()
    def ask(self, request: Any) -> list[int]:
        pixels = self.processor(images=list(request.images), return_tensors="pt")
        ids = torch.tensor([self.backend.prompt(request).ids])
        inputs = {**pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.takes_token_types:
            inputs["mm_token_type_ids"] = (ids == self.chat_template.image_token_id).long()
        with without_patches(self.model):
            out = self.model.generate(
                **{name: tensor.to(self.model.device) for name, tensor in inputs.items()},
                max_new_tokens=request.sampling.max_new_tokens,
                do_sample=False,
                eos_token_id=None,
                suppress_tokens=sorted(self.chat_template.media_token_ids),
            )
        return out[0, ids.shape[1] :].tolist()


def generated_ids(backend: Any, requests: Sequence[Any]) -> list[list[int]]:
    """The generated token ids of each request: texts may hide differences."""
    return [list(response.ids) for response in backend.generate(requests)]


def questions(count: int, side: int, tokens: int) -> list[Any]:
    """The same question about each of ``count`` images."""
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    return [
        Request.ask((picture(side, seed),), "What is it?", sampling=Sampling(tokens))
        for seed in range(count)
    ]


def batch(
    name: str,
    wanted: float | None,
    model: Model,
    pictures: int,
    side: int,
    tokens: int,
    sample: int | None = None,
) -> Figure:
    """A batch of images against one request after another. ``sample``: the number of images that
    are asked about one by one, and stand for all (each costs the same)."""
    backend, plain = model.backend, PlainGenerate(model)
    asked = questions(pictures, side, tokens)
    one_by_one = asked[:sample]

    def ours() -> list[list[int]]:
        backend.prefix_cache.clear()  # every image is new
        return generated_ids(backend, asked)[: len(one_by_one)]

    def theirs() -> list[list[int]]:
        return [plain.ask(request) for request in one_by_one]

    def warm_up() -> None:
        for request in questions(1, side, 4):
            generated_ids(backend, [request])
            plain.ask(request)

    note = "against plain generate with the official processor, one by one"
    if len(one_by_one) < pictures:
        note += f" ({len(one_by_one)} of them, times {pictures / len(one_by_one):g})"
    return compare(
        name,
        ours,
        theirs,
        wanted=wanted,
        repeats=2,
        scale=pictures / len(one_by_one),
        warm_up=warm_up,
        note=note,
        # In half precision, rounding changes tokens when the shape of a batch changes.
        agreement=None if model.exact else figures.agreement,
    )


def plain_road(
    name: str,
    wanted: float | None,
    scheduler: Model,
    plain: Model,
    pictures: int,
    side: int,
    tokens: int,
) -> Figure:
    """The scheduler against the same checkpoint, opened with ``optimize: off``: transformers' own
    ``generate``, one request after another, with the library's own layers."""
    asked = questions(pictures, side, tokens)

    def answered(model: Model, requests: Sequence[Any]) -> list[list[int]]:
        model.backend.prefix_cache.clear()  # every image is new
        return generated_ids(model.backend, requests)

    def warm_up() -> None:
        for model in (scheduler, plain):
            answered(model, questions(1, side, 4))

    return compare(
        name,
        lambda: answered(scheduler, asked),
        lambda: answered(plain, asked),
        wanted=wanted,
        repeats=2 if pictures > 1 else 5,
        warm_up=warm_up,
        note="against transformers' own generate on the library's own layers, one by one",
    )


def second_question(name: str, wanted: float | None, model: Model, side: int) -> Figure:
    """The first token of a second question about an image that is in the prefix cache."""
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    backend, shown = model.backend, picture(side, 0)
    first = Request.ask((shown,), "What is it?", sampling=Sampling(1))
    second = Request.ask((shown,), "Where is it?", sampling=Sampling(1))

    def ours() -> list[list[int]]:
        return generated_ids(backend, [second])

    def theirs() -> list[list[int]]:
        backend.prefix_cache.clear()
        return generated_ids(backend, [second])

    backend.prefix_cache.clear()
    backend.generate([first])
    return compare(
        name,
        ours,
        theirs,
        wanted=wanted,
        repeats=3,
        note="against reading it anew",
        agreement=None if model.exact else figures.agreement,
    )


def next_turn(name: str, wanted: float | None, model: Model, side: int, turns: int) -> Figure:
    """The first token of a conversation's last turn, of which the prefix cache has all before it.
    Each repeat asks another last question, so that none finds its own in the cache."""
    from qwen_vl_suite.qwenvl.chat import Ask, Attachment, Conversation, ask_all
    from qwen_vl_suite.qwenvl.inference.prefix_cache import PrefixCache
    from qwen_vl_suite.qwenvl.types import Image

    backend, conversation = model.backend, Conversation("Be brief.")
    backend.prefix_cache = held = PrefixCache()

    def reply(text: str, shown: Any = (), tokens: int = 1) -> Any:
        greedy = {"temperature": 0.0, "presence_penalty": 0.0, "repetition_penalty": 1.0}
        ask = Ask(conversation, text, shown, {**greedy, "max_new_tokens": tokens})
        return ask_all(backend, [ask])[0]

    shown = (Attachment(Image(picture(side, 0))),)
    for turn in range(1, turns):
        conversation = reply(f"Question {turn}: what is it?", shown, 16).conversation
        shown = ()
    asked = {"with": 0, "without": 0}

    def last(cache: PrefixCache, which: str, tokens: int = 1) -> list[list[int]]:
        asked[which] += 1
        backend.prefix_cache = cache
        response = reply(f"Question {turns}: what of number {asked[which]}?", (), tokens).response
        assert (response.usage.reused_tokens > 0) == (which == "with")
        return [list(response.ids)]

    first = last(held, "with", 16), last(PrefixCache(), "without", 16)
    assert first[0] == first[1], f"{name}: {first[0]!r} is not {first[1]!r}"
    found = compare(
        name,
        lambda: last(held, "with"),
        lambda: last(PrefixCache(), "without"),
        wanted=wanted,
        repeats=3,
        note="against reading the conversation anew",
    )
    backend.prefix_cache = PrefixCache()
    return found


def three_tasks(
    name: str, wanted: float | None, model: Model, side: int, tokens: int, together: bool
) -> Figure:
    """Three tasks on one image, against three separate runs. ``together``: as one batch, not one
    after another as three nodes do."""
    from qwen_vl_suite.qwenvl.tasks.describe import describe
    from qwen_vl_suite.qwenvl.tasks.ground import ground
    from qwen_vl_suite.qwenvl.tasks.ocr import ocr
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    backend, shown = model.backend, picture(side, 0)
    asked = [
        Request.ask((shown,), task.prompt, system=task.system, sampling=Sampling(tokens))
        for task in (describe("short"), ocr("plain"), ground("cat"))
    ]

    def ours() -> list[list[int]]:
        backend.prefix_cache.clear()
        if together:
            return generated_ids(backend, asked)
        return [generated_ids(backend, [request])[0] for request in asked]

    def theirs() -> list[list[int]]:
        replies = []
        for request in asked:
            backend.prefix_cache.clear()
            replies += generated_ids(backend, [request])
        return replies

    return compare(
        name,
        ours,
        theirs,
        wanted=wanted,
        repeats=2,
        warm_up=lambda: generated_ids(backend, questions(1, side, 4)),
        note="against three separate runs",
    )


def batch_growth(
    name: str, wanted: float | None, model: Model, counts: Sequence[int], side: int, tokens: int
) -> Growth:
    """Cost of a batch by number of images."""
    asked = [questions(count, side, tokens) for count in counts]

    def work(index: int) -> None:
        model.backend.prefix_cache.clear()
        model.backend.generate(asked[index])

    work(0)
    repeats = 1 if model.backend.device.type == "cpu" else 2
    return figures.measure_growth(name, wanted, "pictures", counts, work, repeats)


def picture_growth(name: str, wanted: float | None, model: Model, sides: Sequence[int]) -> Growth:
    """Cost of the first token by number of pixels."""
    asked = [questions(1, side, 1) for side in sides]

    def work(index: int) -> None:
        model.backend.prefix_cache.clear()
        model.backend.generate(asked[index])

    work(0)
    return figures.measure_growth(name, wanted, "pixels", [side * side for side in sides], work)

"""Chat template: a request into token ids with room for its images, and token ids into text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoints import config_checks
from ..checkpoints.files import read_settings
from ..errors import BadOption, IncompleteCheckpoint, UnsupportedModel
from ..types import Family, Request
from ..unicode import well_formed
from .template_sandbox import SandboxedTemplate
from .tokenizer import load_tokenizer

log = logging.getLogger(__name__)

_CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}@START@@IMAGE@@END@{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
"""ChatML, the form all Qwen families share, for fine-tunes uploaded without their template."""

_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>")
"""End of a turn, end of a text, and the start of a next turn."""

THINK_START, THINK_END = "<think>", "</think>"


class ChatTemplate:
    """A checkpoint's tokenizer and chat template. ``eos_ids``: tokens that end an answer."""

    def __init__(self, tokenizer: Any, family: Family, eos_ids: frozenset[int]):
        self.tokenizer = tokenizer
        self._template = SandboxedTemplate(_template_source(tokenizer))
        self.family = family
        self.eos_ids = eos_ids
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(family.image_token)
        if self.image_token_id is None or self.image_token_id == tokenizer.unk_token_id:
            raise IncompleteCheckpoint(
                f"The tokenizer has no {family.image_token} token, so it is not the one of a "
                f"{family.title} model. Download the tokenizer files again.",
                ("tokenizer.json",),
            )
        pad = tokenizer.pad_token_id
        self.pad_id: int = pad if pad is not None else min(eos_ids)
        self.think_end_ids = tuple(tokenizer.encode(THINK_END, add_special_tokens=False))
        self._special = sorted(
            (token for token in tokenizer.get_added_vocab() if token.startswith("<")),
            key=len,
            reverse=True,
        )
        self._thinks = {wish: self._ends_in_thought(wish) for wish in (None, True, False)}

    @classmethod
    def load(cls, path: Path, family: Family, trust_remote_code: bool = False) -> ChatTemplate:
        """Reads tokenizer, template and end-of-text tokens from the checkpoint in ``path``."""
        tokenizer = load_tokenizer(path, trust_remote_code)
        if not tokenizer.chat_template:
            tokenizer.chat_template = _template_from_json(path) or _chatml_template(path, family)
        _check_tokens(path, family, tokenizer)
        return cls(tokenizer, family, _eos_ids(path, tokenizer))

    def thinks(self, wish: bool | None) -> bool:
        """Whether a prompt rendered with this wish (None: the default) ends inside a thought.
        Raises ``BadOption`` where the template has no such choice."""
        can = self._thinks
        if wish is not None and can[True] == can[False] and can[wish] != wish:
            raise BadOption(
                "This checkpoint cannot think before it answers: set thinking to the model's "
                "default, or choose a Thinking checkpoint."
                if wish
                else "This checkpoint always thinks before it answers: set thinking to the "
                "model's default, or choose an Instruct checkpoint."
            )
        return can[wish]

    def _ends_in_thought(self, wish: bool | None) -> bool:
        text = self._render([{"role": "user", "content": "."}], wish)
        return text.rstrip().endswith(THINK_START)

    def _render(self, messages: list[dict[str, Any]], thinking: bool | None) -> str:
        extra = {} if thinking is None else {"enable_thinking": thinking}
        return self._template.render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **self.tokenizer.special_tokens_map,
            **extra,
        )

    def encode(self, request: Request, image_tokens: Sequence[int]) -> list[int]:
        """Token ids of the whole prompt, with as many image tokens for each image as
        ``image_tokens`` says. Images stand before the first words."""
        text = self._render(self._messages(request), request.thinking)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        if ids.count(self.image_token_id) != len(image_tokens):
            raise IncompleteCheckpoint(
                f"The chat template made {ids.count(self.image_token_id)} places for "
                f"{len(image_tokens)} pictures; it is not one for pictures. Replace "
                "chat_template.jinja by the original model's."
            )
        counts = iter(image_tokens)
        expanded: list[int] = []
        for token in ids:
            expanded.extend([token] * next(counts) if token == self.image_token_id else [token])
        return expanded

    def _messages(self, request: Request) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if request.system:
            messages.append({"role": "system", "content": self._escaped(request.system)})
        turns = [(turn.role, turn.text) for turn in request.history]
        for number, (role, text) in enumerate([*turns, ("user", request.prompt)]):
            content: Any = self._escaped(text)
            if number == 0 and request.images:
                images = [{"type": "image"} for _ in request.images]
                content = [*images, {"type": "text", "text": content}]
            messages.append({"role": role, "content": content})
        return messages

    def _escaped(self, text: str) -> str:
        """User text as well-formed Unicode, with control tokens broken up so that the tokenizer
        reads them as text."""
        text = well_formed(text)
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` with special tokens: some families write boxes with them."""
        return self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )


def _template_source(tokenizer: Any) -> str:
    """The tokenizer's template; of several, the one without tools."""
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:
        raise UnsupportedModel(f"The chat template cannot be told: {error}") from error
    if not isinstance(source, str):
        raise UnsupportedModel(
            f"The chat template of this checkpoint is {source!r}, no text. Replace "
            "chat_template.jinja by the original model's."
        )
    return source


def _template_from_json(path: Path) -> str | None:
    file = path / "chat_template.json"
    if not file.is_file():
        return None
    template = read_settings(path, file.name).get("chat_template")
    return template if isinstance(template, str) else None


def _chatml_template(path: Path, family: Family) -> str:
    log.warning("%s has no chat template; the form common to all Qwen models is used.", path.name)
    return (
        _CHATML.replace("@START@", family.vision_start)
        .replace("@IMAGE@", family.image_token)
        .replace("@END@", family.vision_end)
    )


def _check_tokens(path: Path, family: Family, tokenizer: Any) -> None:
    """Raises ``IncompleteCheckpoint`` where the tokenizer is not the one that the model was
    trained with: images would stand in the wrong places, or nowhere."""
    config = config_checks.thinker_config(read_settings(path, "config.json"))
    names = {"image_token_id": family.image_token, "vision_start_token_id": family.vision_start}
    for name, token in names.items():
        theirs = config.get(name, config.get(name.replace("_id", "_index")))
        ours = tokenizer.convert_tokens_to_ids(token)
        if theirs is not None and theirs != ours:
            raise IncompleteCheckpoint(
                f"The tokenizer of {path.name} is another model's: its {token} has the number "
                f"{ours}, and {name} in config.json is {theirs!r}. Download the tokenizer files "
                "and config.json again.",
                ("tokenizer.json", "config.json"),
            )
    words, last = config_checks.vocab_size(config), max(tokenizer.get_vocab().values(), default=0)
    if words is not None and last >= words:
        raise IncompleteCheckpoint(
            f"The tokenizer of {path.name} is another model's: it has the token number {last}, and "
            f"the model knows {words} tokens. Download the tokenizer files again.",
            ("tokenizer.json",),
        )


def _eos_ids(path: Path, tokenizer: Any) -> frozenset[int]:
    """EOS tokens: those that the checkpoint names and those that its tokenizer has, since many a
    fine-tune names only one, and runs on past the others into a made-up turn."""
    special = {tokenizer.convert_tokens_to_ids(token) for token in tokenizer.get_added_vocab()}
    found = _configured_eos_ids(path, "generation_config.json")
    found = found or _configured_eos_ids(path, "config.json") & special
    for token in (tokenizer.eos_token, *_END_TOKENS):
        number = tokenizer.convert_tokens_to_ids(token) if token else None
        if number is not None and number != tokenizer.unk_token_id:
            found.add(number)
    return frozenset(found)


def _configured_eos_ids(path: Path, name: str) -> set[int]:
    if not (path / name).is_file():
        return set()
    config = read_settings(path, name)
    text = config.get("text_config")
    named = config.get("eos_token_id", text.get("eos_token_id") if isinstance(text, dict) else None)
    numbers = named if isinstance(named, list) else [named]
    return {number for number in numbers if type(number) is int and number >= 0}

"""Chat template: a request into token ids with room for its images, and token ids into text."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checkpoints import config_checks
from ..checkpoints.files import read_settings
from ..errors import BadOption, IncompleteCheckpoint, UnsupportedModel
from ..families import model_config
from ..media.interleaving import interleaved
from ..media.spans import Kind, Span, with_sounds
from ..types import Audio, Family, Generated, Image, Part, Request, Video
from ..unicode import well_formed
from .step_times import with_times
from .template_sandbox import SandboxedTemplate
from .tokenizer import load_tokenizer

log = logging.getLogger(__name__)

_CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}@START@@IMAGE@@END@
{%- elif part.type == 'video' -%}@START@@VIDEO@@END@
{%- elif part.type == 'audio' -%}@SOUND@
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
"""ChatML, the form all Qwen families share, for fine-tunes uploaded without their template."""

_END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>")
"""End of a turn, end of a text, and the start of a next turn."""

THINK_START, THINK_END = "<think>", "</think>"

_TYPES: dict[type, Kind] = {Image: "image", Video: "video", Audio: "audio"}
_WORDS: dict[Kind, str] = {"image": "pictures", "video": "videos", "audio": "sounds"}

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"  # characters that Unicode keeps for programs themselves
_PLACE = re.compile(f"{_OPEN}[0-9]+{_CLOSE}")


def _place(number: int) -> str:
    """Stands for an earlier answer while the template is rendered."""
    return f"{_OPEN}{number}{_CLOSE}"


class ChatTemplate:
    """A checkpoint's tokenizer and chat template. ``eos_ids``: tokens that end an answer;
    ``media_token_ids``: those that only stand for pictures, videos and sounds;
    ``image_token_id``: -1 for a model that reads text only.
    ``can_preserve_thinking``: whether the template has the variable that keeps thoughts of earlier
    answers. ``reasoning_efforts``: the words that it compares its variable of that name with, none
    where it takes any; None where it has no such variable."""

    def __init__(
        self, tokenizer: Any, family: Family, eos_ids: frozenset[int], vocabulary: int | None = None
    ):
        """``vocabulary``: how many tokens the model knows; None: those of the tokenizer."""
        self.tokenizer = tokenizer
        self._vocabulary = len(tokenizer) if vocabulary is None else vocabulary
        self._template = SandboxedTemplate(_template_source(tokenizer))
        self.family = family
        self.eos_ids = eos_ids
        self.image_token_id = _image_token_id(tokenizer, family)
        self.token_ids: dict[Kind, int] = {
            "image": self.image_token_id,
            "video": _known_id(tokenizer, family.video_token),
            "audio": _known_id(tokenizer, family.audio_token),
        }
        media = [
            *(family.image_token, family.video_token, family.audio_token),
            *(family.vision_start, family.vision_end),
            *((family.hearing.start, family.hearing.end) if family.hearing else ()),
        ]
        known = set(tokenizer.convert_tokens_to_ids(media)) - {None, tokenizer.unk_token_id}
        self.media_token_ids: frozenset[int] = frozenset(known)
        pad = tokenizer.pad_token_id
        self.pad_id: int = pad if pad is not None else min(eos_ids)
        self.think_end_ids = tuple(tokenizer.encode(THINK_END, add_special_tokens=False))
        self._special = sorted(
            (token for token in tokenizer.get_added_vocab() if token.startswith("<")),
            key=len,
            reverse=True,
        )
        self._to_open: frozenset[bool | None] = frozenset()  # wishes to think, see ``_leaves_open``
        self._to_open = frozenset(wish for wish in (None, True) if self._leaves_open(wish))
        self._thinks = {wish: self._ends_in_thought(wish) for wish in (None, True, False)}
        variables = self._template.variables
        self.can_preserve_thinking = "preserve_thinking" in variables
        self.reasoning_efforts = (
            self._template.compared("reasoning_effort") if "reasoning_effort" in variables else None
        )

    @classmethod
    def load(cls, path: Path, family: Family, trust_remote_code: bool = False) -> ChatTemplate:
        """Reads tokenizer, template and end-of-text tokens from the checkpoint in ``path``."""
        tokenizer = load_tokenizer(path, trust_remote_code)
        if family.retrieval:
            tokenizer.chat_template = f"{_chatml(family)}{family.retrieval.ending}"
        elif not tokenizer.chat_template:
            tokenizer.chat_template = _template_from_json(path) or _chatml_template(path, family)
        _check_tokens(path, family, tokenizer)
        config = model_config(read_settings(path, "config.json"), family)
        eos_ids = _eos_ids(path, family, tokenizer)
        return cls(tokenizer, family, eos_ids, config_checks.vocab_size(config))

    def thinks(self, wish: bool | None, effort: str = "") -> bool:
        """Whether a prompt rendered with this wish (None: the default) ends inside a thought; with
        ``effort``, of ``Request.reasoning_effort``. Raises ``BadOption`` where the template has no
        such choice."""
        can = self._thinks
        if wish is not None and can[True] == can[False] and can[wish] != wish:
            raise BadOption(
                "This checkpoint cannot think before it answers: set thinking to the model's "
                "default, or choose a Thinking checkpoint."
                if wish
                else "This checkpoint always thinks before it answers: set thinking to the "
                "model's default, or choose an Instruct checkpoint."
            )
        if effort:
            return self._ends_in_thought(wish, effort)
        return can[wish]

    def _ends_in_thought(self, wish: bool | None, effort: str = "") -> bool:
        request = Request((), thinking=wish, reasoning_effort=effort)
        text = self._render([{"role": "user", "content": "."}], self._options(request))
        return text.rstrip().endswith(THINK_START)

    def _options(self, request: Request) -> dict[str, Any]:
        """Variables of the template beside the messages. Raises ``BadOption`` for what it lacks."""
        found: dict[str, Any] = {}
        if request.thinking is not None:
            found["enable_thinking"] = request.thinking
        if request.preserve_thinking:
            if not self.can_preserve_thinking:
                raise BadOption(
                    "This checkpoint's chat template drops the thoughts of earlier answers: turn "
                    "preserve_thinking off, or choose a model whose template has it (Qwen3.6)."
                )
            found["preserve_thinking"] = True
        if request.reasoning_effort:
            found["reasoning_effort"] = self._effort(request.reasoning_effort)
        return found

    def _effort(self, wanted: str) -> str:
        known = self.reasoning_efforts
        if known is None:
            raise BadOption(
                "This checkpoint's chat template has no reasoning_effort: leave it at the model's "
                "default, or choose a model whose template has it (Qwen3.8)."
            )
        if known and wanted not in known:
            raise BadOption(
                f"reasoning_effort is {wanted!r}; this checkpoint's chat template knows "
                f"{', '.join(known)}."
            )
        return wanted

    def _leaves_open(self, wish: bool | None) -> bool:
        """Whether the template leaves it to the model to begin its thought: the prompt that turns
        thinking off is the same with an empty thought behind it."""
        if not self.family.leaves_thought_open:
            return False
        asked = [{"role": "user", "content": "."}]
        options = {} if wish is None else {"enable_thinking": wish}
        text, closed = self._render(asked, options), self._render(asked, {"enable_thinking": False})
        return closed.startswith(text) and closed[len(text) :].split() == [THINK_START, THINK_END]

    def _render(
        self, messages: list[dict[str, Any]], options: Mapping[str, Any], answer: bool = True
    ) -> str:
        """``answer``: with the beginning of the model's turn."""
        text = self._template.render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=answer,
            **self.tokenizer.special_tokens_map,
            **options,
        )
        # Begun here, as the model would: then it is a thought like that of any other family.
        begins = answer and options.get("enable_thinking") in self._to_open
        return f"{text}{THINK_START}\n" if begins else text

    def encode(self, request: Request, spans: Sequence[Span], answer: bool = True) -> list[int]:
        """Token ids of the whole prompt, with as many tokens for each picture, video and sound as
        its one of ``spans`` says; without ``answer``, up to the end of the last message."""
        text = self._render(self._messages(request), self._options(request), answer)
        text = with_times(text, spans, self.family)
        generated = _generated(request)
        pieces = _PLACE.split(text)
        if _PLACE.findall(text) != [_place(number) for number in range(len(generated))]:
            raise UnsupportedModel(
                "The chat template of this checkpoint leaves out earlier answers, so it cannot "
                "hold a conversation. Replace chat_template.jinja by the original model's."
            )
        ids = self.tokenize(pieces[0])
        for (part_ids, is_thought), piece in zip(generated, pieces[1:], strict=True):
            # A thought's tokens hold its end mark, and those of its answer the blanks before it.
            is_held = is_thought and piece.strip() == THINK_END
            ids += [*part_ids, *([] if is_held else self.tokenize(piece))]
        return self._expanded(ids, spans)

    def without_thought(self, ids: Sequence[int]) -> list[int]:
        """A prompt that ends inside a thought, with that thought left empty: the form in which the
        makers' templates turn thinking off."""
        opening = self.tokenize(f"{THINK_START}\n")
        if list(ids[-len(opening) :]) == opening:
            empty = f"{THINK_START}\n\n{THINK_END}\n\n"
            return [*ids[: -len(opening)], *self.tokenize(empty)]
        return [*ids, *self.think_end_ids]

    def tokenize(self, text: str) -> list[int]:
        """``text`` alone; a token that is special stays one."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _expanded(self, ids: list[int], spans: Sequence[Span]) -> list[int]:
        """``ids`` with each token that stands for a medium repeated as ``spans`` say."""
        places = [*self._places(spans)]
        kinds = {number: kind for kind, number in self.token_ids.items()}
        if [token for token in ids if token in kinds] != [token for token, _ in places]:
            kind = spans[0].kind if spans else "image"
            wanted = sum(token == self.token_ids[kind] for token, _ in places)
            raise IncompleteCheckpoint(
                f"The chat template made {ids.count(self.token_ids[kind])} places for {wanted} "
                f"{_WORDS[kind]}; it is not one for {_WORDS[kind]}. Replace chat_template.jinja by "
                "the original model's."
            )
        following = iter(places)
        expanded: list[int] = []
        for token in ids:
            expanded.extend(next(following)[1] if token in kinds else [token])
        return expanded

    def _places(self, spans: Sequence[Span]) -> Iterator[tuple[int, list[int]]]:
        """For each token of a rendered prompt that stands for a medium that token, and those that
        it becomes."""
        for span, sound in with_sounds(spans):
            token = self.token_ids[span.kind]
            if sound is None:
                yield from ((token, [token] * count) for count in span.runs)
                continue
            hearing = self.family.hearing
            assert hearing is not None
            start, end = self.tokenizer.convert_tokens_to_ids([hearing.start, hearing.end])
            made = [start]
            for kind, count in interleaved(span, sound, hearing):
                made += [self.token_ids[kind]] * count
            yield token, [*made, end]

    def _messages(self, request: Request) -> list[dict[str, Any]]:
        """In the form that chat templates read."""
        places = map(_place, itertools.count())
        messages: list[dict[str, Any]] = []
        for message in request.messages:
            thoughts = [
                {"reasoning_content": next(places)}
                for part in message.parts
                if _shows_thought(part, request)
            ]
            thought = thoughts[0] if thoughts else {}
            content = [self._content(part, places) for part in message.parts]
            # Many a template can only read text where no picture is wanted.
            if all("text" in part for part in content):
                whole = "".join(part["text"] for part in content)
                messages.append({"role": message.role, "content": whole, **thought})
            else:
                messages.append({"role": message.role, "content": content})
        return messages

    def _content(self, part: Part, places: Iterator[str]) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": self.escaped(part)}
        if isinstance(part, Generated):
            return {"type": "text", "text": next(places)}
        return {"type": _TYPES[type(part)]}

    def escaped(self, text: str) -> str:
        """User text as well-formed Unicode, with control tokens broken up so that the tokenizer
        reads them as text."""
        text = well_formed(text).replace(_OPEN, "\ufffd")
        for token in self._special:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def reads(self, ids: Sequence[int], text: str) -> bool:
        """Whether an answer or a thought of ``ids`` says ``text``; False where they hold what no
        answer is made of: numbers beyond the vocabulary, and tokens that end turns or stand for
        media."""
        if not all(0 <= number < self._vocabulary for number in ids):
            return False
        if not {*self.eos_ids, *self.media_token_ids}.isdisjoint(ids):
            return False
        said = self.decode(ids).strip()
        return text.strip() in (said, said.removesuffix(THINK_END).strip())

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` with special tokens: some families write boxes with them."""
        return self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )


def _shows_thought(part: Part, request: Request) -> bool:
    return request.preserve_thinking and isinstance(part, Generated) and bool(part.thought)


def _generated(request: Request) -> list[tuple[tuple[int, ...], bool]]:
    """Token ids of earlier answers, each behind its thought where that is shown; whether they are a
    thought's."""
    found: list[tuple[tuple[int, ...], bool]] = []
    for part in (part for message in request.messages for part in message.parts):
        if isinstance(part, Generated):
            if _shows_thought(part, request):
                found.append((part.thought, True))
            found.append((part.ids, False))
    return found


def _known_id(tokenizer: Any, token: str) -> int:
    """-1 of a token that the tokenizer does not have."""
    found: int | None = tokenizer.convert_tokens_to_ids(token)
    return -1 if found is None or found == tokenizer.unk_token_id else found


def _image_token_id(tokenizer: Any, family: Family) -> int:
    if not family.sees:
        return -1
    found = _known_id(tokenizer, family.image_token)
    if found < 0:
        raise IncompleteCheckpoint(
            f"The tokenizer has no {family.image_token} token, so it is not the one of a "
            f"{family.title} model. Download the tokenizer files again.",
            ("tokenizer.json",),
        )
    return found


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
    return _chatml(family)


def _chatml(family: Family) -> str:
    return (
        _CHATML.replace("@START@", family.vision_start)
        .replace("@IMAGE@", family.image_token)
        .replace("@VIDEO@", family.video_token)
        .replace("@END@", family.vision_end)
        .replace("@SOUND@\n", _sound_place(family))
    )


def _sound_place(family: Family) -> str:
    hearing = family.hearing
    return f"{hearing.start}{family.audio_token}{hearing.end}" if hearing else ""


def _check_tokens(path: Path, family: Family, tokenizer: Any) -> None:
    """Raises ``IncompleteCheckpoint`` where the tokenizer is not the one that the model was
    trained with: images would stand in the wrong places, or nowhere."""
    config = model_config(read_settings(path, "config.json"), family)
    names = {"image_token_id": family.image_token, "vision_start_token_id": family.vision_start}
    if not family.sees:  # it may name tokens that the vision-language model has
        names = {}
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


def _eos_ids(path: Path, family: Family, tokenizer: Any) -> frozenset[int]:
    """EOS tokens: those that the checkpoint names and those that its tokenizer has, since many a
    fine-tune names only one, and runs on past the others into a made-up turn."""
    special = {tokenizer.convert_tokens_to_ids(token) for token in tokenizer.get_added_vocab()}
    config = model_config(read_settings(path, "config.json"), family)
    found = set[int]()
    if (path / "generation_config.json").is_file():
        found = _configured_eos_ids(read_settings(path, "generation_config.json"))
    found = found or _configured_eos_ids(config) & special
    for token in (tokenizer.eos_token, *_END_TOKENS):
        number = tokenizer.convert_tokens_to_ids(token) if token else None
        if number is not None and number != tokenizer.unk_token_id:
            found.add(number)
    return frozenset(found)


def _configured_eos_ids(config: Mapping[str, Any]) -> set[int]:
    text = config.get("text_config")
    named = config.get("eos_token_id", text.get("eos_token_id") if isinstance(text, dict) else None)
    numbers = named if isinstance(named, list) else [named]
    return {number for number in numbers if type(number) is int and number >= 0}

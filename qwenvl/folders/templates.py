"""Caption templates: what the model wrote among words that are given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import BadOption
from ..prompt_writing.wishes import stands_in
from .listing import Item

NAMES = ("text", "tags", "name", "folder", "trigger")
"""What stands in braces in a template: the reply; tags of the same picture, which are asked for
besides; the file's name without its suffix; its folder's name (see ``Item.folder``); trigger
words."""

_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Template:
    """``pattern``: the caption, with ``NAMES`` in braces, and braces themselves doubled.
    ``trigger``: words for ``{trigger}``; where the pattern has no place for them they stand before
    the caption, unless it begins with them. ``prefix`` and ``suffix`` stand around all of it as
    they are. Raises ``BadOption``."""

    pattern: str = "{text}"
    trigger: str = ""
    prefix: str = ""
    suffix: str = ""

    def __post_init__(self) -> None:
        for found in _FIELD.finditer(self.pattern):
            if found[0] in ("{", "}"):
                raise BadOption(
                    f"The template {self.pattern!r} has a single {found[0]!r}. Write {{{{ or }}}} "
                    "for a brace itself."
                )
            if found[0] not in ("{{", "}}") and found[1] not in NAMES:
                there = ", ".join(f"{{{name}}}" for name in NAMES)
                raise BadOption(f"The template has {found[0]}; there are only {there}.")
        if not {"text", "tags"} & self.names:
            raise BadOption(
                f"The template {self.pattern!r} has neither {{text}} nor {{tags}}: nothing of what "
                "the model writes would be in the caption."
            )
        if "trigger" in self.names and not self.trigger.strip():
            raise BadOption("The template has {trigger}, but no trigger words are given.")

    @property
    def names(self) -> set[str]:
        return {found[1] for found in _FIELD.finditer(self.pattern) if found[1]}

    @property
    def is_plain(self) -> bool:
        """Whether the caption is the reply itself."""
        return self == Template()

    def filled(self, item: Item, text: str, tags: str = "", behind: str = "") -> str:
        """The caption of ``item``. Braces in what is filled in stay as they are. ``behind``: a
        caption that it is put behind, whose prefix and trigger words count for both."""
        values = {**self._given(item), "text": text.strip(), "tags": tags.strip()}
        caption = _fill(self.pattern, values)
        if self._leading and not stands_in(self._leading, behind):
            caption = _led_by(self._leading, caption)
        prefix = "" if _begins(self.prefix, behind) is not None else self.prefix
        return f"{prefix}{caption}{self.suffix}"

    def bare(self, item: Item, caption: str) -> str:
        """What the model wrote in a ``caption`` of ``item`` as this template makes them; of others
        all but the prefix, the suffix and the trigger words that are there."""
        caption = caption.strip()
        if (end := _begins(self.prefix, caption)) is not None:
            caption = caption[end:].strip()
        if end := _begins(self.suffix[::-1], caption[::-1]):
            caption = caption[:-end].strip()
        if self._leading and (end := _begins(self._leading, caption)):
            caption = caption[end:].lstrip(" ,")
        if {"text", "tags"} <= self.names:
            return caption  # where one ends and the other begins is not to be seen
        values = {name: re.escape(text) for name, text in self._given(item).items()}
        own = _fill(self.pattern, {**values, "text": "(.*)", "tags": "(.*)"}, re.escape)
        found = re.fullmatch(own.strip(), caption, re.DOTALL)
        return found[1].strip() if found else caption

    @property
    def _leading(self) -> str:
        """Trigger words that the pattern has no place for."""
        return "" if "trigger" in self.names else self.trigger.strip().rstrip(",").rstrip()

    def _given(self, item: Item) -> dict[str, str]:
        """What is filled in that no model writes."""
        return {
            "name": item.path.stem,
            "folder": item.folder,
            "trigger": self.trigger.strip(),
        }


def _fill(
    pattern: str, values: Mapping[str, str], escaped: Callable[[str], str] = lambda text: text
) -> str:
    """``escaped``: of what stands between the fields."""
    parts, end = [], 0
    for found in _FIELD.finditer(pattern):
        value = values[found[1]] if found[1] else escaped(found[0][0])
        parts += [escaped(pattern[end : found.start()]), value]
        end = found.end()
    return "".join([*parts, escaped(pattern[end:])])


def _begins(words: str, text: str) -> int | None:
    """Where ``words`` end, with which ``text`` begins, whatever the blanks between them; None where
    it does not, or they are none."""
    pattern = r"\s+".join(map(re.escape, words.split()))
    found = re.match(rf"\s*{pattern}", text) if pattern else None
    if found is None or (words.strip()[-1].isalnum() and re.match(r"\w", text[found.end() :])):
        return None
    return found.end()


def _led_by(trigger: str, caption: str) -> str:
    return caption if _begins(trigger, caption) is not None else f"{trigger}, {caption}"

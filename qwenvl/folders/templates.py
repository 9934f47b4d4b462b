"""Caption templates: what the model wrote among words that are given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BadOption
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

    def filled(self, item: Item, text: str, tags: str = "") -> str:
        """The caption of ``item``. Braces in what is filled in stay as they are."""
        trigger = self.trigger.strip()
        values = {
            "text": text.strip(),
            "tags": tags.strip(),
            "name": item.path.stem,
            "folder": item.folder,
            "trigger": trigger,
        }
        caption = _fill(self.pattern, values)
        if trigger and "trigger" not in self.names:
            caption = _led_by(trigger.rstrip(",").rstrip(), caption)
        return f"{self.prefix}{caption}{self.suffix}"


def _fill(pattern: str, values: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        return values[found[1]] if found[1] else found[0][0]

    return _FIELD.sub(value, pattern)


def _led_by(trigger: str, caption: str) -> str:
    if re.match(rf"{re.escape(trigger)}(?!\w)", caption):
        return caption
    return f"{trigger}, {caption}"

"""Styles of descriptions: words to ask a picture with, and the form of the reply; the pack's own in
``styles.yaml``, and users' in files of the same form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BadOption, Unavailable
from .yaml_files import Fields, Found, paths_in, read_mapping, unquoted, warn

BUILT_IN = Path(__file__).with_name("styles.yaml")
FORMS = ("line", "paragraphs", "tags", "text")
"""Forms of replies: all on one line; paragraphs, which stay; tags with commas between them, each
once; text as it is. Of the first three, headings, quotes and opening words are left out."""


@dataclass(frozen=True)
class Style:
    """``prompt``: what is asked. ``form``: one of ``FORMS``."""

    prompt: str
    form: str = FORMS[0]
    max_new_tokens: int = 1024


def read_styles(folders: Iterable[Path] = ()) -> Found[Style]:
    """The pack's own styles and users' in ``folders``; later ones in place of earlier ones of their
    name. A mistake costs only the style that it is in; one of its name that was there stays."""
    found: dict[str, Style] = {}
    problems: dict[str, str] = {}
    broken: list[str] = []
    for path in [BUILT_IN, *paths_in(folders)]:
        try:
            styles = read_mapping(path)
        except (BadOption, Unavailable) as error:
            warn(str(error))
            broken.append(str(error))
            continue
        for name, values in styles.items():
            try:
                found[name] = _style(path, name, values)
                problems.pop(name, None)
            except BadOption as error:
                stays = f" The style {name!r} stays as it was." if name in found else ""
                warn(f"{error}{stays}")
                if isinstance(name, str):
                    problems[name] = str(error)
                else:
                    broken.append(str(error))
    return Found("style", found, problems, tuple(broken))


def _style(path: Path, name: Any, values: Any) -> Style:
    if not isinstance(name, str):
        raise unquoted(path, name)
    if isinstance(values, str) and values.strip():
        return Style(values.strip())
    if not isinstance(values, Mapping):
        raise BadOption(
            f"{path}: {name} has to be a text, or to have prompt, form and max_new_tokens below it."
        )
    fields = Fields(path, values, f"{name}: ")
    style = Style(
        fields.text("prompt"),
        fields.choice("form", FORMS, FORMS[0]),
        fields.whole("max_new_tokens", 1, 100_000, 1024),
    )
    fields.end()
    return style

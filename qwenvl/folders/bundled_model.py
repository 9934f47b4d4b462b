"""Bundled model: what of a folder's captions it knows. Asked anything else it answers all the same,
with words that mean nothing and would lie beside the pictures as captions."""

from __future__ import annotations

from pathlib import Path

from ..checkpoints.library import BUNDLED, BUNDLED_NAME
from ..errors import BadOption
from ..prompt_writing.wishes import stands_in
from ..types import LocalSpec, Spec
from .asking import Asking
from .templates import Template

STYLES = ("short", "detailed")
"""Those it was trained on, see ``nano/README.md``."""

_TASKS = {"layout": "A layout", "prompt": "A prompt for an image model"}


def check_bundled(spec: Spec, asking: Asking, template: Template, style: str = "") -> None:
    """Raises ``BadOption`` where ``spec`` is the bundled model as it comes, and was not trained on
    what is asked. ``style``: of the descriptions, where they have one; words of the user's own are
    for the user to judge."""
    if not isinstance(spec, LocalSpec) or spec.adapters:
        return
    if Path(spec.checkpoint).resolve() == BUNDLED and (what := _unknown(asking, template, style)):
        raise BadOption(
            f"{what} would be nonsense: the bundled model, {BUNDLED_NAME}, knows drawn shapes and "
            f"printed words only, and describes them in the styles {' and '.join(STYLES)} alone. "
            "Nothing was written. Choose the style short (--style short) to try it, or a real "
            "model (--model, or in the Loader), such as Qwen3-VL-4B-Instruct."
        )


def _unknown(asking: Asking, template: Template, style: str) -> str:
    """What it does not know, as the beginning of a sentence; empty where it knows all."""
    if asking.task.name in _TASKS:
        return _TASKS[asking.task.name]
    if style and style not in STYLES:
        return f"Captions in the style {style}"
    if asking.tags is not None:
        return "Tags in the template"
    if asking.refine:
        return "Corrected captions"
    given = " ".join((template.pattern, template.trigger, template.prefix, template.suffix))
    told = [phrase for phrase in asking.wishes.must if not stands_in(phrase, given)]
    if told or asking.wishes.must_not:
        return "Captions with words that must or must not appear"
    return ""

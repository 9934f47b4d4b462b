"""Fine-tunes: what some do in another way than the family whose ``model_type`` they carry.

A fine-tune that is not in this table is asked and read as its family. Names are those of the
checkpoints' folders, which keep the hub's. Prompts are the makers' own (``makers_prompts``), since
the models were trained on them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import makers_prompts
from .errors import BadOption
from .types import Family

AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class FineTune:
    """One fine-tune, or several that are asked alike.

    ``names``: whole words in the names of its checkpoints, lower case. ``outputs``: the formats of
    text (see ``tasks.ocr.OUTPUTS``) that it is asked for in its makers' words. ``writes_html``:
    replies to them are HTML with ``data-bbox``, whatever the format. ``longest_side``:
    pixels of the pictures that it was trained on (0: not known). ``box_scale``: see ``Family``
    (None: as its family).
    """

    title: str
    names: tuple[str, ...]
    outputs: frozenset[str] = frozenset()
    writes_html: bool = False
    longest_side: int = 0
    box_scale: int | None = None

    def prompt(self, output: str) -> str | None:
        """The makers' words for reading text in a format; None where they have none."""
        return makers_prompts.words(self.title, "page") if output in self.outputs else None


_TEXT = frozenset({"plain", "markdown"})
"""The formats whose replies are kept as they are."""

FINE_TUNES: Mapping[str, FineTune] = {
    tune.title: tune
    for tune in (
        FineTune("olmOCR 2", ("olmocr-2",), _TEXT, longest_side=1288),
        # The first olmOCR (0225) was asked with the text of a PDF beside the picture.
        FineTune(
            "olmOCR 0725/0825",
            ("olmocr-7b-0725", "olmocr-7b-0825"),
            _TEXT,
            longest_side=1288,
        ),
        FineTune("RolmOCR", ("rolmocr",), _TEXT),
        FineTune("Nanonets-OCR", ("nanonets-ocr2", "nanonets-ocr-s"), _TEXT),
        # Its makers find a page's parts first, and ask this about each of them.
        FineTune("MinerU2.5", ("mineru2.5",), _TEXT),
        FineTune(
            "Chandra",
            ("chandra",),
            frozenset({"plain", "html"}),
            writes_html=True,
            longest_side=3072,
            box_scale=1024,
        ),
        FineTune("R1-Onevision", ("r1-onevision",), longest_side=518),
    )
}
PRESETS = (AUTO, NONE, *(tune.title for tune in FINE_TUNES.values() if tune.outputs))
"""What may be chosen for reading text: by the checkpoint's name, as any other model, or by name."""


def by_name(checkpoint: str) -> FineTune | None:
    """The row for a checkpoint's name, folder or ``owner/name``; None for what is in no row."""
    for tune in FINE_TUNES.values():
        words = "|".join(map(re.escape, tune.names))
        if re.search(rf"(?<![a-z0-9])(?:{words})(?![a-z0-9])", checkpoint.lower()):
            return tune
    return None


def preset(choice: str, checkpoint: str) -> FineTune | None:
    """The row that ``choice``, one of ``PRESETS``, means for the checkpoint of that name. Raises
    ``BadOption`` for another choice."""
    if choice not in PRESETS:
        raise BadOption(f"preset is {choice!r}; use one of: {', '.join(PRESETS)}.")
    return by_name(checkpoint) if choice == AUTO else FINE_TUNES.get(choice)


def as_tuned(family: Family, checkpoint: str) -> Family:
    """``family``, reading boxes as the fine-tune writes them whose name ``checkpoint`` is."""
    tune = by_name(checkpoint)
    if tune is None or tune.box_scale is None:
        return family
    title = f"{tune.title} ({family.title})"
    return dataclasses.replace(family, title=title, box_scale=tune.box_scale)

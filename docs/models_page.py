"""Page of models: `python -m docs.models_page` writes docs/models.md from the rows of the families,
of fine-tunes and of retrieval models, and from the table of checks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checks import CHECKS, MARKS

if TYPE_CHECKING:
    from qwen_vl_suite.qwenvl.types import Family

PAGE = Path(__file__).with_name("models.md")
ABLE, UNABLE = "·", "–"


@dataclass(frozen=True)
class Ability:
    """A column. ``can``: what a family's row says: empty where it cannot, ``ABLE`` where it can, or
    how."""

    key: str
    title: str
    can: Callable[[Family], str]


def _if(condition: object) -> str:
    return ABLE if condition else ""


def _sees(family: Family) -> str:
    return _if(family.sees)


def _space(family: Family) -> str:
    if not family.sees:
        return ""
    return f"0–{family.box_scale}" if family.coordinates == "relative" else "pixels"


def _has_embedding(family: Family) -> bool:
    from qwen_vl_suite.qwenvl.retrieval import RETRIEVAL

    return any(row.kind == "embedding" and row.base == family.title for row in RETRIEVAL)


def _yarn(family: Family) -> str:
    if family.yarn is None:
        return ""
    factor, trained = family.yarn
    return f"{factor:g} × {trained // 1024}k"


ABILITIES = (
    Ability("describe", "describe", _sees),
    Ability("boxes", "boxes", _space),
    Ability("points", "points", _sees),
    Ability("ocr", "OCR", _sees),
    Ability("video", "video", lambda family: _if(family.watching)),
    Ability("sound", "sound", lambda family: _if(family.hearing)),
    Ability("watched", "video with its sound", lambda family: _if(family.hearing)),
    Ability("speech", "speech out", lambda family: _if(family.speech)),
    Ability("text", "text alone", lambda family: ABLE),
    Ability("turns", "next turns", lambda family: ABLE),
    Ability("forms", "held to forms", lambda family: ABLE),
    Ability("score", "score", _sees),
    Ability("embed", "embed", lambda family: _if(_has_embedding(family))),
    Ability("thinking", "thinking", lambda family: ABLE),
    Ability("mtp", "MTP", lambda family: _if(family.mtp_prefix)),
    Ability("lora", "LoRA", lambda family: ABLE),
    Ability("yarn", "YaRN", _yarn),
)


def cell(family: Family, ability: Ability) -> str:
    """What ``family`` can do and how that was checked."""
    can = "" if family.is_original else ability.can(family)
    if not can:
        return UNABLE
    marks = {
        check.mark
        for check in CHECKS
        if ability.key in check.abilities and family.model_type in check.families
    }
    found = " ".join(mark for mark in MARKS if mark in marks)
    if can == ABLE:
        return found or ABLE
    return f"{can} {found}".rstrip()


@dataclass(frozen=True)
class Model:
    """A model that people have. ``model_type`` and ``classes`` as in its ``config.json``;
    ``folder``: a name of its checkpoints; ``note``: what is to be said besides what the rows
    say."""

    title: str
    model_type: str
    folder: str
    note: str = ""
    classes: tuple[str, ...] = ()


MODELS = (
    Model("Qwen-VL", "qwen", "Qwen-VL-Chat"),
    Model("Qwen2-VL", "qwen2_vl", "Qwen2-VL-7B-Instruct"),
    Model("QvQ", "qwen2_vl", "QVQ-72B-Preview", "Always thinks, in the words of its answer."),
    Model("Qwen2-VL-OCR", "qwen2_vl", "Qwen2-VL-OCR-2B-Instruct"),
    Model("MinerU2.5", "qwen2_vl", "MinerU2.5-2509-1.2B"),
    Model("gme-Qwen2-VL", "qwen2_vl", "gme-Qwen2-VL-2B-Instruct", classes=("GmeQwen2VL",)),
    Model("Qwen2.5-VL", "qwen2_5_vl", "Qwen2.5-VL-7B-Instruct"),
    Model("olmOCR", "qwen2_5_vl", "olmOCR-2-7B-1025"),
    Model("RolmOCR", "qwen2_5_vl", "RolmOCR"),
    Model("Nanonets-OCR2", "qwen2_5_vl", "Nanonets-OCR2-3B"),
    Model(
        "VRAG",
        "qwen2_5_vl",
        "Qwen2.5-VL-7B-VRAG",
        "Its rounds of search need its makers' search server and are not run.",
    ),
    Model("R1-Onevision", "qwen2_5_vl", "R1-Onevision-7B"),
    Model(
        "QwenStoryteller",
        "qwen2_5_vl",
        "QwenStoryteller",
        "Several pictures in one question: *together* in Describe, which also takes the tags out "
        "of its stories, or a turn of Chat.",
    ),
    Model("Qwen2.5-Omni", "qwen2_5_omni", "Qwen2.5-Omni-7B"),
    Model("Qwen3-Omni", "qwen3_omni_moe", "Qwen3-Omni-30B-A3B-Instruct"),
    Model("Qwen3-VL, dense, Instruct and Thinking", "qwen3_vl", "Qwen3-VL-4B-Instruct"),
    Model("Qwen3-VL, MoE, Instruct and Thinking", "qwen3_vl_moe", "Qwen3-VL-30B-A3B-Instruct"),
    Model("Qwen3-VL-Embedding", "qwen3_vl", "Qwen3-VL-Embedding-2B"),
    Model("Qwen3-VL-Reranker", "qwen3_vl", "Qwen3-VL-Reranker-2B"),
    Model("Qwen3.5, 3.6, 3.8, dense", "qwen3_5", "Qwen3.5-9B"),
    Model("Qwen3.5, 3.6, 3.8, MoE", "qwen3_5_moe", "Qwen3.5-35B-A3B"),
    Model("Chandra 2", "qwen3_5", "chandra-ocr-2"),
    Model("Qwen4-Exp", "qwen4_exp", "Qwen4-Exp"),
    Model("Qwen2.5 text", "qwen2", "Qwen2.5-7B-Instruct"),
    Model("QwQ", "qwen2", "QwQ-32B", "Always thinks."),
    Model("QwenLong-L1", "qwen2", "QwenLong-L1-32B", "Always thinks."),
    Model(
        "Distillations of DeepSeek-R1",
        "qwen2",
        "DeepSeek-R1-Distill-Qwen-7B",
        "Always think. Those of Llama are another maker's.",
    ),
    Model("Qwen3 text, dense", "qwen3", "Qwen3-8B"),
    Model("Qwen3 text, MoE", "qwen3_moe", "Qwen3-30B-A3B-Instruct-2507"),
    Model("Qwen3-Embedding (text)", "qwen3", "Qwen3-Embedding-0.6B"),
    Model("Qwen3-Reranker (text)", "qwen3", "Qwen3-Reranker-0.6B"),
    Model("Qwen3-Next", "qwen3_next", "Qwen3-Next-80B-A3B-Instruct"),
    Model("Qwen2-Audio", "qwen2_audio", "Qwen2-Audio-7B-Instruct"),
)


def described(model: Model) -> tuple[str, str]:
    """The title of the row that ``model`` has, and notes on it; or no title, and why it cannot be
    used."""
    from qwen_vl_suite.qwenvl.errors import UnsupportedModel
    from qwen_vl_suite.qwenvl.families import family_of
    from qwen_vl_suite.qwenvl.fine_tunes import as_tuned, by_name
    from qwen_vl_suite.qwenvl.retrieval import as_retrieval

    config: dict[str, Any] = {"model_type": model.model_type}
    if model.model_type.endswith("_audio"):
        config["audio_config"] = {"d_model": 1}
    try:
        family = as_tuned(family_of(config), model.folder)
        family = as_retrieval(family, model.folder, model.classes)
    except UnsupportedModel as error:
        return "", f"Refused: {error}"
    if family.is_original:
        return "", f"Refused: {family.notes}"
    said = [model.note, family.notes]
    if tune := by_name(model.folder):
        said.append("Read with the prompt that it was trained on." if tune.outputs else "")
        said.append(f"Pictures of at most {tune.longest_side} pixels." if tune.longest_side else "")
        said.append(f"Boxes 0–{tune.box_scale}." if tune.box_scale else "")
    if family.retrieval:
        said.append("For Score alone, in its makers' words; it writes nothing.")
    return family_of(config).title, " ".join(filter(None, said))


def page() -> str:
    from qwen_vl_suite.qwenvl.families import FAMILIES

    families = [family for family in FAMILIES.values() if not family.is_original]
    rows = [
        (f"{family.title} `{family.model_type}`", *(cell(family, one) for one in ABILITIES))
        for family in families
    ]
    models = []
    for model in MODELS:
        title, notes = described(model)
        models.append((model.title, f"`{model.model_type}`", title or UNABLE, notes))
    legend = [f"- `{mark}`: {says}" for mark, says in MARKS.items()]
    tests = [
        f"- `{check.mark}` {', '.join(map(_title, check.abilities))}: `tests/engine/{check.test}`"
        for check in CHECKS
    ]
    return "\n".join(
        [
            "# Models",
            "",
            "Written by `python -m docs.models_page` from the rows of `qwenvl/families.py`, "
            "`fine_tunes.py` and `retrieval.py` and from the checks of `docs/checks.py`; edit "
            "those.",
            "",
            "## What each family can do, and how that was checked",
            "",
            *legend,
            f"- `{ABLE}`: by the same code as in the other families; not checked on this one",
            f"- `{UNABLE}`: it cannot",
            "",
            "No checkpoint of a hub was run for this table. Whether a checkpoint thinks is decided "
            "by its chat template. *boxes* names the space that they are written in, *YaRN* the "
            "largest factor of the makers' cards and the context that it stretches.",
            "",
            *_table(("family", *(ability.title for ability in ABILITIES)), rows),
            "",
            "## Which row a model has",
            "",
            *_table(("model", "`model_type`", "row", "notes"), models),
            "",
            "## The checks",
            "",
            *tests,
            "",
        ]
    )


def _title(key: str) -> str:
    return next(ability.title for ability in ABILITIES if ability.key == key)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    lines = [list(head), *map(list, rows)]
    made = [f"| {' | '.join(line)} |" for line in lines]
    return [made[0], f"|{'---|' * len(lines[0])}", *made[1:]]


def main() -> int:
    from benchmarks import load_pack

    load_pack()
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

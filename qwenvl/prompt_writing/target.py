"""Targets: the models that prompts are written for, each a YAML file: what to tell the writing
model, and the form of its reply."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadOption, Unavailable
from ..yaml_files import Fields, Found, paths_in, read_mapping, shown, warn
from .length import ENCODERS

BUILT_IN = Path(__file__).with_name("targets")
REPLIES = ("paragraph", "tags", "text", "json")
"""Forms of replies: one paragraph; tags with commas between them, each once; text as it is; a JSON
object with the fields that ``keys`` names."""
KEYS = ("prompt", "negative", "ratio", "ratio_follow")
SAME = "same"
"""The language of a prompt: that of the idea."""

MIN_PIXELS, MAX_PIXELS = 4096, 100_000_000

_MAX_TOP_K = 1_000_000
_SAMPLING: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 10),
    "top_p": (0, 1),
    "top_k": (0, _MAX_TOP_K),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
    "presence_penalty": (-2, 2),
}


@dataclass(frozen=True)
class Wording:
    """What the writing model is told. ``system_file``: a file in its checkpoint's folder whose text
    takes the place of ``system`` where it is there. ``user``: with ``{idea}`` where the idea goes.
    ``no_idea``: what stands there where pictures come without one. ``max_pixels``: of each picture
    that the model is shown; 0: as many as it takes."""

    system: str
    user: str = "{idea}"
    system_file: str = ""
    no_idea: str = ""
    sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    max_pixels: int = 0


@dataclass(frozen=True)
class Target:
    """A model that prompts are written for, or a kind of models. ``source``: where its form comes
    from. ``text`` and ``pictures``: what is said with an idea alone, and with pictures.
    ``keys``: the names of a JSON reply's fields, by ``KEYS``. ``negative``: the usual negative
    prompt; None: the model takes none. ``language``: a name, or ``SAME``. ``thinking``: whether a
    model that has the choice thinks first. ``max_tokens``: what the encoder, one of ``ENCODERS``,
    takes; 0: no limit is known. ``pixels`` and ``multiple``: area of a picture of a ratio that the
    reply names, and what its sides are multiples of. ``made_for``: words in the names of
    checkpoints that were trained on this form, where others may not keep it."""

    name: str
    title: str
    source: str
    text: Wording
    pictures: Wording
    reply: str = REPLIES[0]
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)
    negative: str | None = None
    language: str = SAME
    thinking: bool | None = None
    max_tokens: int = 0
    encoder: str = ""
    pixels: int = 0
    multiple: int = 16
    max_new_tokens: int = 1024
    max_thinking_tokens: int | None = None
    made_for: str = ""


Targets = Found[Target]


def read_target(path: Path) -> Target:
    """The target in a file, named after it. Raises ``BadOption`` naming file, field and remedy."""
    fields = Fields(path, read_mapping(path))
    title, source = fields.text("title"), fields.text("source")
    text = _wording(fields)
    below = fields.mapping("pictures")
    pictures = _wording(below, text)
    below.end()
    reply = fields.choice("reply", REPLIES, REPLIES[0])
    keys = _keys(fields, reply)
    length, size = fields.mapping("length"), fields.mapping("size")
    has_limit = length.has("tokens")
    target = Target(
        name=path.stem,
        title=title,
        source=source,
        text=text,
        pictures=pictures,
        reply=reply,
        keys=keys,
        negative=fields.text("negative", "") if fields.has("negative") else None,
        language=fields.text("language", SAME),
        thinking=fields.flag("thinking"),
        max_tokens=length.whole("tokens", 1, 100_000, 0) if has_limit else 0,
        encoder=length.choice("encoder", ENCODERS, "t5") if has_limit else "",
        pixels=size.whole("pixels", MIN_PIXELS, MAX_PIXELS, 1 << 20),
        multiple=size.whole("multiple", 1, 256, 16),
        max_new_tokens=fields.whole("max_new_tokens", 1, 100_000, 1024),
        max_thinking_tokens=_thoughts(fields),
        made_for=fields.text("made_for", ""),
    )
    for part in (length, size, fields):
        part.end()
    return target


def _thoughts(fields: Fields) -> int | None:
    name = "max_thinking_tokens"
    return fields.whole(name, 0, 100_000, 0) if fields.has(name) else None


def _wording(fields: Fields, other: Wording | None = None) -> Wording:
    """``other``: what stands for fields that are missing."""
    user = fields.text("user", other.user if other else "{idea}")
    if "{idea}" not in user:
        raise fields.fail("user", "does not say where the idea goes: write {idea} there.")
    file = fields.text("system_file", other.system_file if other else "")
    if file and Path(file).name != file:
        raise fields.fail(
            "system_file", f"is {shown(file)}; give the name of a file without a folder."
        )
    values = fields.mapping("sampling")
    sampling: dict[str, Any] = {
        name: values.number(name, low, high, 0)
        for name, (low, high) in _SAMPLING.items()
        if values.has(name)
    }
    if "top_k" in sampling:
        sampling["top_k"] = values.whole("top_k", 0, _MAX_TOP_K, 0)
    values.end()
    return Wording(
        fields.text("system", other.system if other else None),
        user,
        file,
        fields.text("no_idea", "") if other else "",
        {**(other.sampling if other else {}), **sampling},
        _max_pixels(fields) if other else 0,
    )


def _max_pixels(fields: Fields) -> int:
    name = "max_pixels"
    return fields.whole(name, MIN_PIXELS, MAX_PIXELS, 0) if fields.has(name) else 0


def _keys(fields: Fields, reply: str) -> dict[str, str]:
    named = fields.mapping("keys")
    keys = {key: named.text(key) for key in KEYS if named.has(key)}
    named.end()
    if reply == "json" and "prompt" not in keys:
        raise fields.fail("keys", "has to name the field of the reply that holds the prompt.")
    if reply != "json" and keys:
        raise fields.fail("keys", "is of replies in JSON only: add reply: json, or leave it out.")
    return keys


def read_targets(folders: Iterable[Path] = ()) -> Targets:
    """The pack's own targets, and users' in ``folders``; those of later folders in place of earlier
    ones of their name."""
    found: dict[str, Target] = {}
    problems: dict[str, str] = {}
    for path in paths_in([BUILT_IN, *folders]):
        try:
            found[path.stem] = read_target(path)
            problems.pop(path.stem, None)
        except (BadOption, Unavailable) as error:
            warn(str(error))
            problems[path.stem] = str(error)
            found.pop(path.stem, None)
    return Found("target", found, problems)

"""Extraction: what a picture shows as JSON of a given form."""

from __future__ import annotations

import json
from typing import Any

from ..errors import UnreadableReply
from ..replies import cut_json, extract_answer, strip_fence
from ..types import Constraint, ReplyContext, Result, Task

PROMPT = (
    "Extract what this image shows as JSON that is valid by this JSON schema. Output only the JSON."
)
KEYS_PROMPT = (
    "Extract these from this image as a JSON object: {keys}. Each value is a string, or null where "
    "the image does not show it. Output only the JSON."
)


def extract(constraint: Constraint, prompt: str = "", system: str = "") -> Task:
    """The task to write JSON about a picture that is valid by ``constraint``, a JSON schema (see
    ``constraints``). ``prompt``: what to extract, in own words; the schema stands behind it. The
    result's ``data`` is the JSON value, ``text`` the same as text."""
    asked = f"{prompt.strip() or PROMPT}\n{constraint.source}"
    if not prompt.strip() and (keys := _plain_keys(json.loads(constraint.source))):
        asked = KEYS_PROMPT.format(keys=", ".join(keys))
    return Task("extract", asked, _read, system=system, greedy=True, constraint=constraint)


def _plain_keys(schema: Any) -> list[str]:
    """The keys of a schema that ``constraints.from_keys`` made; none of another one."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return []
    properties = schema.get("properties", {})
    plain = {"type": ["string", "null"]}
    return list(properties) if all(value == plain for value in properties.values()) else []


def _read(text: str, context: ReplyContext) -> Result:
    read = cut_json.whole_part if context.cut else cut_json.whole
    try:
        value = read(text)  # held to its form, it is JSON as it stands, whatever its strings hold
    except (ValueError, RecursionError):
        answer = strip_fence(extract_answer(text))
        try:
            value = read(answer)
        except (ValueError, RecursionError) as error:
            raise UnreadableReply(f"It is not JSON ({error}).", answer) from error
    return Result(text=json.dumps(value, ensure_ascii=False), data=value)

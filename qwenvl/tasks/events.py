"""Events: what happens in a video, and when."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from .. import constraints
from ..errors import BadOption
from ..replies.events import Item, read_events
from ..types import Event, ReplyContext, Result, Task
from ..unicode import well_formed

# The first is of the makers' notebook on Qwen3-VL, word for word; the second is built alike.
PROMPT = (
    "Localize a series of activity events in the video, output the start and end timestamp for "
    "each event, and describe each event with sentences. Provide the result in json format with "
    "'mm:ss.ff' format for time depiction."
)
FIND_PROMPT = (
    'Localize every event in the video that is: "{find}". Output the start and end timestamp for '
    "each event, and describe each event with a sentence. Provide the result in json format with "
    "'mm:ss.ff' format for time depiction."
)
HELD_FORM = (
    ' The format: [{"start_time": "00:00.00", "end_time": "00:00.00", "description": "..."}]'
)

SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "start": {"type": "number", "minimum": 0},
            "end": {"type": "number", "minimum": 0},
            "label": {"type": "string"},
        },
        "required": ["start", "end", "label"],
        "additionalProperties": False,
    },
}
"""JSON schema of a result's ``data``: times in seconds, ``start`` not after ``end``."""


def events(
    find: str = "", length: float = math.inf, system: str = "", strict: str = "auto"
) -> Task:
    """The task to tell what happens in a video of ``length`` seconds, and when. ``find``: what to
    look for, in words; empty: whatever happens.

    The result has ``events`` within the video, as its ``data`` does by ``SCHEMA`` and its ``text``
    as JSON. What a reply puts outside the video, or lets end before it begins, is left out and
    named in ``notes``. ``strict``: whether replies are held to JSON, see
    ``constraints.from_events``. Raises ``BadOption``."""
    if not length > 0:
        raise BadOption(f"The video is {length:g} s long; it must be longer than 0.")
    wanted = " ".join(well_formed(find).split()).replace('"', "'")
    asked = FIND_PROMPT.format(find=wanted) if wanted else PROMPT
    return Task(
        "events",
        asked + (HELD_FORM if strict == "on" else ""),
        partial(read, find=wanted, length=length),
        system=system,
        greedy=True,
        max_new_tokens=4096,
        constraint=constraints.from_events(strict),
    )


def read(text: str, context: ReplyContext, find: str = "", length: float = math.inf) -> Result:
    """Parses a reply to ``events``. Raises ``UnreadableReply``."""
    written = read_events(text, find, context.cut)
    found, notes = within(written, length)
    return result_of(found, notes)


def result_of(found: Sequence[Event], notes: Sequence[str] = (), text: str = "") -> Result:
    """A result of events, with its ``text``; empty: the events as JSON."""
    data = [{"start": event.start, "end": event.end, "label": event.label} for event in found]
    text = text or json.dumps(data, ensure_ascii=False)
    return Result(text, data=data, events=tuple(found), notes=tuple(notes))


def within(written: Sequence[Item], length: float) -> tuple[list[Event], list[str]]:
    """The events that lie in a video of ``length`` seconds, cut off at its end, and notes on the
    others."""
    found, outside, reversed_ones, cut, moments = [], [], [], 0, 0
    for item in written:
        end = item.start if item.end is None else item.end
        shown = f"{item.start:g}-{end:g} s"
        if end < item.start:
            reversed_ones.append(shown)
        elif end < 0 or item.start >= length:
            outside.append(shown)
        else:
            start, last = max(0.0, item.start), min(end, length)
            cut += (start, last) != (item.start, end)
            moments += item.end is None
            found.append(Event(round(start, 3), round(last, 3), item.label))
    notes = []
    if outside:
        notes.append(f"Left out, outside the video of {length:g} s: {_listed(outside)}.")
    if reversed_ones:
        notes.append(f"Left out, for ending before they begin: {_listed(reversed_ones)}.")
    if cut:
        notes.append(f"{cut} of the events reached outside the video and were cut there.")
    if moments:
        notes.append(f"{moments} of the events have a beginning only, and no length.")
    return found, notes


def _listed(shown: Sequence[str]) -> str:
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more

"""Event reader: what happens in a video and when, whatever form a reply has.

Forms, with prose around them, repeated or cut off: JSON lists of objects with a start, an end and
a description under any usual key, as numbers of seconds or clock times; ``{"00:23.00 -
00:48.00": "…"}`` and the reverse; lists ``[0, 5.2, "…"]``; lines ``0.0 - 5.2 seconds: …`` and
``<0.5 seconds> …``, subtitles, tables; sentences ("happens in 64.0 - 72.0 seconds").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UnreadableReply
from ..unicode import well_formed
from . import clock, items, loose_json, markup
from .absence import says_none
from .answer import STILL_THINKING, extract_answer, final_answer
from .bbox import normalised
from .clock import Range

_START_KEYS = (
    "start", "starttime", "startsec", "startseconds", "starttimestamp", "timestart", "tstart",
    "begin", "begintime", "beginning", "from", "onset", "开始", "开始时间", "起始时间",
)  # fmt: skip
_END_KEYS = (
    "end", "endtime", "endsec", "endseconds", "endtimestamp", "timeend", "tend", "finish", "stop",
    "to", "until", "offset", "结束", "结束时间", "终止时间",
)  # fmt: skip
_LENGTH_KEYS = ("duration", "length", "durationseconds")
_RANGE_KEYS = (
    "timestamp", "timestamps", "time", "times", "timerange", "timespan", "timeinterval",
    "timesegment", "segment", "segments", "interval", "intervals", "range", "span", "period",
    "duration", "window", "occurrences", "时间", "时间段",
)  # fmt: skip
_LABEL_KEYS = (
    "label", "description", "event", "caption", "activity", "action", "sentence", "text", "name",
    "title", "content", "summary", "scene", "eventdescription", "what", "category", "class",
    "描述", "事件", "标签",
)  # fmt: skip
_MAX_DEPTH, _MAX_EVENTS = 8, 2000
_LEAD_LENGTH = 400  # characters of a line before its times

_EDGE = " \t\r\n|,;，；:：-–—−~*_#>`\"'“”•"
_CONNECTING = re.compile(
    r"^(?:(?:seconds?|secs?|s)\b|from\b|at\b|in\b|during\b|between\b|秒)[\s:：,\-–—]*|"
    r"[\s,]{0,8}\b(?:from|at|in|during|between)$",  # unbounded, it is tried from every blank
    re.IGNORECASE,
)
_BULLET = re.compile(r"^[\s>#*_•|-]*(?:\d{1,3}[.)]\s+)?")


@dataclass(frozen=True)
class Item:
    """One event of a reply, in seconds as the model wrote them. ``end`` is None of a moment."""

    start: float
    end: float | None
    label: str = ""


def read_events(text: str, find: str = "", cut: bool = False) -> list[Item]:
    """The events of a reply, in its order, each once; an empty list if it says that there are none.
    ``find``: what was looked for; the label of what has none of its own. ``cut``: the reply is
    known to have been cut off; a time that it ends with is not whole. Raises ``UnreadableReply``.
    """
    whole = extract_answer(text)
    for answer in dict.fromkeys((final_answer(whole), whole)):
        found = next((found for found in _readings(answer, find, cut) if found), [])
        if found:
            return list(dict.fromkeys(found))[:_MAX_EVENTS]
        if _is_none(answer, find):
            return []
    raise UnreadableReply(_complaint(text, whole), text)


def _readings(answer: str, find: str, cut: bool) -> Iterator[list[Item]]:
    """The events in each of the known forms, from the most explicit form to the vaguest."""
    values = loose_json.values(answer)
    yield [
        _labelled(item, find)
        for found in values
        if not _is_pair(found.value)  # a line of text may begin with it
        for item in _walk({found.key: found.value} if found.key else found.value)
    ]
    rows = [item for row in markup.table_rows(answer) for item in _of_object(row, "", 0)]
    yield [_labelled(item, find) for item in rows]
    ranges = clock.ranges(answer)
    if cut:
        ranges = [found for found in ranges if found.stop < len(answer)]
    yield list(_of_text(answer, ranges, find))
    lines = [(line, clock.moment(line)) for line in answer.split("\n")]
    yield [
        _labelled(Item(at.begin, None, _cleaned(line[at.stop :])), find) for line, at in lines if at
    ]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and (pair := _of_list(value, "")) is not None and not pair.label


def _labelled(item: Item, find: str) -> Item:
    return item if item.label else Item(item.start, item.end, find)


def _walk(value: Any, label: str = "", depth: int = 0) -> Iterator[Item]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        yield from _of_object(value, label, depth)
    elif isinstance(value, list):
        if found := _of_list(value, label):
            yield found
            return
        for child in value:
            yield from _walk(child, label, depth + 1)
    elif isinstance(value, str):
        yield from _of_text(value, clock.ranges(value), label)


def _of_object(value: Mapping[str, Any], label: str, depth: int) -> Iterator[Item]:
    members = {normalised(str(key)): member for key, member in value.items()}
    own = _label_of(members) or label
    start, end = _time_of(members, _START_KEYS), _time_of(members, _END_KEYS)
    if start is not None:
        length = _time_of(members, _LENGTH_KEYS)
        yield Item(start, start + length if end is None and length is not None else end, own)
        return
    named = next((members[key] for key in _RANGE_KEYS if key in members), None)
    if found := [Item(r.begin, r.end, own) for r in _ranges_of(named)]:
        yield from found
        return
    for key, member in value.items():
        if within := clock.whole_range(str(key)):
            yield Item(within.begin, within.end, _words(member) or own)
        elif depth < _MAX_DEPTH and (several := _ranges_of(member)):
            name = "" if normalised(str(key)) in _RANGE_KEYS else str(key)
            yield from (Item(r.begin, r.end, name or own) for r in several)
        elif isinstance(member, list | dict):
            yield from _walk(member, own, depth + 1)


def _of_list(value: Sequence[Any], label: str) -> Item | None:
    """``[0, 5.2]``, ``["00:00", "00:05", "a cat"]``, ``["a cat", 0, 5.2]``."""
    if not 2 <= len(value) <= 4 or any(isinstance(member, list | dict) for member in value):
        return None
    times = [time for member in value if (time := clock.seconds(member)) is not None]
    words = [member for member in value if isinstance(member, str)]
    words = [member for member in words if clock.seconds(member) is None]
    if len(times) != 2 or len(times) + len(words) != len(value) or len(words) > 1:
        return None
    return Item(times[0], times[1], _words(words[0]) if words else label)


def _ranges_of(value: Any) -> list[Range]:
    """The ranges that a member is: text, two times, an object of both, or a list of such."""
    if isinstance(value, str):
        within, at = clock.whole_range(value), clock.seconds(value)
        if within is None and at is None:
            return clock.ranges(value) if len(value) <= 120 else []
        return [within] if within else [Range(at or 0.0, None)]
    if isinstance(value, dict):
        members = {normalised(str(key)): member for key, member in value.items()}
        start, end = _time_of(members, _START_KEYS), _time_of(members, _END_KEYS)
        return [] if start is None else [Range(start, end)]
    if isinstance(value, list) and value:
        if pair := _of_list(value, ""):
            return [] if pair.label else [Range(pair.start, pair.end)]
        inner = [_ranges_of(member) for member in value[:_MAX_EVENTS]]
        is_nested = all(isinstance(member, list | dict | str) for member in value)
        return [found[0] for found in inner] if is_nested and all(map(len, inner)) else []
    at = clock.seconds(value)
    return [] if at is None else [Range(at, None)]


def _time_of(members: Mapping[str, Any], names: Sequence[str]) -> float | None:
    here = (clock.seconds(members[name]) for name in names if name in members)
    return next((time for time in here if time is not None), None)


def _label_of(members: Mapping[str, Any]) -> str:
    texts = (_words(members[name]) for name in _LABEL_KEYS if name in members)
    return next(filter(None, texts), "")


def _words(member: Any) -> str:
    if isinstance(member, str):
        return well_formed(" ".join(member.split()))
    if isinstance(member, dict):
        return _label_of({normalised(str(key)): inner for key, inner in member.items()})
    if isinstance(member, list):
        return "; ".join(filter(None, map(_words, member[:20])))
    return ""


def _of_text(text: str, ranges: Sequence[Range], find: str) -> Iterator[Item]:
    """The ranges in running text, labelled by the words of their lines."""
    earlier = 0
    for number, found in enumerate(ranges):
        before = text[max(earlier, found.start - _LEAD_LENGTH) : found.start].rpartition("\n")[2]
        earlier = found.stop
        following = ranges[number + 1].start if number + 1 < len(ranges) else len(text)
        line_end = text.find("\n", found.stop, following)
        line_end = following if line_end < 0 else line_end
        label = _cleaned(text[found.stop : line_end])
        if lead := _cleaned(before):
            label = find or lead
        elif not label:
            label = find or _cleaned(text[line_end:following].strip().partition("\n")[0])
        yield Item(found.begin, found.end, label or find)


def _cleaned(words: str) -> str:
    """A label without what marks it off from its time, quotes and Markdown around it."""
    words = _trimmed(_BULLET.sub("", words), "[]()<>{}")
    for _ in range(2):
        words = _trimmed(_CONNECTING.sub("", words))
    return well_formed(" ".join(words.split()))


def _trimmed(words: str, more: str = "") -> str:
    """Full stops at the end stay."""
    return words.lstrip(f"{_EDGE}.。{more}").rstrip(_EDGE + more)


def _is_none(answer: str, find: str) -> bool:
    if sum(map(answer.count, "[{")) > sum(map(answer.count, "]}")):
        return False  # cut off: an event might have followed
    if says_none(answer, [find] if find else []):
        return True
    return len(answer) < 20_000 and items.are_empty(loose_json.values(answer))


def _complaint(text: str, answer: str) -> str:
    if not answer:
        return STILL_THINKING if text.strip() else "The model answered nothing."
    excerpt = answer if len(answer) <= 200 else answer[:150] + " … " + answer[-50:]
    return (
        "The model's reply holds no times that can be read, nor does it say that nothing happens. "
        "If it was cut off, raise max_new_tokens; else ask in other words. It wrote: " + excerpt
    )

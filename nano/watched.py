"""Figures of clips: what happens in fresh ones and when, as `events` finds it, and in words.

A true event and one of the answer are a pair where they overlap most. An event is on time if it
begins and ends within a quarter of a second of the truth; one without a pair is wrong in all.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import clip_questions, describe_video, engine, events, scenes, types, video

_SEED = "evaluation clips"
_RATES = (12.0, 24.0, 25.0, 30.0)  # frames a second of a file
_CLOSE = 0.25  # seconds

Event = tuple[float, float, str]
"""Start and end in seconds, and the label."""


def figures(folder: Path, number: int, seed: str = _SEED) -> dict[str, float | int | None]:
    """All figures on `number` clips, 0..1, and how many events these have."""
    clips = [scenes.draw_clip(f"{seed} {k}") for k in range(number)]
    shown = [_shown(clip, random.Random(f"{seed} rate {k}")) for k, clip in enumerate(clips)]
    asked = [(some, events(length=clip.duration)) for some, clip in zip(shown, clips, strict=True)]
    told = [(some, describe_video(prompt="Describe this video.")) for some in shown]
    with engine.opened(folder) as backend:
        listed, said = engine.answers(backend, asked), engine.answers(backend, told)
    found = [[(e.start, e.end, e.label) for e in result.events] for result in listed]
    true = [[(e.start, e.end, e.label) for e in clip.events] for clip in clips]
    right = [clip_questions.described(clip).answer for clip in clips]
    return {**compared(true, found), "clip_described": _mean(map(_equal, right, said))}


def _equal(right: str, said: types.Result) -> bool:
    return said.text == right


def _shown(clip: scenes.Clip, rng: random.Random) -> types.Video:
    """The frames of a clip that are shown of a file, drawn alone."""
    import torch

    times = video.frame_times(video.FrameChoice(), clip.duration, rng.choice(_RATES))
    return types.Video(torch.from_numpy(clip.frames(times)).movedim(-1, 1), times)


def compared(
    true: Sequence[Sequence[Event]], found: Sequence[Sequence[Event]]
) -> dict[str, float | int | None]:
    """The figures of events, clip by clip."""
    times, labels, right = [], [], []
    for there, said in zip(true, found, strict=True):
        pairs = _pairs(there, said)
        for k, event in enumerate(there):
            pair = said[pairs[k]] if k in pairs else None
            times.append(pair is not None and _is_close(event, pair))
            labels.append(pair is not None and pair[2] == event[2])
        by_answer = {j: k for k, j in pairs.items()}
        right += [j in by_answer and there[by_answer[j]][2] == e[2] for j, e in enumerate(said)]
    return {
        "clip_event_times": _mean(times),
        "clip_event_labels": _mean(labels),
        "clip_event_precision": _mean(right),
        "clip_events_as_many": _mean(len(a) == len(b) for a, b in zip(true, found, strict=True)),
        "clips": len(true),
        "clip_events": len(times),
    }


def _is_close(one: Event, other: Event) -> bool:
    return all(abs(a - b) <= _CLOSE + 1e-6 for a, b in zip(one[:2], other[:2], strict=True))


def _pairs(true: Sequence[Event], found: Sequence[Event]) -> dict[int, int]:
    """For true events, the index of the found one that is the same, each once."""
    shared = sorted(
        (
            (min(a[1], b[1]) - max(a[0], b[0]), k, j)
            for k, a in enumerate(true)
            for j, b in enumerate(found)
        ),
        reverse=True,
    )
    pairs: dict[int, int] = {}
    for overlap, k, j in shared:
        if overlap > 0 and k not in pairs and j not in pairs.values():
            pairs[k] = j
    return pairs


def _mean(values: Iterable[Any]) -> float | None:
    listed = [float(value) for value in values]
    return round(sum(listed) / len(listed), 4) if listed else None

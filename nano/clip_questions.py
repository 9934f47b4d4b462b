"""Questions about a clip: its events as JSON with start and end in seconds, when one of them is,
what happens, whether something does."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import scenes
from .questions import Piece, Turn

LONGEST = 16.0  # seconds that have a token of their own, by tenths

# Each is one token.
OPEN, NEXT, END = '[{"start": ', '"}, {"start": ', ', "end": '
LABEL, CLOSE, NONE = ', "label": "', '"}]', "[]"
THEN, THEN_AN = ", then a", ", then an"
NOTHING = " Nothing happens."

_LOCALIZE = (
    "Localize a series of activity events in the video, output the start and end timestamp for "
    "each event, and describe each event with sentences. Provide the result in json format with "
    "'mm:ss.ff' format for time depiction."
)
_LOCALIZE_SOME = (
    'Localize every event in the video that is: "{}". Output the start and end timestamp for '
    "each event, and describe each event with a sentence. Provide the result in json format with "
    "'mm:ss.ff' format for time depiction."
)
_EVENTS = (_LOCALIZE,) * 5 + (
    "List the events in this video as JSON: start and end in seconds, and a label.",
    "Find the events in this video. Report start and end in seconds, and a label, in JSON format.",
    "What happens in this video, and when? Output JSON with start, end and label.",
    "Detect every event in the video. Output start, end and label in JSON format.",
    "Locate the events.",
    "List all events with their times in seconds, in JSON format.",
)
_FORM = (
    ' Output a JSON list of objects with "start" and "end" in seconds and "label".',
    " Report start and end in seconds as JSON.",
    " Report start and end in seconds, and a label, in JSON format.",
    " Output JSON.",
    "",
)
_DESCRIBE = ("Describe this video.",) * 3 + (
    "Describe this video in detail.",
    "Describe this video in one sentence.",
    "What happens in this video?",
    "What happens?",
    "Caption this video.",
    "Write a caption for this video.",
    "Describe what happens.",
    "Describe the video.",
    "Summarize this video.",
    "Describe this image in detail.",
    "Describe this clip.",
)


def seconds(time: float) -> str:
    return f"{time:.1f}"


def turns(clip: scenes.Clip, rng: random.Random, number: int) -> list[Turn]:
    """`number` questions about a clip."""
    return [
        rng.choices((all_events, some_events, describe, yes_no, count), (4, 2, 2, 0.7, 0.5))[0](
            clip, rng
        )
        for _ in range(number)
    ]


def listed(clip: scenes.Clip, about: Sequence[int], question: str) -> Turn:
    """Those of the events, in the order of their start."""
    pieces: list[Piece] = []
    for k in about:
        event, aim = clip.events[k], ("event", k)
        colour, kind = event.name.split()
        pieces += [
            Piece(NEXT if pieces else OPEN, "look", aim),
            Piece(seconds(event.start), "start", aim),
            Piece(END),
            Piece(seconds(event.end), "end", aim),
            Piece(LABEL),
            Piece(colour, "look", aim),
            *(Piece(f" {word}", "look", aim) for word in (kind, event.verb, event.colour) if word),
        ]
    pieces.append(Piece(CLOSE if pieces else NONE, "stop"))
    return Turn("events", question, tuple(pieces), tuple(about))


def all_events(clip: scenes.Clip, rng: random.Random) -> Turn:
    """Every event."""
    ask = rng.choice(_EVENTS)
    if ask != _LOCALIZE:
        ask += rng.choice(("", "", rng.choice(_FORM)))
    return listed(clip, range(len(clip.events)), ask)


def some_events(clip: scenes.Clip, rng: random.Random) -> Turn:
    """The events of one kind, or of one shape, or one that is not there."""
    actor = rng.choice(clip.actors)
    event = rng.choice(clip.events) if clip.events and rng.random() < 0.8 else None
    verb = event.verb if event else rng.choice(scenes.VERBS)
    kind = (event.name if event else actor.shape.name).split()[-1]
    name = rng.choice((f"the {kind}", f"the {event.name if event else actor.shape.name}"))
    if rng.random() < 0.3:
        name = rng.choice(("something", "a shape"))
    about = [k for k, e in enumerate(clip.events) if e.verb == verb and _is(e, name)]
    if rng.random() < 0.6:
        said = f"{name} {verb}" if verb != "turns" else f"{name} changes colour"
        if rng.random() < 0.5:
            said = said.removeprefix("the ")
        asks = (_LOCALIZE_SOME,) * 3 + (f'Find when "{{}}".{rng.choice(_FORM)}',)
        return listed(clip, about, rng.choice(asks).format(said))
    base = {"enters": "enter", "leaves": "leave", "turns": "change colour"}[verb]
    return listed(clip, about, f"When does {name} {base}?{rng.choice(_FORM)}")


def _is(event: scenes.Event, name: str) -> bool:
    asked = name.removeprefix("the ")
    return asked in ("something", "a shape") or asked in (event.name, event.name.split()[-1])


def describe(clip: scenes.Clip, rng: random.Random) -> Turn:
    """What happens, in any words."""
    return described(clip, rng.choice(_DESCRIBE))


def described(clip: scenes.Clip, question: str = _DESCRIBE[0]) -> Turn:
    """What happens, in order; what is there where nothing happens."""
    pieces: list[Piece] = []
    for k, event in enumerate(clip.events):
        n = "n" if event.name[0] == "o" else ""
        aim = ("event", k)
        pieces.append(Piece((f", then a{n}" if pieces else f"A{n}"), "look", aim))
        words = (*event.name.split(), event.verb, event.colour)
        pieces += [Piece(f" {word}", "look", aim) for word in words if word]
    if pieces:
        pieces.append(Piece(".", "stop"))
        return Turn("clip", question, tuple(pieces), tuple(range(len(clip.events))))
    there = sorted(range(len(clip.actors)), key=lambda k: clip.actors[k].shape.centre[0])
    for k in there:
        shape, aim = clip.actors[k].shape, ("shape", k)
        article = ("A" if not pieces else ", a") + ("n" if shape.colour == "orange" else "")
        pieces += [
            Piece(text, "look", aim) for text in (article, f" {shape.colour}", f" {shape.kind}")
        ]
    return Turn(
        "clip",
        question,
        (*pieces, Piece(".", "stop"), Piece(NOTHING, "stop")),
        (),
    )


def yes_no(clip: scenes.Clip, rng: random.Random) -> Turn:
    """Does a shape enter, leave or change colour?"""
    event = rng.choice(clip.events) if clip.events and rng.random() < 0.6 else None
    shape = rng.choice(clip.actors).shape
    name = event.name if event else shape.name
    verb = event.verb if event else rng.choice(scenes.VERBS)
    about = tuple(k for k, e in enumerate(clip.events) if (e.verb, e.name) == (verb, name))
    base = {"enters": "enter", "leaves": "leave", "turns": "change colour"}[verb]
    answer = Piece("Yes." if about else "No.")
    return Turn("yes_no", f"Does the {name} {base}?", (answer,), about)


def count(clip: scenes.Clip, rng: random.Random) -> Turn:
    """How many events there are."""
    ask = rng.choice(("How many events are there?", "How many things happen?"))
    about = tuple(range(len(clip.events)))
    return Turn("count", ask, (Piece(str(len(about))),), about)

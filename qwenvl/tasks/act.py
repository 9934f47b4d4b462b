"""GUI agent step: from a screenshot and a goal to a thought and the next action on the screen.

The action is told, never performed. The model is asked as its makers ask it, with the signature of
a tool (see ``screen_tools``) in the form of calls that its chat template has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from .. import coordinates
from ..constraints import STRICT
from ..errors import BadOption, UnreadableReply
from ..replies import STILL_THINKING, bbox, extract_answer
from ..replies import scores as scoring
from ..replies.tool_calls import ToolCall, find_calls
from ..types import Point, ReplyContext, Result, Task
from ..unicode import well_formed
from .screen_tools import COORDINATES, TOOLS, Tool
from .tool_prompts import call_constraint, instructions

KIND = "action"
"""What Grounding calls this kind of question."""

SCREENS = tuple(TOOLS)
"""Kinds of screens: each has its own tool, and so its own actions."""

_SYSTEM = "You are a helpful assistant."
_PROMPTS = {
    "computer": "{goal}",
    "mobile": "The user query: {goal}\nTask progress (You have done the following operation on the "
    "current device): .\n",
}

_PLACE_NAMES = {
    "coordinate": ("coordinate", "coordinates", "point_2d", "point", "position", "bbox_2d"),
    "coordinate2": ("coordinate2", "coordinates2", "end_coordinate"),
}
_MAX_NUMBER = 10**9  # seconds or pixels; infinities and NaN are no numbers either
_MARK = r"(?:^|\n)[\s\d*_#().-]{0,12}"
_THOUGHT = re.compile(rf"{_MARK}(?:thoughts?|思考)[*_]{{0,2}}\s?[:：][*_]{{0,2}}", re.IGNORECASE)
_STEP = re.compile(rf"{_MARK}(?:action|操作|动作)[*_]{{0,2}}\s?[:：][*_]{{0,2}}", re.IGNORECASE)
# Before a bare call: the fence that it stands in, its number in the list asked for.
_BEFORE_CALL = re.compile(r"(?:\b3[.)]\s{0,9})?(?:```\w{0,20})?\Z")


def act(
    goal: str,
    screen: str = "computer",
    min_score: float = 0,
    scores: bool = False,
    strict: str = "auto",
) -> Task:
    """The task to say what to do next on the ``screen`` (one of ``SCREENS``) that the picture
    shows, to reach ``goal``. Nothing is done.

    The result's ``data`` is a dict: ``thought`` and ``step``, the model's words before the call,
    the tool's ``name``, the ``action``, its ``arguments`` in the tool's grammar but with
    coordinates in whole pixels of the picture, and ``point_2d``, the first of these (None for an
    action without a place, such as typing). ``points`` are these places, labelled by the action;
    ``text`` is ``data`` as JSON.

    ``scores``: compute them, of each place with the action's name (see ``replies.scores``);
    ``min_score`` computes them too, and leaves out an action that has a place with a lower score:
    ``data`` is then an empty list. ``strict``: whether replies are held to the form of a call, see
    ``tool_prompts.call_constraint``. Raises ``BadOption``.
    """
    goal = well_formed(goal).strip()
    if not goal:
        raise BadOption(
            "No goal was given. Write what is to be reached on the screen, such as: open the "
            "settings."
        )
    if screen not in TOOLS:
        raise BadOption(f"There is no screen {screen!r}. Choose one of {', '.join(SCREENS)}.")
    if strict not in STRICT:
        raise BadOption(f"There is no strict {strict!r}. Choose one of {', '.join(STRICT)}.")
    return Task(
        "act",
        _PROMPTS[screen].format(goal=goal),
        partial(read, screen=screen, min_score=scoring.checked(min_score)),
        system=_SYSTEM,
        instructions=partial(instructions, TOOLS[screen]),
        greedy=True,
        max_new_tokens=2048,
        logprobs=scores or min_score > 0,
        constraint_of=partial(call_constraint, TOOLS[screen], strict),
    )


def read(
    text: str, context: ReplyContext, screen: str = "computer", min_score: float = 0
) -> Result:
    """Parses a reply to ``act``. The tool is the one that the reply names, or else that of
    ``screen``. Raises ``UnreadableReply`` for a reply without an action, or whose action lacks its
    place or has it outside the picture."""
    answer = extract_answer(text)
    calls = find_calls(answer)
    if not calls:
        raise UnreadableReply(_complaint(text, answer), text)
    call = calls[0]
    tool = next((tool for tool in TOOLS.values() if tool.name == call.name), TOOLS[screen])
    written = _written_action(call, tool)
    if not written:
        raise UnreadableReply("The model's call names no action.", text)
    action = _spelled(written, tool)
    arguments = {"action": action, **_arguments(call, tool)}
    missing = [name for name in tool.needs.get(action, ()) if arguments.get(name) is None]
    if lost := [name for name in missing if name in COORDINATES]:
        raise UnreadableReply(f"The model's {action} has no {lost[0]} that can be read.", text)
    points = _points(text, arguments, written, context)
    notes = _notes(tool, action, missing, len(calls))
    notes += scoring.unscored_note([point.score for point in points], min_score)
    if not all(scoring.is_kept(point.score, min_score) for point in points):
        left_out = f"The model's {action} was left out: its score is below {min_score:g}."
        return Result(text="[]", data=[], notes=(*notes, left_out))
    return _result(call, tool, arguments, points, answer, notes)


def _points(
    text: str, arguments: dict[str, Any], written: str, context: ReplyContext
) -> list[Point]:
    """The places in ``arguments``, where they become whole pixels of the picture."""
    mapper = coordinates.PixelMapper(context)
    names = [name for name in COORDINATES if name in arguments]
    items = [(arguments[name], "" if number else written) for number, name in enumerate(names)]
    points = []
    for name, score in zip(names, scoring.scores(text, items, context.tokens), strict=True):
        point = mapper.point(arguments[name], arguments["action"], score)
        if point is None:
            raise UnreadableReply(mapper.complaint(), text)
        arguments[name] = list(coordinates.integer_point(point, context.image_size))
        points.append(point)
    return points


def _result(
    call: ToolCall,
    tool: Tool,
    arguments: dict[str, Any],
    points: list[Point],
    answer: str,
    notes: tuple[str, ...],
) -> Result:
    thought, step = _words(answer[: call.start], call.others)
    place = next((arguments[name] for name in COORDINATES if name in arguments), None)
    data = {
        "thought": thought,
        "step": step,
        "name": tool.name,
        "action": arguments["action"],
        "arguments": arguments,
        "point_2d": place,
        **scoring.entry(min((p.score for p in points if p.score is not None), default=None)),
    }
    text = json.dumps(data, ensure_ascii=False)
    return Result(text=text, points=tuple(points), data=data, notes=notes)


def _written_action(call: ToolCall, tool: Tool) -> str:
    """The action's name as the model spells it. Models also call the action itself as a tool."""
    name = call.arguments.get("action")
    if isinstance(name, str):
        return name.strip()
    return call.name.strip() if call.name != tool.name else ""


def _spelled(action: str, tool: Tool) -> str:
    """The action's name in the tool's spelling."""
    name = re.sub(r"[\s-]+", "_", action.lower())
    return name if name in tool.actions else tool.aliases.get(name, name)


def _arguments(call: ToolCall, tool: Tool) -> dict[str, Any]:
    """The arguments that the tool knows, as the types that it declares; places as numbers in the
    model's own coordinate space. One that is no such type is left out."""
    found = {}
    for name, about in tool.parameters.items():
        value = call.arguments.get(name)
        if name in COORDINATES:
            value = _place(call.arguments, name)
        elif about["type"] == "number":
            value = _number(_decoded(value))
        elif about["type"] == "array":
            value = _list(_decoded(value))
        elif value is not None:
            value = str(value)
        if value is not None:
            found[name] = value
    return found


def _place(arguments: Mapping[str, Any], name: str) -> bbox.Coordinates | None:
    """A point, or a box around it, under any of its names; None if there is no other than broken
    ones."""
    values = [_decoded(arguments[key]) for key in _PLACE_NAMES[name] if key in arguments]
    if name == COORDINATES[0] and {"x", "y"} <= arguments.keys():
        values.append([_decoded(arguments["x"]), _decoded(arguments["y"])])
    return next((place for value in values for place in bbox.parse(value)), None)


def _decoded(value: Any) -> Any:
    """``value``; one that XML gives as a text, as what it is in JSON."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < _MAX_NUMBER else None


def _list(value: Any) -> list[str] | None:
    """Keys; from "ctrl+c" and "ctrl++" too."""
    if isinstance(value, str):
        value = re.split(r"(?<=[^+])\+", value)
    return [str(item).strip() for item in value] if isinstance(value, list) else None


def _notes(tool: Tool, action: str, missing: list[str], count: int) -> tuple[str, ...]:
    notes = []
    if action not in tool.actions:
        notes.append(f"{action} is no action of {tool.name}.")
    if missing:
        notes.append(f"The model's {action} says no {' nor '.join(missing)}.")
    if count > 1:
        notes.append(
            f"The model called {count} actions; the first counts, as the others are about a screen "
            "that is yet to come."
        )
    return tuple(notes)


def _words(before: str, others: Mapping[str, Any]) -> tuple[str, str]:
    """Thought and step in what stands before the call, or beside it in its object. Words without a
    heading are the thought."""
    before = _BEFORE_CALL.sub("", before.rstrip())
    thought, step = _THOUGHT.search(before), _STEP.search(before)
    said = before[thought.end() if thought else 0 : step.start() if step else None]
    done = before[step.end() :] if step else ""
    if thought and step and step.start() < thought.start():
        said, done = before[thought.end() :], before[step.end() : thought.start()]
    if not said.strip():
        said = next((str(others[key]) for key in ("thought", "reasoning") if key in others), "")
    return _sentence(said), _sentence(done)


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    inner = text.removeprefix('"').removesuffix('"')
    return inner if len(text) - len(inner) == 2 and '"' not in inner else text


def _complaint(text: str, answer: str) -> str:
    if not answer:
        return STILL_THINKING if text.strip() else "The model answered nothing."
    excerpt = answer if len(answer) <= 200 else f"{answer[:150]} … {answer[-50:]}"
    return (
        "The model's reply holds no action that can be read. If it was cut off, raise "
        "max_new_tokens; else put the goal in other words, or try a larger model. It wrote: "
        f"{excerpt}"
    )

"""Tools of a screen: ``computer_use`` and ``mobile_use``, as the model makers describe them.

The words and names are those that the models were trained on, from ``agent_function_call.py`` and
``mobile_agent.ipynb`` of Qwen3-VL's cookbooks (Apache-2.0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

COORDINATES = ("coordinate", "coordinate2")
"""The parameters that are places on the screen."""


_WORD = {"type": "string", "maxLength": 30}
_FORMS: Mapping[str, Any] = {
    "keys": {"type": "array", "items": _WORD, "minItems": 1, "maxItems": 8},
    "text": {"type": "string", "maxLength": 2000},
    "pixels": {"type": "integer", "minimum": -99_999, "maximum": 99_999},
    "time": {"type": "integer", "minimum": 0, "maximum": 9999},
    "button": {"enum": ["Back", "Home", "Menu", "Enter"]},
    "status": {"enum": ["success", "failure"]},
}
"""JSON schemas of arguments that are no places; those in the tools are the makers' words, and say
less."""


def _object(properties: Mapping[str, Any], required: tuple[str, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


@dataclass(frozen=True)
class Tool:
    """A tool that a model may call. ``about``: what it is, with the screen's size to be put in.
    ``actions``: what each does. ``needs``: the arguments of an action beside its name; those not
    named here need none. ``aliases``: what models call an action by habit from elsewhere."""

    name: str
    about: str
    actions: Mapping[str, str]
    parameters: Mapping[str, Mapping[str, Any]]
    needs: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str]

    def schema(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        listed = "\n".join(f"* `{name}`: {about}" for name, about in self.actions.items())
        action = {
            "description": f"The action to perform. The available actions are:\n{listed}",
            "enum": list(self.actions),
            "type": "string",
        }
        properties = {"action": action, **self.parameters}
        return {"properties": properties, "required": ["action"], "type": "object"}

    def call_schema(self, largest: int) -> dict[str, Any]:
        """JSON schema of a call that can be read: this tool's name, one of its actions, and all
        that the action needs, in bounds that leave no number or list without an end. ``largest``:
        coordinate."""
        side = {"type": "integer", "minimum": 0, "maximum": largest}
        place = {"type": "array", "items": side, "minItems": 2, "maxItems": 2}
        forms = {**_FORMS, **dict.fromkeys(COORDINATES, place)}
        calls = [
            _object(
                {"action": {"const": action}, **{name: forms[name] for name in self.parameters}},
                ("action", *self.needs.get(action, ())),
            )
            for action in self.actions
        ]
        members = {"name": {"const": self.name}, "arguments": {"anyOf": calls}}
        return _object(members, tuple(members))

    def signature(self, width: int, height: int) -> str:
        """The function signature as JSON, for a screen of ``width`` by ``height``."""
        function = {
            "name": self.name,
            "description": self.about.format(width=width, height=height),
            "parameters": self.schema(),
        }
        return json.dumps({"type": "function", "function": function}, ensure_ascii=False)


_STATUS = {
    "description": "The status of the task. Required only by `action=terminate`.",
    "type": "string",
    "enum": ["success", "failure"],
}
_POINT = "(x, y): The x (pixels from the left edge) and y (pixels from the top edge) coordinates to"

_COMPUTER = Tool(
    "computer_use",
    "Use a mouse and keyboard to interact with a computer, and take screenshots.\n"
    "* This is an interface to a desktop GUI. You do not have access to a terminal or applications "
    "menu. You must click on desktop icons to start applications.\n"
    "* Some applications may take time to start or process actions, so you may need to wait and "
    "take successive screenshots to see the results of your actions. E.g. if you click on Firefox "
    "and a window doesn't open, try wait and taking another screenshot.\n"
    "* The screen's resolution is {width}x{height}.\n"
    "* Whenever you intend to move the cursor to click on an element like an icon, you should "
    "consult a screenshot to determine the coordinates of the element before moving the cursor.\n"
    "* If you tried clicking on a program or link but it failed to load, even after waiting, try "
    "adjusting your cursor position so that the tip of the cursor visually falls on the element "
    "that you want to click.\n"
    "* Make sure to click any buttons, links, icons, etc with the cursor tip in the center of the "
    "element. Don't click boxes on their edges.",
    {
        "key": "Performs key down presses on the arguments passed in order, then performs key "
        "releases in reverse order.",
        "type": "Type a string of text on the keyboard.",
        "mouse_move": "Move the cursor to a specified (x, y) pixel coordinate on the screen.",
        "left_click": "Click the left mouse button at a specified (x, y) pixel coordinate on the "
        "screen.",
        "left_click_drag": "Click and drag the cursor to a specified (x, y) pixel coordinate on "
        "the screen.",
        "right_click": "Click the right mouse button at a specified (x, y) pixel coordinate on the "
        "screen.",
        "middle_click": "Click the middle mouse button at a specified (x, y) pixel coordinate on "
        "the screen.",
        "double_click": "Double-click the left mouse button at a specified (x, y) pixel coordinate "
        "on the screen.",
        "triple_click": "Triple-click the left mouse button at a specified (x, y) pixel coordinate "
        "on the screen (simulated as double-click since it's the closest action).",
        "scroll": "Performs a scroll of the mouse scroll wheel.",
        "hscroll": "Performs a horizontal scroll (mapped to regular scroll).",
        "wait": "Wait specified seconds for the change to happen.",
        "terminate": "Terminate the current task and report its completion status.",
        "answer": "Answer a question.",
    },
    {
        "keys": {"description": "Required only by `action=key`.", "type": "array"},
        "text": {
            "description": "Required only by `action=type` and `action=answer`.",
            "type": "string",
        },
        "coordinate": {"description": f"{_POINT} move the mouse to.", "type": "array"},
        "pixels": {
            "description": "The amount of scrolling to perform. Positive values scroll up, "
            "negative values scroll down. Required only by `action=scroll` and `action=hscroll`.",
            "type": "number",
        },
        "time": {
            "description": "The seconds to wait. Required only by `action=wait`.",
            "type": "number",
        },
        "status": _STATUS,
    },
    {
        "key": ("keys",),
        "type": ("text",),
        **dict.fromkeys(
            ("mouse_move", "left_click", "left_click_drag", "right_click", "middle_click",
             "double_click", "triple_click"),
            ("coordinate",),
        ),
        "scroll": ("pixels",),
        "hscroll": ("pixels",),
        "wait": ("time",),
        "terminate": ("status",),
        "answer": ("text",),
    },
    {"click": "left_click", "tap": "left_click", "drag": "left_click_drag", "hotkey": "key"},
)  # fmt: skip

_MOBILE = Tool(
    "mobile_use",
    "Use a touchscreen to interact with a mobile device, and take screenshots.\n"
    "* This is an interface to a mobile device with touchscreen. You can perform actions like "
    "clicking, typing, swiping, etc.\n"
    "* Some applications may take time to start or process actions, so you may need to wait and "
    "take successive screenshots to see the results of your actions.\n"
    "* The screen's resolution is {width}x{height}.\n"
    "* Make sure to click any buttons, links, icons, etc with the cursor tip in the center of the "
    "element. Don't click boxes on their edges unless asked.",
    {
        "key": "Perform a key event on the mobile device.\n"
        "    - This supports adb's `keyevent` syntax.\n"
        '    - Examples: "volume_up", "volume_down", "power", "camera", "clear".',
        "click": "Click the point on the screen with coordinate (x, y).",
        "long_press": "Press the point on the screen with coordinate (x, y) for specified seconds.",
        "swipe": "Swipe from the starting point with coordinate (x, y) to the end point with "
        "coordinates2 (x2, y2).",
        "type": "Input the specified text into the activated input box.",
        "answer": "Output the answer.",
        "system_button": "Press the system button.",
        "open": "Open an app on the device.",
        "wait": "Wait specified seconds for the change to happen.",
        "terminate": "Terminate the current task and report its completion status.",
    },
    {
        "coordinate": {
            "description": f"{_POINT} move the mouse to. Required only by `action=click`, "
            "`action=long_press`, and `action=swipe`.",
            "type": "array",
        },
        "coordinate2": {
            "description": f"{_POINT} move the mouse to. Required only by `action=swipe`.",
            "type": "array",
        },
        "text": {
            "description": "Required only by `action=key`, `action=type`, `action=answer`, and "
            "`action=open`.",
            "type": "string",
        },
        "time": {
            "description": "The seconds to wait. Required only by `action=long_press` and "
            "`action=wait`.",
            "type": "number",
        },
        "button": {
            "description": "Back means returning to the previous interface, Home means returning "
            "to the desktop, Menu means opening the application background menu, and Enter means "
            "pressing the enter. Required only by `action=system_button`",
            "enum": ["Back", "Home", "Menu", "Enter"],
            "type": "string",
        },
        "status": _STATUS,
    },
    {
        "key": ("text",),
        "click": ("coordinate",),
        "long_press": ("coordinate", "time"),
        "swipe": ("coordinate", "coordinate2"),
        "type": ("text",),
        "answer": ("text",),
        "system_button": ("button",),
        "open": ("text",),
        "wait": ("time",),
        "terminate": ("status",),
    },
    {"left_click": "click", "tap": "click"},
)

TOOLS: Mapping[str, Tool] = MappingProxyType({"computer": _COMPUTER, "mobile": _MOBILE})
"""The tool for each kind of screen."""

"""Panels: what the page shows inside a node, declared in the node's schema.

A declaration maps kinds of panel, from top to bottom, to their options; several are joined with
``|``. It travels to the page in ``/object_info``, among the options of the node's first input: of
a schema, ComfyUI passes on these alone unchanged. ``web/declared_panels.js`` reads it, and
``web/*_panel.js`` each draw one kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

Panels = dict[str, Mapping[str, Any]]

KEY = "qwen_vl_panels"

ERRORS: Panels = {"answer": {}}
"""Nothing, until the node fails: then its error."""


def answer(height: int) -> Panels:
    """The texts of ``host.results_ui``, while they are written and afterwards, and errors.
    ``height``: least height in pixels."""
    return {"answer": {"height": height}}


def boxes() -> Panels:
    """The pictures and boxes of ``host.results_ui``. Boxes can be switched off for nodes
    downstream that have a ``box_selection``."""
    return {"boxes": {}}


def box_selection(widget: str) -> Panels:
    """The pictures and boxes of ``host.picked_boxes_ui``, and errors. The boxes that are switched
    off go into the node's text input ``widget``, which is hidden, as JSON (see
    ``picking.switched_off``)."""
    return {"boxes": {"selection": widget}}


def model(settings: Sequence[str], route: str) -> Panels:
    """The forecast for the model that the node will load, and errors. ``settings``: the inputs
    that it depends on, of which ``route`` is asked for it."""
    return {"model": {"settings": list(settings), "route": route}}


def server(settings: Sequence[str], into: str, route: str) -> Panels:
    """A button that asks ``route`` for the models of the server that the inputs ``settings`` name,
    and puts the one that is chosen into the text input ``into``; and errors. Nothing is asked
    before the button is pressed."""
    return {"server": {"settings": list(settings), "into": into, "route": route}, **ERRORS}


def example_picture(widget: str) -> Panels:
    """The picture that is chosen in the list ``widget``, one of ``example_workflows/pictures``."""
    return {"example_picture": {"widget": widget}}


def upload(widget: str, accept: str) -> Panels:
    """A button that puts a file into ComfyUI's input folder and chooses it in the list ``widget``.
    ``accept``: the ending that files must have."""
    return {"upload": {"widget": widget, "accept": accept}}


def words(source: str, into: str, route: str) -> Panels:
    """A button that puts the words behind the choice in the list ``source`` into the text input
    ``into``, to be edited there; ``route`` tells them by ``name``."""
    return {"words": {"source": source, "into": into, "route": route}}


def declare(panels: Panels, inputs: Sequence[io.Input]) -> None:
    """Adds the declaration to the inputs of a schema."""
    first = inputs[0]
    first.extra_dict = {**(first.extra_dict or {}), KEY: panels}

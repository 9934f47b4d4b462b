"""The example workflows as the front end saves them, and what it would send of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from real import ROOT

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
# Drawn by the front end alone.
NOTES = {"MarkdownNote", "Note"}
CONTROLS = {"fixed", "increment", "decrement", "randomize"}
# Values that a widget takes where it is not one: a comparison saves none, a crop's four sides are
# saved after it once more.
TAKES = {"IMAGECOMPARE": 0, "BOUNDING_BOX": 5}
_COMPARISON = {"__value__": ["", ""]}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def values(node: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    """(input, saved value) of each widget of a node, by the order in which it is saved."""
    rest, pairs = list(node["widgets_values"]), []
    for item in node["inputs"]:
        if "widget" not in item:
            continue
        taken = [rest.pop(0) for _ in range(TAKES.get(item["type"], 1))]
        pairs.append((item, taken[0] if taken else _COMPARISON))
        if item["type"] == "INT" and rest and rest[0] in CONTROLS:
            rest.pop(0)
    # A text preview keeps its looks without an input for them.
    assert not rest or node["type"] == "PreviewAny", (node["type"], rest)
    return pairs


def api_form(workflow: dict[str, Any]) -> dict[str, Any]:
    """Nodes by id as ``/prompt`` takes them."""
    starts = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {
        str(node["id"]): {
            "class_type": node["type"],
            "inputs": {
                **{item["name"]: value for item, value in values(node)},
                **{item["name"]: starts[item["link"]] for item in node["inputs"] if item["link"]},
            },
        }
        for node in workflow["nodes"]
        if node["type"] not in NOTES
    }

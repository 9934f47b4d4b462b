"""What saved workflows hold on to, against the record in ``tests/golden/object_info.json``.

The rule: an optional input added at the end is fine, and so are a wider range, a further choice, a
further output. Removing, renaming or reordering an input or output breaks every workflow saved
before, since widgets are saved by position and links by slot: give the new form a new node id
instead and declare a node replacement for the old one. An output may become a list: to the nodes
that take it, a list of one value is what the value was.

``QVL_RECORD=1`` records what is fine; a break is never recorded over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECORD = Path(__file__).resolve().parents[1] / "golden" / "object_info.json"
# Lists that depend on the machine: models on its disk, devices in it.
MACHINES = {"QVL_Loader": {"model", "device"}, "QVL_LoadPDF": {"file"}, "QVL_LoRA": {"adapter"},
            "QVL_GGUF": {"model", "mmproj"}}  # fmt: skip
CURE = (
    "Workflows saved before no longer load or run. Put it back; or give the new form a new node "
    "id and declare a node replacement (io.NodeReplace, in on_load of nodes/extension.py) from "
    "the old one. If no release has had the node, delete it from tests/golden/object_info.json "
    "and run this test with QVL_RECORD=1."
)

Inputs = list[dict[str, Any]]
Summary = dict[str, Any]


def summary(info: dict[str, Any]) -> Summary:
    """Of a node as ``/object_info`` gives it, what a saved workflow depends on, in order."""
    outputs = zip(info["output_name"], info["output"], info["output_is_list"], strict=True)
    return {
        "inputs": _inputs(info["input"], MACHINES.get(info["name"], set())),
        "outputs": [{"name": name, "type": kind, "list": many} for name, kind, many in outputs],
    }


def _inputs(groups: dict[str, Any], machines: set[str]) -> Inputs:
    found = []
    for group in ("required", "optional"):
        for name, (kind, fields) in groups.get(group, {}).items():
            entry = {"name": name, "type": kind, "optional": group == "optional"}
            entry |= {key: fields[key] for key in ("default", "min", "max") if key in fields}
            if fields.get("control_after_generate"):
                entry["control_after_generate"] = True  # takes a place of its own when saved
            if options := fields.get("options"):
                entry["options"] = _options(options)
            if name in machines:
                entry = {key: entry[key] for key in entry if key not in ("options", "default")}
            found.append(entry)
    return found


def _options(options: list[Any]) -> Any:
    """The choices; of a dynamic one by key, with the inputs that each choice shows."""
    if isinstance(options[0], dict):
        return {item["key"]: _inputs(item["inputs"], set()) for item in options}
    return options


def breaks(before: Summary, now: Summary) -> list[str]:
    """In what way workflows saved with ``before`` fail with ``now``; empty where they do not."""
    found = _breaks(before["inputs"], now["inputs"])
    for slot, output in enumerate(before["outputs"]):
        given = now["outputs"][slot] if slot < len(now["outputs"]) else None
        if given not in (output, {**output, "list": True}):
            found.append(f"output {slot} was {output}, is {given or 'gone'}")
    return found


def _breaks(before: Inputs, now: Inputs, nested: bool = False) -> list[str]:
    found = []
    known, given = [item["name"] for item in before], {item["name"]: item for item in now}
    order = [name for name in given if name in known]
    if order != [name for name in known if name in given]:
        found.append(f"inputs were in the order {known}, are in {order}")
    for place, (name, item) in enumerate(given.items()):
        if name in known:
            continue
        if nested:
            found.append(f"input {name} is new within a choice and moves what is saved after it")
        elif not item["optional"]:
            found.append(f"input {name} is new and not optional")
        elif place < len(known):
            found.append(f"input {name} is new and not at the end")
    for item in before:
        found += _changed(item, given.get(item["name"]))
    return found


def _changed(before: dict[str, Any], now: dict[str, Any] | None) -> list[str]:
    name = f"input {before['name']}"
    if now is None:
        return [f"{name} is gone"]
    found = [
        f"{name}: {key} was {before.get(key)}, is {now.get(key)}"
        for key in ("type", "control_after_generate")
        if before.get(key) != now.get(key)
    ]
    if before["optional"] and not now["optional"]:
        found.append(f"{name} was optional and must now be given")
    for key, narrower in (("min", lambda a, b: b > a), ("max", lambda a, b: b < a)):
        if key in now and (key not in before or narrower(before[key], now[key])):
            found.append(f"{name}: {key} was {before.get(key)}, is {now[key]}")
    choices, left = before.get("options", []), now.get("options", [])
    found += [f"{name}: choice {key!r} is gone" for key in choices if key not in left]
    if isinstance(choices, dict) and isinstance(left, dict):
        for key in choices.keys() & left.keys():
            found += [f"{name}, {key}: {x}" for x in _breaks(choices[key], left[key], True)]
    return found


def test_saved_workflows_keep_working(nodes: dict[str, Any]) -> None:
    """With QVL_RECORD set, what is new and breaks nothing is written to the record."""
    now = {name: summary(vars(cls.GET_SCHEMA().get_v1_info(cls))) for name, cls in nodes.items()}
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    gone = [f"{name}: the node is gone" for name in recorded if name not in now]
    broken = gone + [
        f"{name}: {line}"
        for name in recorded
        if name in now
        for line in breaks(recorded[name], now[name])
    ]
    assert not broken, "\n".join([*broken, CURE])
    if os.environ.get("QVL_RECORD"):
        RECORD.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        recorded = now
    assert recorded == now, "Nothing breaks, but the record is old: QVL_RECORD=1 writes it anew."


def a_node() -> Summary:
    return {
        "inputs": [
            {"name": "images", "type": "IMAGE", "optional": False},
            {"name": "style", "type": "COMBO", "optional": False, "options": ["short", "long"]},
            {
                **{"name": "sampling", "type": "COMFY_DYNAMICCOMBO_V3", "optional": False},
                "options": {"greedy": [], "custom": [a_number("top_k", optional=False)]},
            },
            a_number("seed", control_after_generate=True),
        ],
        "outputs": [
            {"name": "text", "type": "STRING", "list": True},
            {"name": "mask", "type": "MASK", "list": False},
        ],
    }


def a_number(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "INT", "optional": True, "min": 0, "max": 9, **fields}


FINE: dict[str, Callable[[Summary], Any]] = {
    "an optional input at the end": lambda x: x["inputs"].append(a_number("late")),
    "an output at the end": lambda x: x["outputs"].append({**x["outputs"][1], "name": "more"}),
    "an output that became a list": lambda x: x["outputs"][1].update(list=True),
    "another default": lambda x: x["inputs"][3].update(default=5),
    "a wider range": lambda x: x["inputs"][3].update(min=-1, max=10),
    "a further choice": lambda x: x["inputs"][1]["options"].insert(0, "title"),
    "a further dynamic choice": lambda x: x["inputs"][2]["options"].update(auto=[]),
}
BREAKING: dict[str, tuple[Callable[[Summary], Any], str]] = {
    "removed": (lambda x: x["inputs"].pop(), "input seed is gone"),
    "renamed": (lambda x: x["inputs"][1].update(name="kind"), "input style is gone"),
    "reordered": (lambda x: x["inputs"].reverse(), "in the order"),
    "inserted": (lambda x: x["inputs"].insert(1, a_number("early")), "not at the end"),
    "required": (
        lambda x: x["inputs"].append(a_number("late", optional=False)),
        "input late is new and not optional",
    ),
    "no longer optional": (lambda x: x["inputs"][3].update(optional=False), "must now be given"),
    "another type": (lambda x: x["inputs"][0].update(type="LATENT"), "type was IMAGE, is LATENT"),
    "a narrower range": (lambda x: x["inputs"][3].update(max=5), "max was 9, is 5"),
    "a new bound": (lambda x: x["inputs"][1].update(max=5), "max was None, is 5"),
    "a control that is gone": (
        lambda x: x["inputs"][3].pop("control_after_generate"),
        "control_after_generate was True",
    ),
    "a choice that is gone": (lambda x: x["inputs"][1]["options"].pop(), "choice 'long' is gone"),
    "a dynamic choice that is gone": (
        lambda x: x["inputs"][2]["options"].pop("greedy"),
        "choice 'greedy' is gone",
    ),
    "an input within a choice": (
        lambda x: x["inputs"][2]["options"]["custom"].append(a_number("min_p")),
        "sampling, custom: input min_p is new within a choice",
    ),
    "an output that is gone": (lambda x: x["outputs"].pop(), "output 1 was"),
    "outputs reordered": (lambda x: x["outputs"].reverse(), "output 0 was"),
    "an output that became single": (lambda x: x["outputs"][0].update(list=False), "output 0"),
}


@pytest.mark.parametrize("name", FINE)
def test_what_old_workflows_do_not_notice(name: str) -> None:
    now = a_node()
    FINE[name](now)
    assert now != a_node() and breaks(a_node(), now) == []


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_old_workflows_is_named(name: str) -> None:
    edit, expected = BREAKING[name]
    now = a_node()
    edit(now)
    assert any(expected in line for line in breaks(a_node(), now)), breaks(a_node(), now)

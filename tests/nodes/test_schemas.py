"""What the graph shows: every widget explained, wired, and kept across versions."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from comfy_api.latest import io

RECORD = Path(__file__).resolve().parents[1] / "golden" / "object_info.json"
Nodes = dict[str, type[io.ComfyNode]]
# ``test_object_info`` fails where the record lacks a node.
every_node = pytest.mark.parametrize("node_id", json.loads(RECORD.read_text(encoding="utf-8")))


def all_inputs(inputs: list[Any]) -> list[Any]:
    found = list(inputs)
    for item in inputs:
        if isinstance(item, io.DynamicCombo.Input):
            for option in item.options:
                found += all_inputs(option.inputs)
    return found


@every_node
def test_a_person_finds_and_understands_the_node(nodes: Nodes, node_id: str) -> None:
    schema = nodes[node_id].define_schema()
    assert schema.category == "Qwen-VL"
    assert schema.display_name.startswith("Qwen-VL ")
    assert len(schema.description) > 40
    assert len(schema.search_aliases) >= 3
    for item in [*all_inputs(schema.inputs), *schema.outputs]:
        assert item.tooltip and item.tooltip.endswith((".", ".)")), item.id


@every_node
def test_schema_is_valid_and_serialises(nodes: Nodes, node_id: str) -> None:
    schema = nodes[node_id].GET_SCHEMA()
    schema.validate()
    info = schema.get_v1_info(nodes[node_id])
    assert info.output and len(info.output) == len(set(info.output_name))


@every_node
def test_every_widget_is_wired_and_every_argument_has_a_widget(nodes: Nodes, node_id: str) -> None:
    cls = nodes[node_id]
    schema = cls.define_schema()
    arguments = inspect.signature(cls.execute).parameters
    assert {item.id for item in schema.inputs} == set(arguments)
    for item in schema.inputs:
        if item.optional:
            # A socket has no default of its own: not connected is None.
            assert arguments[item.id].default == getattr(item, "default", None), item.id


@pytest.mark.parametrize(
    "node_id",
    [
        "QVL_Describe",
        "QVL_OCR",
        "QVL_Grounding",
        "QVL_Extract",
        "QVL_Layout",
        "QVL_Chat",
        "QVL_PickBoxes",
        "QVL_Unload",
    ],
)
def test_a_node_that_shows_its_results_may_end_a_graph(nodes: Nodes, node_id: str) -> None:
    info = nodes[node_id].GET_SCHEMA().get_v1_info(nodes[node_id])
    assert info.output_node is True


@every_node
def test_execute_is_synchronous(nodes: Nodes, node_id: str) -> None:
    assert not inspect.iscoroutinefunction(nodes[node_id].execute)


def test_folded_away_widgets_may_be_left_out(nodes: Nodes) -> None:
    for node_id, cls in nodes.items():
        for item in cls.define_schema().inputs:
            if item.as_dict().get("advanced"):
                assert item.optional, (node_id, item.id)


def test_defaults_are_among_the_options(nodes: Nodes, untouched: Any) -> None:
    for node_id, cls in nodes.items():
        inputs = cls.define_schema().inputs
        values = untouched(inputs)
        for item in inputs:
            if isinstance(item, io.Combo.Input):
                assert values[item.id] in item.options, (node_id, item.id)

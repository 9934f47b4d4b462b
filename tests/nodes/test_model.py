"""Model handles: a model stays loaded as long as the graph holds a handle, and no longer."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import pytest
from qwen_vl_suite.nodes import model as model_module
from qwen_vl_suite.nodes.model import AFTER_USE, ModelHandle, Question
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.errors import UnreadableReply
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import LocalSpec, ServerSpec, Spec


def models_loaded() -> int:
    """How many models are loaded after garbage collection."""
    gc.collect()
    return model_module.CACHE.stats().models


def use(model: Any, pictures: Any) -> None:
    model.answer([Question(model, describe("short"), pictures, {})])


def test_dropping_the_last_handle_unloads_the_model(scripted: Any, pictures: Any) -> None:
    model, backend = scripted("one", "two", "three")
    use(model, pictures)
    assert models_loaded() == 1
    del model
    assert models_loaded() == 0
    assert backend.closed


def test_another_handle_of_an_equal_spec_keeps_it_loaded(scripted: Any, pictures: Any) -> None:
    model, _ = scripted("one", "two", "three")
    use(model, pictures)
    other = dataclasses.replace(model, max_pixels=100_000)
    del model
    assert models_loaded() == 1
    use(other, pictures)
    assert model_module.CACHE.stats().misses == 1, "loaded once for both"
    del other
    assert models_loaded() == 0


def test_a_handle_that_was_never_used_unloads_nothing(scripted: Any, pictures: Any) -> None:
    used, _ = scripted("one", "two", "three")
    unused, _ = scripted("one")
    use(used, pictures)
    del unused
    assert models_loaded() == 1
    use(used, pictures)


@pytest.mark.parametrize(
    ("after_use", "place"), [("keep", "device"), ("offload to RAM", "ram"), ("unload", "disk")]
)
def test_after_use_decides_where_the_weights_are(
    scripted: Any, pictures: Any, after_use: str, place: str
) -> None:
    model, backend = scripted("one", "two", "three")
    use(dataclasses.replace(model, after_use=after_use), pictures)
    assert backend.place == place
    use(model, pictures)
    assert backend.place == "device", "and it can be used again"


def test_after_use_applies_after_an_error_too(scripted: Any, pictures: Any) -> None:
    model, backend = scripted("It is over there, I think.")
    with pytest.raises(UnreadableReply):
        handle = dataclasses.replace(model, after_use="unload")
        handle.answer([Question(handle, ground("x"), pictures, {})])
    assert backend.place == "disk"


@pytest.mark.parametrize("after_use", AFTER_USE)
@pytest.mark.parametrize(
    ("node_id", "widgets"),
    [("QVL_Describe", {}), ("QVL_OCR", {}), ("QVL_Grounding", {"find": "cat"})],
)
def test_a_model_that_runs_elsewhere_serves_every_node(
    run_node: Callable[..., Any],
    scripted: Any,
    pictures: Any,
    node_id: str,
    widgets: dict[str, Any],
    after_use: str,
) -> None:
    model, backend = scripted("None found.", elsewhere=True)
    handle = dataclasses.replace(model, after_use=after_use)
    texts, *_ = run_node(node_id, model=handle, images=pictures, **widgets)
    assert len(texts) == 3 and backend.batches == [3]
    for where_to in ("unload", "offload to RAM"):
        assert run_node("QVL_Unload", after="text", model=handle, where_to=where_to)[0] == "text"
    run_node(node_id, model=handle, images=pictures, **widgets)
    assert not backend.closed, "it is not in this machine's memory, and stays open"
    assert model_module.CACHE.stats().bytes == 0
    del model, handle
    assert models_loaded() == 0 and backend.closed


def test_unload_frees_one_model_or_all(
    run_node: Callable[..., Any], scripted: Any, pictures: Any
) -> None:
    first, one = scripted("one", "two", "three")
    second, two = scripted("one", "two", "three")
    for model in (first, second):
        use(model, pictures)
    assert run_node("QVL_Unload", after="text", model=first)[0] == "text"
    assert (one.place, two.place) == ("disk", "device")
    run_node("QVL_Unload", after="text", where_to="offload to RAM")
    assert two.place == "ram"
    use(first, pictures)
    assert one.place == "device"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        pytest.param(LocalSpec(str(library.BUNDLED)), "nano", id="bundled"),
        pytest.param(LocalSpec("/home/me/models/LLM/Qwen3-VL-4B"), "Qwen3-VL-4B", id="on disk"),
        pytest.param(
            ServerSpec(("http://localhost",), "Qwen3-VL-4B"), "Qwen3-VL-4B", id="on a server"
        ),
    ],
)
def test_a_handle_prints_as_its_models_name(spec: Spec, name: str) -> None:
    handle = ModelHandle(spec)
    assert (str(handle), repr(handle), f"{handle}") == (name, name, name)

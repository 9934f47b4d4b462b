"""A model stays loaded for as long as something in the graph holds it, and no longer."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from qwen_vl_suite.nodes import model as model_module
from qwen_vl_suite.qwenvl.tasks.describe import describe


def settled() -> int:
    """How many models are loaded once every unloading under way is done."""
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "qwen-vl-unload":
            thread.join()
    return model_module.CACHE.stats().models


def use(model: Any, pictures: Any) -> None:
    model.answer(describe("short"), pictures, {})


def test_the_last_handle_takes_the_model_along(scripted: Any, pictures: Any) -> None:
    model, backend = scripted("one", "two", "three")
    use(model, pictures)
    assert settled() == 1
    del model
    assert settled() == 0
    assert backend.replies == [], "the backend was not closed"


def test_another_handle_of_equal_settings_keeps_it(scripted: Any, pictures: Any) -> None:
    model, _ = scripted("one", "two", "three")
    use(model, pictures)
    other = dataclasses.replace(model, max_pixels=100_000)
    del model
    assert settled() == 1
    use(other, pictures)
    assert model_module.CACHE.stats().misses == 1, "loaded once for both"
    del other
    assert settled() == 0


def test_a_handle_that_was_never_used_unloads_nothing(scripted: Any, pictures: Any) -> None:
    used, _ = scripted("one", "two", "three")
    unused, _ = scripted("one")
    use(used, pictures)
    del unused
    assert settled() == 1
    use(used, pictures)


AT_THE_END = """
import sys, time
sys.path.insert(0, {tests!r})
import conftest
from qwen_vl_suite.nodes import model
from qwen_vl_suite.qwenvl.cache import ModelCache
from qwen_vl_suite.qwenvl.types import ModelSpec

class Slow:
    nbytes = 0
    def close(self):
        time.sleep(0.5)
        print("closed")

model.CACHE = ModelCache(lambda spec: Slow())
handle = model.ModelHandle(ModelSpec("x"))
model.CACHE.get(handle.spec)
del handle
"""


def test_the_interpreter_ends_only_when_the_model_is_closed() -> None:
    tests = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END.format(tests=tests)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "closed"), done.stderr

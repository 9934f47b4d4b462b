"""For all tests of the command line."""

from __future__ import annotations

import pytest
from qwen_vl_suite.qwenvl import model_cache


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """A model cache of this test's own."""
    found = model_cache.ModelCache(model_cache._load)
    monkeypatch.setattr(model_cache, "CACHE", found)
    yield
    found.clear()

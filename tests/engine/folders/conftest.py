"""Models that are asked one lot after another, and that take in files while they answer others."""

from __future__ import annotations

import pytest
from qwen_vl_suite.qwenvl.backends.scripted import ContinuousScriptedBackend


@pytest.fixture(params=["lot after lot", "continuous"])
def each_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's ``ScriptedBackend`` is either of them."""
    if request.param == "continuous":
        monkeypatch.setattr(request.module, "ScriptedBackend", ContinuousScriptedBackend)

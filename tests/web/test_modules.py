"""Every file below web/, as ComfyUI loads it: each by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.web
WEB = Path(__file__).resolve().parents[2] / "web"
MODULES = sorted(path.relative_to(WEB).as_posix() for path in WEB.rglob("*.js"))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_alone_is_harmless(bare: Any, module: str) -> None:
    """No error, nothing on the page, nothing global."""
    before = set(bare.evaluate("Object.getOwnPropertyNames(globalThis)"))
    bare.evaluate("(at) => import(at)", f"/extensions/qwen-vl-suite/{module}")
    assert set(bare.evaluate("Object.getOwnPropertyNames(globalThis)")) == before
    assert bare.evaluate("document.body.childElementCount") == 0

"""How the pack starts, and how it says that it did not."""

from __future__ import annotations

import logging
from typing import Any

import own_loop
import pytest
from qwen_vl_suite.nodes import extension


def test_a_failure_to_load_the_nodes_is_logged_with_its_trace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[Any]:
        raise RuntimeError("a node is broken")

    monkeypatch.setattr(extension, "nodes", broken)
    with pytest.raises(RuntimeError, match="a node is broken"):
        own_loop.run(extension.QwenVLSuite().get_node_list())
    (record,) = (item for item in caplog.records if item.levelno == logging.ERROR)
    assert record.exc_info is not None and record.exc_info[0] is RuntimeError


def test_every_node_has_a_help_page(nodes: Any) -> None:
    from pathlib import Path

    import qwen_vl_suite

    pages = Path(qwen_vl_suite.__file__).parent / qwen_vl_suite.WEB_DIRECTORY / "docs"
    assert {page.stem for page in pages.glob("*.md")} == set(nodes)
    for node_id, cls in nodes.items():
        text = (pages / f"{node_id}.md").read_text(encoding="utf-8")
        for item in cls.define_schema().inputs:
            if item.id not in ("model", "images", "bboxes"):
                assert item.id in text, (node_id, item.id)

"""Adapters on the command line: found, put on with a strength, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import pytest
from qwen_vl_suite.qwenvl.checkpoints import transformers_version
from qwen_vl_suite.qwenvl.checkpoints.library import BUNDLED
from qwen_vl_suite.qwenvl.cli.model_names import adapters_of
from qwen_vl_suite.qwenvl.errors import BadOption, CheckpointError, CheckpointNotFound
from qwen_vl_suite.qwenvl.types import Adapter

PICTURE = Path(__file__).resolve().parents[3] / "example_workflows" / "pictures"


@pytest.fixture(scope="module")
def root(tmp_path_factory: Any) -> Path:
    root: Path = tmp_path_factory.mktemp("roots")
    adapters.make(root / "group" / "mine", BUNDLED, targets=("q_proj", "v_proj"))
    return root


@pytest.mark.skipif(transformers_version.is_older("5"), reason="as with the newest")
def test_an_adapter_is_put_on_with_its_strength(run: Callable[..., Any], root: Path) -> None:
    picture = min(PICTURE.iterdir())

    def text(*options: object) -> str:
        status, rows, _ = run(
            "describe", picture, "--device", "cpu", "--max-new-tokens", 12, "--json", *options
        )
        assert status in (0, 1)
        return str(rows[0]["text"])

    folder = root / "group" / "mine"
    on = text("--lora", folder)
    assert text() == text("--lora", f"{folder}:0") != on
    assert text("--lora", "mine:1.0", "--root", root) == on
    status, _, err = run("describe", picture, "--lora", f"{folder}:x")
    assert status == 2 and "no adapter" in err


def test_names_folders_and_strengths(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "group" / "mine"
    for name in (folder, "group/mine", "mine", "Mine"):
        assert adapters_of([f"{name}:-0.5"], [str(root)]) == (Adapter(str(folder), -0.5),)
    odd = folder.rename(folder.with_name("mine:2"))
    assert adapters_of([str(odd)], None) == (Adapter(str(odd)),)
    assert adapters_of([f"{odd}:3"], None) == (Adapter(str(odd), 3),)
    odd.rename(folder)
    with pytest.raises(BadOption, match="put on twice"):
        adapters_of(["mine", str(folder)], [str(root)])
    with pytest.raises(CheckpointNotFound, match=r"no adapter 'yours' .* Those here: group/mine"):
        adapters_of(["yours"], [str(root)])
    with pytest.raises(CheckpointNotFound, match=r"is no adapter: it holds no adapter_config"):
        adapters_of([str(root)], None)
    adapters.change_config(folder, peft_type="IA3")
    with pytest.raises(CheckpointError, match="type IA3"):
        adapters_of(["mine"], [str(root)])
    adapters.change_config(folder, peft_type="LORA")

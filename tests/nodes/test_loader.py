"""The Loader: which models it offers, how a saved name is resolved, and what its handle holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths
import pytest
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.host import page, progress
from qwen_vl_suite.nodes.loader import Loader
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.errors import (
    CheckpointNotFound,
    IncompleteCheckpoint,
    QwenVLError,
    UnsupportedModel,
)
from qwen_vl_suite.qwenvl.types import LocalSpec

CATALOGUED = "Qwen/Qwen3-VL-4B-Instruct"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model folder, the only one there is."""
    folders = {**folder_paths.folder_names_and_paths, host.FOLDER_KEY: ([str(tmp_path)], set())}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folders)
    return tmp_path


@pytest.fixture
def put(root: Path) -> Callable[..., Path]:
    """``put("group/name")`` makes a whole checkpoint; ``incomplete=True`` one without weights."""

    def make(name: str, incomplete: bool = False) -> Path:
        folder = root / name
        shutil.copytree(library.BUNDLED, folder)
        if incomplete:
            (folder / "model.safetensors").unlink()
        return folder

    return make


def bring(model: str, source: str) -> Path:
    """The folder of a model, downloaded as the Loader does it."""
    (handle,) = Loader.execute(model, source=source).args
    return Path(handle.spec.checkpoint)


def test_the_shared_folder_is_registered_without_on_load(nodes: Any) -> None:
    home = Path(folder_paths.models_dir) / "LLM"
    assert str(home) in folder_paths.get_folder_paths("LLM")


def test_models_on_disk_are_offered_first_and_the_catalogue_last(put: Any) -> None:
    put("Qwen-VL/mine")
    put("half", incomplete=True)
    offered = host.model_library().choices()
    assert offered[:3] == ["Qwen-VL/mine", "nano (bundled demo)", "half (incomplete)"]
    assert f"{CATALOGUED} (download, 8.9 GB)" in offered[3:]
    assert len(offered) == 3 + len(library.CATALOGUE)


def test_models_on_disk_are_not_offered_for_download(put: Any) -> None:
    put("Qwen-VL/Qwen3-VL-4B-Instruct")
    assert "Qwen-VL/Qwen3-VL-4B-Instruct" in host.model_library().choices()
    assert not [
        item for item in host.model_library().choices() if item.startswith(CATALOGUED + " ")
    ]


def test_without_models_the_bundled_one_comes_first(root: Path, nodes: Any) -> None:
    assert host.model_library().choices()[0] == "nano (bundled demo)"
    model = nodes["QVL_Loader"].define_schema().inputs[0]
    assert model.default == "nano (bundled demo)"


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param("Qwen-VL/Qwen3-VL-4B-Instruct", id="as listed"),
        pytest.param("Qwen-VL\\Qwen3-VL-4B-Instruct", id="saved on Windows"),
        pytest.param("Qwen3-VL-4B-Instruct", id="saved where it lay at the root"),
        pytest.param(f"{CATALOGUED} (download, 8.9 GB)", id="saved before the download"),
        pytest.param(
            "Qwen-VL/Qwen3-VL-4B-Instruct (incomplete)", id="saved while it was incomplete"
        ),
    ],
)
def test_a_saved_choice_survives_moves_and_downloads(put: Any, choice: str) -> None:
    folder = put("Qwen-VL/Qwen3-VL-4B-Instruct")
    assert host.model_library().locate(choice) == folder


def test_a_folder_with_brackets_in_its_name(put: Any) -> None:
    folder = put("mine (copy)")
    assert host.model_library().locate("mine (copy)") == folder
    assert host.model_library().locate("mine (copy) (incomplete)") == folder


def test_a_download_goes_into_the_shared_folder(root: Path) -> None:
    place = host.model_library().locate(f"{CATALOGUED} (download, 8.9 GB)")
    assert place == library.Download(CATALOGUED, root / "Qwen-VL")


def test_an_incomplete_download_is_completed_where_it_lies(put: Any, root: Path) -> None:
    put("Qwen3-VL-4B-Instruct", incomplete=True)
    assert host.model_library().locate("Qwen3-VL-4B-Instruct (incomplete)") == library.Download(
        CATALOGUED, root
    )


def test_an_incomplete_checkpoint_outside_the_catalogue_is_an_error(
    put: Any, run_node: Callable[..., Any]
) -> None:
    put("mine", incomplete=True)
    with pytest.raises(IncompleteCheckpoint, match=r"model\.safetensors"):
        run_node("QVL_Loader", model="mine (incomplete)")


def test_what_cannot_be_loaded_is_offered_late_and_says_why(
    put: Any, run_node: Callable[..., Any]
) -> None:
    folder = put("Qwen3-VL-4B-Instruct")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    choice = "Qwen3-VL-4B-Instruct (cannot be loaded)"
    assert host.model_library().choices()[:2] == ["nano (bundled demo)", choice]
    assert host.model_library().locate(choice) == folder
    with pytest.raises(UnsupportedModel, match="a model and an adapter"):
        run_node("QVL_Loader", model=choice)


def test_an_unknown_model(root: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="Did you mean Qwen/Qwen3-VL-4B-Instruct"):
        host.model_library().locate("Qwen/Qwen3-VL-4B-Instrukt")
    with pytest.raises(CheckpointNotFound, match="Choose another model"):
        host.model_library().locate("zzz")


def test_a_download_shows_progress_and_can_be_interrupted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(repo_id: str, folder: Path, **options: Any) -> Path:
        asked.update(options, repo_id=repo_id, folder=folder)
        options["progress"](1, 2, "model.safetensors")
        options["check"]()
        return folder / "there"

    monkeypatch.setattr(library, "download", download)
    assert bring(CATALOGUED, "modelscope") == root / "Qwen-VL" / "there"
    assert asked["repo_id"] == CATALOGUED
    assert asked["source"] == "modelscope"
    assert asked["check"] is host.check_interrupt


def test_the_progress_of_a_download_reaches_the_page_at_a_bounded_rate(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    now = 100.0

    def download(repo_id: str, folder: Path, **options: Any) -> Path:
        nonlocal now
        for done in range(1, 100_001):  # GB in pieces of 64 kB, 50 seconds
            options["progress"](done << 16, 100_000 << 16, "model.safetensors")
            now += 0.0005
        return folder

    monkeypatch.setattr(library, "download", download)
    monkeypatch.setattr(page, "send_live", lambda **news: told.append(news["status"]))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    bring(CATALOGUED, "huggingface")
    assert "0.00 of 6.55 GB (model.safetensors)" in told[0] and "6.5" in told[-1]
    assert 50 < len(told) < 1000


def test_equal_settings_give_equal_handles(root: Path, run_node: Callable[..., Any]) -> None:
    (first,) = run_node("QVL_Loader", model="nano (bundled demo)")
    (second,) = run_node("QVL_Loader", model="nano")
    assert first == second
    assert first.spec == LocalSpec(str(library.BUNDLED), device=host.device("auto"))
    assert (first.min_pixels, first.max_pixels) == (None, None)


def test_every_widget_reaches_the_handle(root: Path, run_node: Callable[..., Any]) -> None:
    (handle,) = run_node(
        "QVL_Loader",
        model="nano",
        quantization="4bit",
        precision="fp32",
        attention="eager",
        device="cpu",
        min_pixels=4096,
        max_pixels=65536,
        optimize="off",
    )
    spec = LocalSpec(str(library.BUNDLED), "fp32", "4bit", "eager", "cpu", optimize="off")
    assert handle.spec == spec
    assert (handle.min_pixels, handle.max_pixels) == (4096, 65536)


def test_validation_reports_before_the_run(root: Path, nodes: Any) -> None:
    validate = nodes["QVL_Loader"].validate_inputs
    assert validate(model=f"{CATALOGUED} (download, 8.9 GB)", device="auto") is True
    assert validate() is True
    assert "no model 'zzz'" in validate(model="zzz", device="cpu")
    assert "cuda:99 is not on this machine" in validate(model="nano", device="cuda:99")


@pytest.mark.parametrize("model", [0, 3.5, True, {"a": 1}])
def test_a_model_that_is_no_name_is_refused_before_the_run(nodes: Any, model: Any) -> None:
    assert f"The model is {model!r}" in nodes["QVL_Loader"].validate_inputs(model=model)


@pytest.mark.parametrize(
    "widgets", [{"model": None}, {"model": 7}, {"model": "nano", "device": None}], ids=str
)
def test_a_widget_without_a_value_is_reported(
    run_node: Callable[..., Any], widgets: dict[str, Any]
) -> None:
    with pytest.raises(QwenVLError, match=r"is (None|7)"):
        run_node("QVL_Loader", **widgets)

"""A model that is typed into the Loader: its size and the user's consent before its download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths
import own_loop
import pytest
from qwen_vl_suite.nodes import forecast, host
from qwen_vl_suite.nodes.host import routes
from qwen_vl_suite.qwenvl.checkpoints import library, remote_size
from qwen_vl_suite.qwenvl.errors import BadOption, DownloadError
from qwen_vl_suite.qwenvl.models import forecast as engine

NAME = "somebody/Tiny-VL"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model folder, and a user who has allowed nothing."""
    models = tmp_path / "LLM"
    folders = {**folder_paths.folder_names_and_paths, host.FOLDER_KEY: ([str(models)], set())}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folders)
    monkeypatch.setattr(
        folder_paths, "get_user_directory", lambda: str(tmp_path / "user"), raising=False
    )
    monkeypatch.setattr(remote_size, "_KNOWN", {})
    return models


@pytest.fixture(autouse=True)
def hub_asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a hub was asked about; every repository has 5,000 bytes."""
    asked: list[str] = []

    def listing(repo_id: str, revision: str | None) -> Any:
        asked.append(repo_id)
        return SimpleNamespace(files=[SimpleNamespace(size=5000)])

    monkeypatch.setattr(remote_size, "hub_for", lambda source: SimpleNamespace(listing=listing))
    monkeypatch.setattr(remote_size, "select_files", lambda hub, repo_id, files, with_code: files)
    return asked


@pytest.fixture
def downloads(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was downloaded."""
    done: list[dict[str, Any]] = []

    def download(repo_id: str, place: Path, **options: Any) -> Path:
        done.append({"repo_id": repo_id, "place": place, **options})
        return place / options["folder_name"]

    monkeypatch.setattr(library, "download", download)
    return done


def test_it_is_downloaded_once_the_user_has_allowed_it(
    root: Path,
    downloads: list[dict[str, Any]],
    hub_asked: list[str],
    nodes: Any,
    run_node: Callable[..., Any],
) -> None:
    widgets = {"model": "nano", "device": "cpu", "custom_model": f"{NAME}@v1.0"}
    command = f"python -m qwenvl download {NAME}@v1.0 --root {root / 'somebody'}"
    assert command in nodes["QVL_Loader"].validate_inputs(**widgets)
    with pytest.raises(DownloadError, match="only if you allow it"):
        run_node("QVL_Loader", **widgets)
    # A workflow that was only opened asks no hub.
    assert forecast.forecast(widgets)["consent"] == "not asked" and not hub_asked
    assert forecast.download_size(widgets) == {"bytes": 5000}
    found = forecast.forecast(widgets)
    assert (found["consent"], found["to_download"]) == ("needed", 5000) and len(hub_asked) == 1
    assert (found["repository"], found["source"]) == (f"{NAME}@v1.0", "huggingface")
    assert found["disk"] > 0 and found["problem"] == "" and found["availability"] == "download"
    assert not downloads and str(root.parent) not in json.dumps(found)

    assert forecast.allow_download(widgets) == {"allowed": f"{NAME}@v1.0"}
    assert forecast.forecast(widgets)["consent"] == "given"
    assert nodes["QVL_Loader"].validate_inputs(**widgets) is True
    (handle,) = run_node("QVL_Loader", **widgets)
    (done,) = downloads
    assert (done["repo_id"], done["place"]) == (NAME, root / "somebody")
    assert (done["source"], done["revision"]) == ("huggingface", "v1.0")
    assert handle.spec.checkpoint == str(root / "somebody" / "Tiny-VL@v1.0")
    with pytest.raises(DownloadError):
        run_node("QVL_Loader", **{**widgets, "custom_model": NAME})


def test_no_room_on_the_disk_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "free_bytes", lambda folder: 4999)
    forecast.download_size({"custom_model": NAME})
    assert "no room" in forecast.forecast({"custom_model": NAME, "device": "cpu"})["problem"]


def test_names_that_are_none_and_models_that_need_no_consent(
    root: Path, downloads: list[dict[str, Any]], nodes: Any, run_node: Callable[..., Any]
) -> None:
    validate = nodes["QVL_Loader"].validate_inputs
    assert "owner/name" in validate(model="nano", custom_model="no name")
    assert validate(model="gone", custom_model="Qwen/Qwen3-VL-2B-Instruct") is True
    with pytest.raises(BadOption, match="custom_model is empty"):
        forecast.allow_download({"custom_model": "  "})
    with pytest.raises(BadOption, match="no page of a model"):
        forecast.allow_download({"custom_model": "https://evil.example/a/b"})
    run_node("QVL_Loader", model="nano", custom_model="Qwen/Qwen3-VL-2B-Instruct")
    assert downloads[0]["place"] == root / "Qwen-VL"
    found = forecast.forecast({"custom_model": "Qwen/Qwen3-VL-2B-Instruct", "device": "cpu"})
    assert found["consent"] == "" and found["weights"]


def test_only_json_can_allow_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a form on another site can send is refused."""
    handlers: dict[str, Any] = {}
    told: list[Any] = []
    server = SimpleNamespace(
        post=lambda path: lambda handler: handlers.setdefault(path, handler),
        json_response=lambda body, status: (status, body),
    )
    server.instance = SimpleNamespace(routes=server)
    monkeypatch.setattr(routes, "optional_import", lambda module, name="": server)
    monkeypatch.setattr(routes, "_registered", set())
    host.accept_json("/allow", lambda body: told.append(body) or {"done": "yes"})

    def post(content: str, kind: str = "application/json") -> int:
        async def parsed() -> Any:
            return json.loads(content)

        status, _ = own_loop.run(
            handlers["/allow"](SimpleNamespace(content_type=kind, json=parsed))
        )
        return int(status)

    wanted = json.dumps({"custom_model": NAME})
    assert post(wanted, "text/plain") == post(wanted, "application/x-www-form-urlencoded") == 415
    assert [post(text) for text in ("{", "[]", '{"custom_model": 1}')] == [400] * 3
    assert told == []
    assert post(wanted) == 200 and told == [{"custom_model": NAME}]

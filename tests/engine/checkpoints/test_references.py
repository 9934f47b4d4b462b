"""Models named by a person: what a name or address means, and whether its download is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disk import files, write
from hub import COMMIT, Hub
from qwen_vl_suite.qwenvl.checkpoints import remote_size
from qwen_vl_suite.qwenvl.checkpoints.library import Download, ModelLibrary
from qwen_vl_suite.qwenvl.checkpoints.references import Consents, Reference, parse_reference
from qwen_vl_suite.qwenvl.errors import BadOption, DownloadError

MINE = Reference("somebody/Tiny-VL", "huggingface")
HF, MS = "https://huggingface.co", "https://www.modelscope.cn/models"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("somebody/Tiny-VL", MINE),
        (" somebody/Tiny-VL@main ", MINE),
        ("somebody/Tiny-VL@v1.0", Reference(MINE.repo_id, "huggingface", "v1.0")),
        (f"{HF}/somebody/Tiny-VL", MINE),
        (f"{HF}/somebody/Tiny-VL/?library=transformers#usage", MINE),
        ("huggingface.co/somebody/Tiny-VL", MINE),
        (f"{HF}/somebody/Tiny-VL/tree/v1.0", Reference(MINE.repo_id, "huggingface", "v1.0")),
        (f"{HF}/somebody/Tiny-VL/blob/main/config.json", MINE),
        (f"{MS}/somebody/Tiny-VL/files", Reference(MINE.repo_id, "modelscope")),
        ("modelscope.cn/models/somebody/Tiny-VL", Reference(MINE.repo_id, "modelscope")),
    ],
)
def test_what_a_person_writes(text: str, expected: Reference) -> None:
    assert parse_reference(text, "huggingface") == expected
    if not text.startswith(("http", "hugging", "modelscope")):
        assert parse_reference(text, "modelscope").source == "modelscope"


@pytest.mark.parametrize(
    "text",
    [
        *("", "Tiny-VL", "a/b/c", "../b", "a/..", "a b/c", "a/b@\0", "a@b/c"),
        *(f"{HF}/datasets/a/b", f"{HF}/somebody", f"{HF}/a/b/c", "https://huggingface.co"),
        *("https://evil.example/a/b", "https://huggingface.co@evil.example/a/b", "ftp://hf.co/a/b"),
        *("https://huggingface.co.evil.example/a/b", "file:///etc/passwd", "http://[::1/a/b"),
    ],
)
def test_what_names_no_model(text: str) -> None:
    with pytest.raises(BadOption):
        parse_reference(text, "huggingface")


def test_consent_is_for_one_repository_and_revision(tmp_path: Path) -> None:
    file = tmp_path / "user" / "allowed.json"
    consents, pinned = Consents(file), Reference(MINE.repo_id, MINE.source, "v1.0")
    others = (pinned, Reference(MINE.repo_id, "modelscope"), Reference("else/Tiny-VL", MINE.source))
    assert not consents.allows(MINE)
    consents.allow(MINE)
    consents.allow(MINE)
    assert Consents(file).allows(MINE) and not any(map(consents.allows, others))
    consents.allow(pinned)
    assert consents.allows(MINE) and consents.allows(pinned)
    file.write_text("{")
    assert not consents.allows(MINE), "what cannot be read allows nothing"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Stands in for Hugging Face."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    remote_size._KNOWN.clear()
    repos = {name: {**files(), "README.md": b"# Tiny"} for name in (MINE.repo_id, "else/Tiny-VL")}
    with Hub(repos) as running:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        # Earlier releases of huggingface_hub use a copy of it, taken when first imported.
        for module in ("file_download", "constants"):
            monkeypatch.setattr(
                f"huggingface_hub.{module}.HUGGINGFACE_CO_URL_TEMPLATE",
                running.url + "/{repo_id}/resolve/{revision}/{filename}",
                raising=False,
            )
        yield running


def obtain(models: ModelLibrary, reference: Reference, consents: Consents) -> Path:
    def progress_for(_name: str) -> Any:
        return lambda *_: None

    return models.obtain_reference(
        reference, consents, progress_for=progress_for, check=lambda: None
    )


def test_nothing_is_downloaded_that_nobody_has_allowed(hub: Hub, tmp_path: Path) -> None:
    models, consents = ModelLibrary((tmp_path,), tmp_path / "new"), Consents(tmp_path / "c.json")
    place = models.locate_reference(MINE)
    assert place == Download(MINE.repo_id, tmp_path / "somebody", MINE, "Tiny-VL")
    with pytest.raises(DownloadError, match=r"run: python -m qwenvl download somebody/Tiny-VL"):
        obtain(models, MINE, consents)
    assert hub.requested == [] and hub.logins == []
    consents.allow(MINE)
    folder = obtain(models, MINE, consents)
    assert folder == tmp_path / "somebody" / "Tiny-VL" and (folder / "config.json").exists()
    hub.files()
    assert obtain(models, MINE, Consents(tmp_path / "none.json")) == folder and not hub.requested

    other = Reference("else/Tiny-VL", "huggingface")
    assert isinstance(models.locate_reference(other), Download), "another owner's is another model"
    pinned = Reference(MINE.repo_id, MINE.source, "v1.0")
    with pytest.raises(DownloadError, match=r"somebody/Tiny-VL@v1\.0 is not on this machine"):
        obtain(models, pinned, consents)
    consents.allow(pinned)
    assert obtain(models, pinned, consents) == tmp_path / "somebody" / "Tiny-VL@v1.0"
    assert obtain(models, MINE, consents) == folder, "and the newest is another folder"
    assert models.locate_reference(Reference(MINE.repo_id, MINE.source, COMMIT[:10])) in (
        folder,
        folder.with_name("Tiny-VL@v1.0"),
    )


def test_a_model_of_the_list_needs_no_consent_unless_it_is_pinned(tmp_path: Path) -> None:
    models = ModelLibrary((tmp_path,), tmp_path / "new")
    name = "Qwen/Qwen3-VL-2B-Instruct"
    listed = models.locate_reference(Reference(name, "huggingface"))
    assert listed == Download(name, tmp_path / "new")
    pinned = models.locate_reference(Reference(name, "huggingface", "refs/pr/7"))
    assert isinstance(pinned, Download) and pinned.reference is not None
    # Branches "refs-pr-7" and "refs/pr/7" are not the same.
    assert pinned.folder == tmp_path / "Qwen" / "Qwen3-VL-2B-Instruct@refs-pr-7-b45066fc"
    other = models.locate_reference(Reference(name, "huggingface", "refs-pr-7"))
    assert isinstance(other, Download) and other.folder != pinned.folder
    assert "@refs/pr/7" in pinned.command


def test_an_equal_name_elsewhere_is_another_model(hub: Hub, tmp_path: Path) -> None:
    models, consents = ModelLibrary((tmp_path,), tmp_path / "new"), Consents(tmp_path / "c.json")
    consents.allow(MINE)
    folder = obtain(models, MINE, consents)
    there = models.locate_reference(Reference(MINE.repo_id, "modelscope"))
    assert isinstance(there, Download) and there.folder != folder
    # A download that broke off is not completed with the files of the catalogue's model.
    evil = folder.parent / "Qwen3-VL-4B-Instruct"
    folder.rename(evil)
    (evil / "tokenizer.json").unlink()
    assert models.locate(f"somebody/{evil.name} (incomplete)") == evil


def test_the_size_is_that_of_the_files_that_come(hub: Hub) -> None:
    expected = sum(len(content) for content in files().values())
    assert remote_size.download_bytes(MINE) == expected
    asked = len(hub.logins)
    assert remote_size.download_bytes(MINE) == expected and len(hub.logins) == asked
    with pytest.raises(DownloadError, match="has no nobody/Tiny"):
        remote_size.download_bytes(Reference("nobody/Tiny", "huggingface"))


def test_a_stopped_download_goes_on_where_it_lies(tmp_path: Path) -> None:
    models, whole = ModelLibrary((tmp_path,), tmp_path / "new"), files()
    del whole["tokenizer.json"]
    write(tmp_path / "somebody" / "Tiny-VL", whole)
    place = models.locate_reference(MINE)
    assert isinstance(place, Download) and place.folder == tmp_path / "somebody" / "Tiny-VL"
    assert place.reference == MINE and place.bytes_here > 0

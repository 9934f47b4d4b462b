"""Repository files: which of them are downloaded, and whether their names are safe to write."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from ..errors import DownloadError
from ..families import FAMILIES
from .hubs import Hub, RemoteFile
from .receipts import NAME as RECEIPT

MAX_PATH_BYTES = 200
"""In UTF-8; file systems allow 255, and ``.part`` must go behind it."""

_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".tiktoken", ".model")
_NOT_NEEDED = ("requirements.txt", "training_args.json", "trainer_state.json", RECEIPT)
# Of models that speak; read as tensors alone, so that it can hold no code.
_VOICES = {row.speech.voices_file for row in FAMILIES.values() if row.speech}
# What some file system cannot name: characters, Windows' devices, blanks and dots at the end.
_INVALID_NAME = re.compile(
    r'[\x00-\x1f\x7f\\:*?"<>|\ud800-\udfff]|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)|[ .]$|^$',
    re.IGNORECASE,
)


def select_files(
    hub: Hub, repo_id: str, files: Iterable[RemoteFile], with_code: bool
) -> list[RemoteFile]:
    """The files that a model is loaded from, small ones first; Python files only ``with_code``.

    Raises ``DownloadError`` where there are no safetensors weights, or a name is unsafe.
    """
    suffixes = (*_SUFFIXES, ".py") if with_code else _SUFFIXES
    needed = [
        file
        for file in files
        if file.path in _VOICES
        or (file.path.endswith(suffixes) and PurePosixPath(file.path).name not in _NOT_NEEDED)
    ]
    if not any(file.path.endswith(".safetensors") for file in needed):
        raise DownloadError(
            f"{repo_id} on {hub.title} holds no safetensors weights. GGUF and pickle (.bin) files "
            "are not loaded here: choose the original repository of the model."
        )
    _require_safe(hub, needed)
    # A download that stops early has then at least config.json, which says what it is.
    return sorted(needed, key=lambda file: (file.size, file.path))


def problem_of(file: RemoteFile) -> str:
    """Why ``file`` cannot be written as it is named, on some system; empty if it can."""
    parts = file.path.split("/")
    if ".." in parts or not parts[0]:
        return "outside the model's folder"
    if any(_INVALID_NAME.search(part) for part in parts):
        return "with a name that not every system can write"
    if len(file.path.encode()) > MAX_PATH_BYTES:
        return f"with a name of more than {MAX_PATH_BYTES} bytes"
    if not 0 <= file.size < 1 << 63:
        return "of an impossible size"
    return ""


def _require_safe(hub: Hub, files: Iterable[RemoteFile]) -> None:
    """Raises ``DownloadError`` for names that not every system can write side by side."""
    names: set[str] = set()
    folders: set[str] = set()
    for file in files:
        if what := problem_of(file) or _collision(file.path, names, folders):
            shown = file.path if len(file.path) <= 80 else f"{file.path[:80]}…"
            raise DownloadError(f"{hub.title} lists a file {what}: {shown!r}. Nothing was written.")


def _collision(path: str, names: set[str], folders: set[str]) -> str:
    """Adds ``path`` to ``names`` and its parents to ``folders``; says so where one exists already.
    Compared as file systems do that ignore case and Unicode forms."""
    folded = unicodedata.normalize("NFC", path).casefold()
    parents = {str(parent) for parent in PurePosixPath(folded).parents} - {"."}
    if folded in names or folded in folders or names & parents:
        return "with a name that another one has too"
    names.add(folded)
    folders |= parents
    return ""

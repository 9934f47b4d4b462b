"""Folders of small pictures, and how trainers read the captions in them.

The readers do what ``trainers.yaml`` says of each trainer's source; they share no code with what is
tested.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from PIL import Image
from qwen_vl_suite.qwenvl.folders import Asking, Job, Reporter, Template, caption_folder, trainer
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.tasks.describe_video import describe_video


def picture(path: Path, colour: Any = "red", size: tuple[int, int] = (32, 32), **save: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **save)
    return path


class Told(Reporter):
    """Keeps what it is told."""

    def __init__(self):
        self.captions: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self.there: list[str] = []
        self.reasons: list[str] = []
        self.over: list[str] = []
        self.asked: list[list[str]] = []
        self.notes: list[str] = []
        self.total: int | None = None

    def counted(self, total):
        self.total = total

    def asking(self, items):
        self.asked.append([item.relative for item in items])

    def captioned(self, item, caption):
        assert item.relative not in self.captions
        self.captions[item.relative] = caption

    def skipped(self, item, reason):
        self.there.append(item.relative)
        self.reasons.append(reason)

    def passed_over(self, item, reason):
        self.over.append(item.relative)

    def failed(self, relative, reason):
        self.failures[relative] = reason

    def note(self, item, note):
        self.notes.append(note)


def job(folder: Path, **fields: Any) -> Job:
    """About descriptions, unless ``fields`` has its own ``asking``; ``words`` are fields of
    ``Asking``, a ``trainer`` may be its name."""
    words = {"clip_task": describe_video("training"), **fields.pop("words", {})}
    asking = fields.pop("asking", None) or Asking(describe("training"), **words)
    if isinstance(fields.get("trainer"), str):
        fields["trainer"] = trainer(fields["trainer"])
    if isinstance(fields.get("template"), str):
        fields["template"] = Template(fields["template"])
    return Job(folder, asking, **fields)


def run(backend: Any, folder: Path, **fields: Any) -> tuple[Any, Told]:
    told = Told()
    summary = caption_folder(backend, job(folder, **fields), told)
    return summary, told


def names(folder: Path) -> list[str]:
    """All files but those in the hidden folder."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".qwenvl-captions" not in path.parts
    )


def kohya(path: Path) -> str:
    """sd-scripts: the first line of the file named as the picture; none is an assertion."""
    with open(os.path.splitext(path)[0] + ".txt", encoding="utf-8") as file:
        lines = file.readlines()
    assert len(lines) > 0
    return lines[0].strip()


def onetrainer(path: Path) -> list[str]:
    """OneTrainer: each line that is not blank is a caption."""
    with open(os.path.splitext(path)[0] + ".txt", encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()]


def ai_toolkit(path: Path, extension: str = "txt") -> str:
    """ai-toolkit: the whole file as it is."""
    with open(f"{os.path.splitext(path)[0]}.{extension}", encoding="utf-8") as file:
        return file.read()


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

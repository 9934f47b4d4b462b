"""What nodes say of their own in other languages: notes on answers, and lines of progress.

The page looks them up by their words in ``locales/*/main.json``, with names for their values.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from qwen_vl_suite.nodes import caption_folder, host
from qwen_vl_suite.nodes.host import page
from qwen_vl_suite.qwenvl import errors
from qwen_vl_suite.qwenvl.constraints import from_regex
from qwen_vl_suite.qwenvl.folders import Item, Summary
from qwen_vl_suite.qwenvl.servers import calibration, sampling, thinking
from qwen_vl_suite.qwenvl.servers.answer_form import answer_form
from qwen_vl_suite.qwenvl.servers.kinds import kind
from qwen_vl_suite.qwenvl.types import Request, Sampling

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("zh", "ja")
LEAST = 8  # letters, as in web/locale.js
# Where every sentence that is no error is a note; of others, the functions that write them.
ROOMS: dict[str, set[str]] = {
    "qwenvl/watching/*.py": set(),
    "qwenvl/tasks/events.py": {"within"},
    "qwenvl/servers/answer_form.py": {"ignored_note"},
    "qwenvl/servers/picture_sizes.py": set(),
    "qwenvl/servers/server_request.py": {"without_form", "_notes_on", "_end_note"},
    "qwenvl/servers/videos.py": set(),
    "qwenvl/servers/seen_sizes.py": set(),
    "qwenvl/folders/imagefolder.py": {"look"},
    "qwenvl/folders/tables.py": {"_note_of_rows_without_files"},
    "qwenvl/tasks/act.py": {"_notes"},
    "qwenvl/tasks/boxes_3d.py": {"_unusable_note", "_hidden_note"},
    "qwenvl/grounding/found.py": set(),
    "qwenvl/reading/tiling.py": set(),
    "qwenvl/chat/asking.py": {"_notes"},
}
ERRORS = {name for name in vars(errors) if name[0].isupper()}


def is_error(node: ast.AST) -> bool:
    called = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
    return isinstance(node, ast.Raise) or called in ERRORS


def sentences(path: Path, functions: set[str]) -> list[str]:
    """That are neither errors nor documentation, with 3 in the place of each value."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in functions]
    assert {function.name for function in named} == functions, path
    nodes = [node for root in named or [tree] for node in ast.walk(root)]
    left_out = {part for node in nodes if is_error(node) for part in ast.walk(node)}
    left_out |= {n.value for n in nodes if isinstance(n, ast.Expr)}
    left_out |= {part for n in nodes if isinstance(n, ast.JoinedStr) for part in n.values}
    found = []
    for node in nodes:
        text = words(node)
        if node not in left_out and re.search(r"[a-z]{3} .*(\.|\. 3|: 3)$", text):
            found.append(text)
    return found


def words(node: ast.AST) -> str:
    """Of a text; empty for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "3" for p in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def patterns(language: str) -> list[str]:
    text = (ROOT / "locales" / language / "main.json").read_text(encoding="utf-8")
    known = json.loads(text)["qwenVlSuite"]["panels"]
    telling = [text for text in known if len(re.sub(r"{\w+}", "", text)) >= LEAST]
    return [re.sub(r"\\{\w+\\}", ".+", re.escape(text)) for text in telling]


def untranslated(said: list[str], language: str) -> list[str]:
    known = patterns(language)
    return [text for text in said if not any(re.fullmatch(one, text) for one in known)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_notes_are_translated(language: str) -> None:
    for room, functions in ROOMS.items():
        paths = sorted(ROOT.glob(room))
        said = [text for path in paths for text in sentences(path, functions)]
        assert said, room
        assert untranslated(said, language) == [], room


@pytest.mark.parametrize("language", LANGUAGES)
def test_notes_on_what_a_server_cannot_be_told_are_translated(language: str) -> None:
    ollama, studio = kind("ollama"), kind("lmstudio")
    alone, several = Sampling(temperature=1.0, top_k=5), Sampling(temperature=1.0, top_k=5, min_p=1)
    wish = Request.ask([], "?", preserve_thinking=True, reasoning_effort="low")
    said = [note for one in (alone, several) for note in sampling.sampling_notes(ollama, one)]
    said += thinking.thinking_notes(studio, wish)
    said += answer_form(from_regex("a+"), studio).notes
    said += answer_form(from_regex("a(?=b)"), kind("llama.cpp")).notes
    assert len(said) == 5
    assert untranslated(said, language) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_why_a_size_is_not_known_is_translated(language: str) -> None:
    tree = ast.parse(Path(calibration.__file__).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    name = calibration._unverified.__name__
    reasons = [words(call.args[0]) for call in calls if getattr(call.func, "id", "") == name]
    assert len(reasons) >= 3 and all(reasons)
    assert untranslated([calibration._unverified(why) for why in reasons], language) == []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines of progress that the page is sent."""
    lines: list[str] = []
    monkeypatch.setattr(page, "send_live", lambda **fields: lines.append(fields["status"]))
    return lines


def tell(total: int | None, event: str) -> None:
    """A run over a folder of ``total`` files, of which something has become known."""
    progress, item = host.FolderProgress(), Item(Path("a.png"), "a.png")
    if total is not None:
        progress.counted(total)
    progress.asking([item])
    events: dict[str, Any] = {
        "skipped": lambda: progress.skipped(item, "why"),
        "failed": lambda: progress.failed("a.png", "why"),
        "captioned": lambda: progress.captioned(item, "A cat."),
        "written": lambda: progress.token(0, "A"),
    }
    events[event]()


@pytest.mark.parametrize("language", LANGUAGES)
def test_how_far_a_folder_is_is_translated(told: list[str], language: str) -> None:
    for total in (None, 5):
        for event in ("skipped", "failed", "captioned", "written"):
            tell(total, event)
    assert len(set(told)) >= 6
    assert untranslated(told, language) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_became_of_a_folder_is_translated(language: str) -> None:
    summaries = [
        (Summary(captioned=1200, passed_over=2, unread=Counter(heic=2)), False, False),
        (Summary(captioned=1, passed_over=2, found=3), True, True),
        (Summary(failed=30), False, False),
    ]
    said = [line for one in summaries for line in caption_folder._told(*one).splitlines()]
    assert len(said) == 9
    assert untranslated(said, language) == []

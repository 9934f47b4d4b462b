"""The command lines and links of README and ``docs/``: options that exist, files that are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from qwen_vl_suite.qwenvl.cli.parser import make_parser

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_PROGRAM = "python -m qwenvl "


def commands() -> Iterator[str]:
    """What stands in blocks of shell code, lines that go on put together."""
    for page in PAGES:
        for block in re.findall(r"```(?:sh|bash)?\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if _PROGRAM in line and not line.lstrip().startswith("#"):
                    yield line[line.index(_PROGRAM) + len(_PROGRAM) :]


def words(command: str) -> list[str]:
    """Its own, with 1 for the shell's variables: up to a pipe, a redirection, a comment or the next
    command."""
    command = re.sub(r"\$\(\(.*?\)\)|\$\w+", "1", command)
    if command.count("'") % 2:  # it stands in another's quotes
        command = command.rsplit("'", 1)[0]
    found = shlex.split(command, comments=True)
    ends = [at for at, word in enumerate(found) if re.match(r"\d?[|>&;]", word)]
    return found[: min(ends, default=len(found))]


def test_there_are_commands() -> None:
    assert len(set(commands())) > 30


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_documented_command_is_one(command: str) -> None:
    make_parser(None).parse_args(words(command))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = page.parent / name if name else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(_anchor, headings), target


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")

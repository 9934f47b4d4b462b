"""Page on scaling out: its tables are what the data says, its commands are ones that there are."""

from __future__ import annotations

import re
import shlex

import pytest
from qwen_vl_suite.docs import scale_out_page
from qwen_vl_suite.qwenvl.cli.parser import make_parser


def test_the_page_is_current() -> None:
    """Else: python -m docs.scale_out_page"""
    assert scale_out_page.PAGE.read_text(encoding="utf-8") == scale_out_page.page()


def commands() -> list[str]:
    text = scale_out_page.PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^python -m qwenvl .*$", text, re.M)


def test_there_are_commands() -> None:
    assert len(commands()) >= 2


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    make_parser(None).parse_args(shlex.split(command)[3:])

"""Page of models: current, and what it says was checked is what the tests check."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from qwen_vl_suite.docs import checks, models_page
from qwen_vl_suite.docs.checks import CHECKS, MARKS, Check
from qwen_vl_suite.qwenvl.families import FAMILIES

ENGINE = Path(__file__).parent


def test_the_page_is_current() -> None:
    """Else: python -m docs.models_page"""
    assert models_page.PAGE.read_text(encoding="utf-8") == models_page.page()


@cache
def module_of(file: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"checked_{Path(file).stem}", ENGINE / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for part in value:
            yield from strings(part)
    elif hasattr(value, "values"):  # of pytest.param
        yield from strings(value.values)


def cases(test: str) -> set[str]:
    """The families among the parameters of a test and of the fixtures that it names."""
    file, _, name = test.partition("::")
    module = module_of(file)
    function = getattr(module, name)
    found = {
        string
        for mark in getattr(function, "pytestmark", [])
        if mark.name == "parametrize"
        for string in strings(mark.args[1])
    }
    for argument in inspect.signature(function).parameters:
        fixture = getattr(module, argument, None)
        marker = getattr(fixture, "_fixture_function_marker", None)
        found |= set(strings(getattr(marker, "params", None) or ()))
    return found & FAMILIES.keys()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.test)
def test_what_was_checked_is_what_the_test_checks(check: Check) -> None:
    if check.by_id:
        assert cases(check.test) == set(check.families)
        return
    file, _, name = check.test.partition("::")
    source = (ENGINE / file).read_text(encoding="utf-8")
    assert f"def {name}(" in source
    if "sampled_from(EVERY_FAMILY)" not in source and not name.startswith(
        "test_the_checkpoint_answers"
    ):
        assert all(f'"{family}"' in source for family in check.families)


def test_the_table_knows_all_families_marks_and_abilities() -> None:
    keys = {ability.key for ability in models_page.ABILITIES}
    named = {*checks.SEEING, *checks.TEXT}
    assert named == {name for name, row in FAMILIES.items() if not row.is_original}
    assert {name for name in checks.SEEING if not FAMILIES[name].sees} == set()
    for check in CHECKS:
        assert {*check.abilities} <= keys and check.mark in MARKS
        for family in map(FAMILIES.__getitem__, check.families):
            abilities = [one for one in models_page.ABILITIES if one.key in check.abilities]
            assert all(ability.can(family) for ability in abilities), "checked, and cannot"

"""Environment: what is missing or broken is told, and ends nothing."""

from __future__ import annotations

import importlib.metadata
import sys

import psutil
import pytest
import torch
from qwen_vl_suite.qwenvl.doctor import environment


def test_versions_are_those_installed():
    found = environment.environment()
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert found["ram"]["total"] == psutil.virtual_memory().total
    assert found["pack"] == "0.1.0"
    assert found["torch"]["cuda"] == torch.version.cuda


def test_a_package_that_is_missing_has_no_version(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    assert environment.environment()["packages"]["no-such-package"] is None


def test_a_broken_torch_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert environment._torch()["error"].startswith("ModuleNotFoundError: ")


@pytest.fixture
def two_cards(monkeypatch):
    def memory(index):
        if index:
            raise RuntimeError("the device fell off the bus")
        return 8 * 2**30, 24 * 2**30

    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "mem_get_info": memory,
        "get_device_capability": lambda index: (8, 9),
        "get_device_name": lambda index: "Card",
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def test_each_device_is_told_by_itself(two_cards):
    assert environment.environment()["torch"]["devices"] == [
        {
            "device": "cuda:0", "name": "Card", "capability": "8.9", "free": 8 * 2**30,
            "total": 24 * 2**30,
        },
        {"device": "cuda:1", "error": "RuntimeError: the device fell off the bus"},
    ]  # fmt: skip

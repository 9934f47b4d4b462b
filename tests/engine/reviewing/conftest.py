from __future__ import annotations

import pytest
from caption_folders import picture


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.jpg", "10_cat/c.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "a.txt").write_text("A red cat.\n")
    (tmp_path / "in" / "10_cat" / "c.txt").write_text("Ein Straßenkater\n")
    return tmp_path / "in"

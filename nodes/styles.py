"""Styles of Describe: the pack's own and users', and their words for the page."""

from __future__ import annotations

from collections.abc import Mapping

from ..qwenvl.styles import Style, read_styles
from ..qwenvl.tasks.describe import known_styles
from ..qwenvl.yaml_files import Found
from . import host

ROUTE = "/qwen_vl/style"


def read() -> Found[Style]:
    """Read anew at each call, so that a file that was added counts at once."""
    return read_styles([host.user_folder("styles")])


def where() -> str:
    """Where users' files go, in words."""
    return f"Own styles are YAML files in {host.user_folder('styles')}."


def words(query: Mapping[str, str]) -> Mapping[str, str]:
    """The words of the style ``name``, for the page. Raises ``BadOption`` for one that is not
    there."""
    own, name = read(), query.get("name", "")
    known = known_styles(own)
    if name not in known:
        raise own.missing(name, known)
    return {"words": known[name]}

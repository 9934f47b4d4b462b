"""Version of the installed transformers, on which it depends what can be read and how."""

from __future__ import annotations


def installed() -> str:
    """The version of the installed transformers."""
    import transformers

    return transformers.__version__


def is_older(version: str) -> bool:
    """Whether the installed transformers is older than ``version``."""
    from packaging.version import Version

    return Version(installed()).release < Version(version).release

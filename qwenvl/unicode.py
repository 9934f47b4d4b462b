"""Unicode repair: text that can be encoded, whatever it came from."""

from __future__ import annotations


def well_formed(text: str) -> str:
    """``text`` with U+FFFD for every lone surrogate, which cannot be encoded: half of an emoji that
    was cut, or a byte of a file name or command line that is not UTF-8. Surrogate pairs become
    their character."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

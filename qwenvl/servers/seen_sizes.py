"""Seen sizes: in which size a model saw a picture, from the tokens that it took, where a server
resizes what it is sent."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from ..errors import UnsuitableModel
from ..replies.bbox import is_number_key
from ..types import Family, Response, Size
from .kinds import ServerKind
from .picture_sizes import tokens_of

_PLACES = re.compile(r"[\[(\"]\s*-?\d+(?:\.\d+)?\s*[,\s]\s*-?\d")
_NAMED = re.compile(r"([A-Za-z]\w{0,20})[\"']?\s{0,9}[:=]\s{0,9}[\"']?-?\d")
_TOLERANCE = 0.52
"""How far a side may be off, in units of the patch factor: rounded to whole pixels first, and then
to patches, by a little more than half of one."""
_MOST_TOKENS = 1 << 16
"""Tokens of one picture beyond which no size is looked for: several times what any of these models
is shown."""
_SHRUNK_SHARE = 0.5
"""Share of a picture's tokens below which the user is told that it was made smaller."""


def mentions_places(text: str) -> bool:
    """Whether an answer may hold coordinates: two numbers behind a bracket or a quote, or under
    names that those of boxes and points have."""
    if _PLACES.search(text):
        return True
    named = (found for found in _NAMED.finditer(text) if is_number_key(found[1]))
    return len(list(islice(named, 2))) == 2


def with_seen_sizes(response: Response, seen: int, family: Family, kind: ServerKind) -> Response:
    """``response`` with the sizes in which its pictures were seen, as ``seen`` tokens in all."""
    sent = response.input_sizes
    if seen == sum(tokens_of(size, family) for size in sent):
        return response
    found = derived_sizes(sent, seen, family)
    if found is None:
        return dataclasses.replace(
            response,
            text="",
            tokens=(),
            finish_reason="error",
            error=_refusal(sent, seen, family, kind),
        )
    (height, width), (sent_height, sent_width) = found[0], sent[0]
    note = (
        f"{kind.title} showed the model the picture in {width}x{height} pixels instead of the "
        f"{sent_width}x{sent_height} that it was sent; boxes were read in these."
    )
    return with_note(dataclasses.replace(response, input_sizes=found), note)


def derived_sizes(sent: Sequence[Size], seen: int, family: Family) -> tuple[Size, ...] | None:
    """The sizes in which pictures that were ``sent`` in these sizes were seen, where they took
    ``seen`` tokens in all: the only ones of their aspect ratio with that many. None where there is
    none, or more than one, and for several pictures of different sizes."""
    if len(set(sent)) != 1 or seen % len(sent) or not 0 < seen <= _MOST_TOKENS * len(sent):
        return None
    found = set(_grids(sent[0], seen // len(sent), family.patch_factor))
    if len(found) != 1:
        return None
    rows, columns = found.pop()
    return ((rows * family.patch_factor, columns * family.patch_factor),) * len(sent)


def _grids(sent: Size, tokens: int, factor: int) -> Iterator[tuple[int, int]]:
    """Grids of rows and columns with so many ``tokens`` that one scale can lead to from the grid
    that was ``sent``: both sides rounded, or both down where it shrinks, or both up where it
    grows, as resizes of these models do."""
    height, width = sent[0] / factor, sent[1] / factor
    outward = 1.0 if tokens < height * width else -1.0
    divisors = [one for one in range(1, math.isqrt(tokens) + 1) if not tokens % one]
    pairs = [(one, tokens // one) for one in divisors]
    for rows, columns in {*pairs, *((columns, rows) for rows, columns in pairs)}:
        for low, high in ((-_TOLERANCE, _TOLERANCE), sorted((0.0, outward))):
            least = max((rows + low) / height, (columns + low) / width)
            most = min((rows + high) / height, (columns + high) / width)
            if least < most:
                yield rows, columns


def _refusal(sent: Sequence[Size], seen: int, family: Family, kind: ServerKind) -> UnsuitableModel:
    expected = sum(tokens_of(size, family) for size in sent)
    what = "the picture" if len(sent) == 1 else f"{len(sent)} pictures"
    return UnsuitableModel(
        f"{kind.title} showed the model {what} in another size than it was sent: {seen} tokens "
        f"instead of {expected}. {family.title} writes places in pixels of that size, which cannot "
        "be told, so they would be wrong. Let the server show pictures as they are (its own "
        "settings), send smaller ones (max_pixels), or choose a model that writes places as shares "
        "of the picture, such as Qwen3-VL."
    )


def shrunk_note(response: Response, family: Family) -> str:
    """A note where a picture was seen much smaller than it was sent, so that the whole prompt has
    fewer tokens than the picture should have had. Coordinates that are shares of the picture's
    sides stay right."""
    tokens = sum(tokens_of(size, family) for size in response.input_sizes)
    whole = response.usage.prompt_tokens
    if not 0 < whole < _SHRUNK_SHARE * tokens:
        return ""
    return (
        f"The server showed the model at most {whole} tokens of pictures that are worth {tokens}: "
        "it makes them smaller. Small things and text may be missed; see the server's settings."
    )


def with_note(response: Response, note: str) -> Response:
    """``response`` with ``note`` behind its notes, unless that is empty."""
    return dataclasses.replace(response, notes=(*response.notes, note)) if note else response

"""Picture calibration: proof that a server showed the model a picture in the size that was sent.

Some families write boxes in pixels of the picture as the model sees it, and some servers resize
what they are sent. A server reports how many tokens a prompt had; how many of these a picture took
follows once it is known how many the rest takes. No text is counted here, for the tokenizer is the
server's: the same request is sent once more, with a small square in the place of each picture, and
the difference counts. How many tokens the square itself takes is found out once for each model and
address, by two questions, one with the square and one without.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ..errors import QwenVLError
from ..types import Family, Image, Message, Request, Response, Sampling, Size
from .kinds import ServerKind
from .picture_sizes import planned_size
from .seen_sizes import mentions_places, shrunk_note, with_note, with_seen_sizes

Ask = Callable[[Request], Awaitable["int | None"]]
"""Sends a request for one token of an answer: the ``prompt_tokens`` that the server reports, None
where it reports none. Raises ``QwenVLError`` where it does not answer."""

_SQUARE_SIDE = 10
"""Tokens along each side of the square; more where a server shows no picture so small."""
_LEAST_SIDE = 8
_MARKS = range(2, 17)
"""Tokens beside its own that a picture may take: what marks its beginning and end, and a message of
its own. From ``_LEAST_SIDE`` on, no two squares leave the same rest."""


@dataclass
class _Known:
    """What is known of one model at one address. ``square``: tokens that the square takes there;
    0 where the server's counts say nothing. ``texts``: by the text of a request, tokens of its
    prompt with squares in the place of its pictures."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    square: int | None = None
    texts: dict[bytes, int] = field(default_factory=dict)


class Calibration:
    """What is known of how servers show pictures. For one event loop."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], _Known] = {}

    async def verified(
        self,
        response: Response,
        request: Request,
        family: Family,
        kind: ServerKind,
        server: tuple[str, str],
        ask: Ask,
    ) -> Response:
        """``response`` to ``request`` with ``input_sizes`` in which the model saw the pictures, in
        place of those in which they were sent; or with an error in it where these cannot be found
        out and coordinates in the answer would be wrong. Its notes say what could not be verified.
        ``server``: address and model that gave the answer; ``ask`` asks that very server, and only
        where the answer has coordinates in pixels."""
        if not request.images or response.error is not None:
            return response
        if family.coordinates != "absolute":
            return with_note(response, shrunk_note(response, family))
        if not mentions_places(response.text):
            return response
        if request.videos or request.sounds:
            return with_note(response, _unverified("it was shown more than pictures"))
        try:
            seen = await self._seen_tokens(response, request, family, kind, server, ask)
        except QwenVLError as error:
            return with_note(response, _unverified(f"asking for that failed ({error})"))
        if seen is None:
            return with_note(
                response, _unverified("it does not report the tokens of prompts as they are")
            )
        return with_seen_sizes(response, seen, family, kind)

    async def _seen_tokens(
        self,
        response: Response,
        request: Request,
        family: Family,
        kind: ServerKind,
        server: tuple[str, str],
        ask: Ask,
    ) -> int | None:
        """Tokens that the pictures of ``request`` took; None where the server does not report
        them."""
        known = self._known.setdefault(server, _Known())
        side = square_size(family, kind)
        async with known.lock:
            if known.square is None:
                known.square = await _square_tokens(side, ask)
            if not known.square:
                return None
            # An answer that was cut off by this side has no count.
            whole = response.usage.prompt_tokens or await ask(_short(request))
            digest = _digest(request)
            if digest not in known.texts:
                counted = await ask(_with_squares(request, side))
                if counted:
                    known.texts[digest] = counted
        if not whole or digest not in known.texts:
            return None
        return whole - known.texts[digest] + known.square * len(request.images)


def square_size(family: Family, kind: ServerKind) -> Size:
    """The size of the square, one that such a server should leave as it is."""
    side = _SQUARE_SIDE * family.patch_factor
    return planned_size((side, side), kind.pictures.bounds(family), family, kind.pictures)


async def _square_tokens(size: Size, ask: Ask) -> int:
    """How many tokens the square takes, by two questions, whatever size the server makes of it:
    what it adds to a prompt is a square number and a few marks. 0 where it is not, and where the
    server does not report it."""
    text = Request((Message("user", ("Hello",)),), _ONE_TOKEN)
    shown = Request((Message("user", (_square(size), "Hello")),), _ONE_TOKEN)
    without, with_it = await ask(text), await ask(shown)
    if without is None or with_it is None:
        return 0
    added = with_it - without
    side = math.isqrt(max(added - _MARKS[0], 0))
    return side**2 if side >= _LEAST_SIDE and added - side**2 in _MARKS else 0


_ONE_TOKEN = Sampling(max_new_tokens=1)


def _square(size: Size) -> Image:
    import torch

    return Image(torch.full((3, *size), 127, dtype=torch.uint8))


def _with_squares(request: Request, size: Size) -> Request:
    square = _square(size)
    return _short(
        dataclasses.replace(
            request,
            messages=tuple(
                dataclasses.replace(
                    message,
                    parts=tuple(square if isinstance(p, Image) else p for p in message.parts),
                )
                for message in request.messages
            ),
            min_pixels=None,
            max_pixels=None,
        )
    )


def _short(request: Request) -> Request:
    """``request`` for one token of an answer of any form; its prompt stays the same."""
    return dataclasses.replace(request, sampling=_ONE_TOKEN, constraint=None, logprobs=False)


def _digest(request: Request) -> bytes:
    """Of all that the prompt's tokens depend on beside the pictures' pixels."""
    made = hashlib.sha256(
        repr((request.thinking, request.preserve_thinking, request.reasoning_effort)).encode()
    )
    for message in request.messages:
        made.update(f"\0{message.role}".encode())
        for part in message.parts:
            made.update(b"\1" if isinstance(part, Image) else b"\2" + str(part).encode())
    return made.digest()


def _unverified(why: str) -> str:
    return (
        f"Whether the server showed the picture in the size that it was sent is not known: {why}. "
        "If it did not, the places in this answer are wrong."
    )

"""Speed: prefill and decoding of one request, beside the floor that memory bandwidth sets."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import run
from ..backends.base import Backend
from ..observer import Observer, Relay
from ..tasks.describe import describe
from ..types import Request, Response, Sampling
from .bandwidth import bytes_a_step, measure_bandwidth
from .questions import pixels
from .scenes import draw
from .text_questions import text_questions

if TYPE_CHECKING:
    from ..backends.local import LocalBackend

_SIZE = (1280, 960)
_NEW_TOKENS = 128
_ENOUGH_TOKENS = 64
_MOST_REQUESTS = 4
_PARAGRAPHS = 20  # of some 60 tokens each


@dataclass(frozen=True)
class Floor:
    """The least that a decode step can take. ``bandwidth``: bytes a second, reading and writing;
    ``bytes_a_step``: of weights that one step reads."""

    bandwidth: float
    bytes_a_step: int

    @property
    def tokens_a_second(self) -> float:
        return self.bandwidth / self.bytes_a_step


@dataclass(frozen=True)
class Speed:
    """Of single requests about one picture, or of a model that reads text only about a text.
    ``prefill``: prompt tokens a second until the first new token, the picture's resizing and
    encoding included. ``decode``: new tokens a second after it
    (None: the answers were too short)."""

    prompt_tokens: int
    image_tokens: int
    new_tokens: int
    prefill: float | None
    decode: float | None
    floor: Floor | None = None


def measure(backend: Backend, observer: Observer) -> Speed:
    """Asks for descriptions, each of another picture or text so that no cache helps, until enough
    tokens have come. Loads the model if need be; what loading and ``observer`` raise reaches the
    caller."""
    _time(backend, 0, observer)  # loads libraries and kernels, captures graphs
    runs = [_time(backend, 1, observer)]
    while sum(r.decoded for r in runs) < _ENOUGH_TOKENS and len(runs) < _MOST_REQUESTS:
        runs.append(_time(backend, 1 + len(runs), observer))
    decoded, seconds = sum(r.decoded for r in runs), sum(r.decode_seconds for r in runs)
    usage = runs[0].usage
    return Speed(
        usage.prompt_tokens,
        usage.image_tokens,
        sum(r.usage.new_tokens for r in runs),
        max((r.usage.prompt_tokens / r.prefill_seconds for r in runs if r.prefill_seconds),
            default=None),
        decoded / seconds if seconds else None,
    )  # fmt: skip


def floor_of(backend: LocalBackend) -> Floor | None:
    """The floor of a loaded local model; None where its device has no room for measuring."""
    device = backend.device
    bandwidth = measure_bandwidth(device, backend.memory.free(device))
    return None if bandwidth is None else Floor(bandwidth, bytes_a_step(backend.model))


class _Stopwatch(Relay):
    """When a request's work began, and when its tokens came."""

    def __init__(self, inner: Observer):
        super().__init__(inner)
        self._begun = self._first = self._last = 0.0
        self._tokens = 0
        self.usage = Response("").usage

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        super().start(prompt_tokens, max_new_tokens)
        self._begun = time.perf_counter()

    def token(self, index: int, text: str) -> None:
        super().token(index, text)
        self._tokens += 1
        self._last = time.perf_counter()
        self._first = self._first or self._last

    def restart(self, index: int) -> None:
        super().restart(index)
        self._first = self._last = 0.0
        self._tokens = 0

    def done(self, index: int, response: Response) -> None:
        super().done(index, response)
        self.usage = response.usage

    @property
    def prefill_seconds(self) -> float:
        return self._first - self._begun if self._tokens else 0.0

    @property
    def decoded(self) -> int:
        """Tokens after the first."""
        return max(0, self._tokens - 1)

    @property
    def decode_seconds(self) -> float:
        return self._last - self._first


def _long_text(number: int) -> str:
    """About as many tokens as a picture takes; another beginning for each number."""
    told = (text_questions(1000 * number + at)[1].task.prompt for at in range(_PARAGRAPHS))
    paragraphs = (text.partition(" How many ")[0] for text in told)
    return "\n\n".join([f"Text {number}.", *paragraphs, "Describe these boxes in detail."])


def _time(backend: Backend, number: int, observer: Observer) -> _Stopwatch:
    stopwatch = _Stopwatch(observer)
    sees = backend.family.sees
    request = Request.ask(
        (pixels(draw(f"doctor speed {number}", "mixed", _SIZE)),) if sees else (),
        describe("detailed").prompt if sees else _long_text(number),
        sampling=Sampling(_NEW_TOKENS, max_thinking_tokens=_NEW_TOKENS),
        thinking=run.least_thinking(backend),
        may_shrink=True,
    )
    (response,) = backend.generate([request], stopwatch)
    if response.error:
        raise response.error
    return stopwatch

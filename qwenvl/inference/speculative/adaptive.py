"""Adaptive speculation: drafts only while verifying them pays, measured on this device."""

from __future__ import annotations

_MIN_VERIFICATIONS = 8  # passes before the gain is judged
_PAUSE_STEPS = 64  # steps without drafts after they did not pay; twice as many each further time
_LONGEST_PAUSE_STEPS = 4096
_DECAY = 0.9  # weight of earlier measurements in the moving average


class AdaptiveSpeculation:
    """Whether drafting pays: seconds of a decode step against seconds of a verification and the
    tokens it gave. One for each source of drafts; kept from call to call."""

    def __init__(self) -> None:
        self._decode_seconds: float | None = None
        self._verify_seconds: float | None = None
        self._tokens = 0.0
        self._verifications = 0
        self._pause = 0
        self._next_pause = _PAUSE_STEPS
        self._is_off = False

    def turn_off(self) -> None:
        """No more drafts of this source."""
        self._is_off = True

    def record_decode(self, seconds: float) -> None:
        """A decode step, one token a row, took ``seconds``."""
        self._decode_seconds = _moving_average(self._decode_seconds, seconds)
        self.record_skip()

    def record_skip(self) -> None:
        """A step went by without drafts of this source."""
        self._pause = max(0, self._pause - 1)

    def record_verify(self, seconds: float, tokens: float) -> None:
        """A verification took ``seconds`` and gave ``tokens`` a row on average."""
        self._verify_seconds = _moving_average(self._verify_seconds, seconds)
        first = not self._verifications
        self._tokens = tokens if first else _moving_average(self._tokens, tokens)
        self._verifications += 1
        decode = self._decode_seconds or 0.0
        if self._verifications < _MIN_VERIFICATIONS:
            return
        if self._tokens * decode > self._verify_seconds:
            self._next_pause = _PAUSE_STEPS
            return
        self._verifications, self._pause = 0, self._next_pause
        self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE_STEPS)

    @property
    def pays(self) -> bool:
        """Whether to draft now. True too for what has not been tried, once a decode step has been
        measured to compare with."""
        return not self._is_off and not self._pause and self._decode_seconds is not None


def _moving_average(old: float | None, new: float) -> float:
    return new if old is None else _DECAY * old + (1 - _DECAY) * new

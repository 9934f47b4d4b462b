"""Results of a command, shown in the order of what was asked about; and its exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import BadImage, BadOption, QwenVLError
from ..types import Result
from .output import print_message

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..query import Query

SOME_FAILED, NOTHING_DONE, UNREADABLE = 1, 2, 3
"""Exit statuses of failures; ``parser.EXIT_STATUS`` explains them."""


class OrderedResults:
    """Reorder buffer: shows ``count`` results by index, from 0, each as soon as all before it are
    shown. ``shown``, ``answered``, ``failed``, ``unreadable``: how many of them were."""

    def __init__(self, count: int, show: Callable[[int, Result], None]):
        self.count = count
        self._show = show
        self._pending: dict[int, Result] = {}
        self._is_broken_off = False
        self.shown = self.answered = self.failed = self.unreadable = 0

    def put(self, number: int, result: Result) -> None:
        self._pending[number] = result
        while self.shown in self._pending:
            self._show_next(self._pending.pop(self.shown))

    def fail(self, number: int, error: QwenVLError) -> None:
        """Puts the result that there is none."""
        self.put(number, Result("", finish_reason="error", error=str(error)))

    def ask(self, backend: Backend, queries: Mapping[int, Query]) -> bool:
        """Puts the answer to each of ``queries``. False where the options allow no request at all,
        and so none about what comes later either: nothing has been answered, and the backend
        refused these together."""
        from .. import run

        numbers = list(queries)
        try:
            run.answer_each(
                backend,
                list(queries.values()),
                lambda index, result: self.put(numbers[index], result),
            )
        except (BadOption, BadImage) as error:
            for number in numbers:
                self.fail(number, error)
            return bool(self.answered or self.unreadable)
        return True

    @contextmanager
    def told(self) -> Iterator[None]:
        """While they come: tells how far they came where that was not to the end. An error behind
        the first answer is told, and not raised."""
        try:
            yield
        except QwenVLError as error:
            if not self.answered:
                raise
            self._is_broken_off = True
            print_message(f"error: {error}")
        except BaseException:
            self._tell_end()
            raise
        self._tell_end()

    def _tell_end(self) -> None:
        if self.shown < self.count:
            print_message(f"stopped after {self.shown} of {self.count}")

    def exit_status(self, has_failed: bool = False) -> int:
        """``has_failed``: whether anything else has."""
        if has_failed or self.failed or self.shown < self.count or self._is_broken_off:
            return SOME_FAILED if self.answered or self.unreadable else NOTHING_DONE
        return UNREADABLE if self.unreadable else 0

    def _show_next(self, result: Result) -> None:
        self._show(self.shown, result)
        self.shown += 1
        if result.finish_reason == "error":
            self.failed += 1
        elif result.error:
            self.unreadable += 1
        else:
            self.answered += 1

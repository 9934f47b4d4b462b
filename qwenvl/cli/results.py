"""Results of a command, shown in the order of what was asked about; and its exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import BadImage, BadOption, QwenVLError
from ..types import Result
from .output import print_error, print_message

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..query import Query

SOME_FAILED, NOTHING_DONE, UNREADABLE = 1, 2, 3
"""Exit statuses of failures; ``parser.EXIT_STATUS`` explains them."""


def exit_status(answered: int, failed: int, unreadable: int) -> int:
    """Of so many inputs. ``failed``: those without a reply, and those that were not reached."""
    if failed:
        return SOME_FAILED if answered or unreadable else NOTHING_DONE
    return UNREADABLE if unreadable else 0


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

    def ask(self, backend: Backend, portions: Iterable[Mapping[int, Query]]) -> None:
        """Puts the answers to the queries of each portion, by their numbers, before the next one is
        taken. Ends early where the options allow no request at all."""
        for queries in portions:
            if not self._ask(backend, queries):
                break

    def _ask(self, backend: Backend, queries: Mapping[int, Query]) -> bool:
        """False where the options allow no request at all, and so none about what comes later
        either: nothing has been answered, and the backend refused these together, all for one
        reason."""
        from .. import run

        numbers, asked = list(queries), list(queries.values())
        reasons: set[str] = set()

        def put(index: int, result: Result) -> None:
            if not asked[index].problem:
                reasons.add(result.error)
            self.put(numbers[index], result)

        try:
            run.answer_each(backend, asked, put)
        except (BadOption, BadImage) as refusal:
            try:  # again, for each one's own reason
                run.answer_each(backend, asked, put, alone=True)
            except BadOption as error:
                for number in numbers:
                    self.fail(number, queries[number].problem or error)
            is_of_all = isinstance(refusal, BadOption) and len(reasons) < 2
            return not is_of_all or bool(self.answered or self.unreadable)
        return True

    @contextmanager
    def told(self) -> Iterator[None]:
        """While they come: tells how far they came where that was not to the end. An error behind
        the first answer is told, and not raised."""
        try:
            yield
        except QwenVLError as error:
            if not (self.answered or self.unreadable):
                raise
            self._is_broken_off = True
            print_error(str(error))
        except BaseException:
            self._tell_end()
            raise
        self._tell_end()

    def _tell_end(self) -> None:
        if self.shown < self.count:
            print_message(f"stopped after {self.shown} of {self.count}")

    def exit_status(self, has_failed: bool = False) -> int:
        """``has_failed``: whether anything else has."""
        failed = self.failed + self.count - self.shown + self._is_broken_off + has_failed
        return exit_status(self.answered, failed, self.unreadable)

    def _show_next(self, result: Result) -> None:
        self._show(self.shown, result)
        self.shown += 1
        if result.finish_reason == "error":
            self.failed += 1
        elif result.error:
            self.unreadable += 1
        else:
            self.answered += 1

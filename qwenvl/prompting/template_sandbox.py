"""Template sandbox: Jinja chat templates with limits on their steps and output.

A chat template is a small program that comes with a checkpoint. Jinja's sandbox keeps it from the
system, but not from running forever or filling the memory: here its steps and the length of what it
makes are counted. Templates of real models stay far below these limits.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from ..errors import UnsupportedModel

MAX_STEPS = 1_000_000
"""Loop iterations, calls and operations; a long conversation takes some thousands."""
MAX_OWN_CHARACTERS = 200_000
"""Characters that a template may write of its own, beside those of the messages."""
_WIDE_FIELD = re.compile(r"%[^a-zA-Z%]*(\d{5}|\*)")  # of the `%` operator


class SandboxedTemplate:
    """The template in ``source``. Raises ``UnsupportedModel`` where it cannot be read."""

    def __init__(self, source: str):
        try:
            self._environment = _environment()
            self._template = self._environment.from_string(source)
            self._tree = self._environment.parse(source)
        except Exception as error:  # the parser raises more than its own errors
            raise _error(error) from error

    def render(self, **values: Any) -> str:
        """The text for ``values``. Raises ``UnsupportedModel`` where the template raises anything,
        or goes beyond the limits."""
        limits = self._environment.limits
        limits.steps, limits.max_length = MAX_STEPS, MAX_OWN_CHARACTERS + 8 * _characters(values)
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(**values):
                length += len(piece)
                limits.check_length(length)
                pieces.append(piece)
        except Exception as error:  # a program may raise anything
            raise _error(error) from error
        return "".join(pieces)

    @property
    def variables(self) -> frozenset[str]:
        """Names that the template reads and does not set itself."""
        from jinja2.meta import find_undeclared_variables

        return frozenset(find_undeclared_variables(self._tree))

    def compared(self, name: str) -> tuple[str, ...]:
        """The texts that the template compares the variable ``name`` with, in order, also under
        another name that it gives it."""
        from jinja2 import nodes

        names = {name}
        for given in self._tree.find_all(nodes.Assign):
            sources = [given.node, *given.node.find_all(nodes.Name)]
            if isinstance(given.target, nodes.Name) and any(
                isinstance(source, nodes.Name) and source.name in names for source in sources
            ):
                names.add(given.target.name)
        found = [
            constant.value
            for test in self._tree.find_all(nodes.Compare)
            if names
            & {
                used.name
                for used in (test.expr, *test.find_all(nodes.Name))
                if isinstance(used, nodes.Name)
            }
            for constant in test.find_all(nodes.Const)
            if isinstance(constant.value, str) and constant.value
        ]
        return tuple(dict.fromkeys(found))


def _error(error: Exception) -> UnsupportedModel:
    message = str(error)[:500] or type(error).__name__
    return UnsupportedModel(
        f"The chat template of this checkpoint fails: {message}. Replace chat_template.jinja by "
        "the original model's."
    )


def _characters(value: Any) -> int:
    """Characters of all texts in messages and the like."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, (list, tuple)) else 0


class _LimitExceeded(Exception):
    """A template goes beyond its limits."""


class _Limits(threading.local):
    """What one run of a template, which stays in one thread, may still do."""

    steps = MAX_STEPS
    max_length = MAX_OWN_CHARACTERS

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise _LimitExceeded(f"it does not end within {MAX_STEPS} steps")

    def check_length(self, length: int) -> None:
        if length > self.max_length:
            raise _LimitExceeded(f"it makes more than {self.max_length} characters")


@cache
def _environment() -> Any:
    """A Jinja environment that counts, with all that transformers lets a template use and nothing
    else."""
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer
    from transformers.utils.chat_template_utils import _compile_jinja_template

    def call(name: str, node: nodes.Node, *arguments: nodes.Expr) -> nodes.Call:
        made = nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)
        made.set_lineno(node.lineno)
        return made

    class Counted(NodeTransformer):
        """Routes loops and concatenation through the environment, as calls and operators are."""

        def visit_For(self, node: nodes.For) -> nodes.Node:
            self.generic_visit(node)
            assert isinstance(node.iter, nodes.Expr)
            node.iter = call("iterate", node, node.iter)
            return node

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
            self.generic_visit(node)
            return call("concatenate", node, *node.nodes)

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})
        limits = _Limits()

        def _parse(self, *source: Any) -> nodes.Template:
            return Counted().visit(super()._parse(*source))

        def iterate(self, items: Iterable[Any]) -> Iterator[Any]:
            for item in items:
                self.limits.step()
                yield item

        def concatenate(self, *parts: Any) -> str:
            texts = [str(part) for part in parts]
            self.limits.check_length(sum(map(len, texts)))
            return "".join(texts)

        def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:
            self.limits.step()
            for value in args:
                if isinstance(value, int):
                    self.limits.check_length(value)
            return super().call(context, called, *args, **kwargs)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            self.limits.step()
            self.limits.check_length(_result_length(operator, left, right))
            return super().call_binop(context, operator, left, right)

    theirs = _compile_jinja_template("").environment
    extensions = [type(extension) for extension in theirs.extensions.values()]
    # Folding constants would compute before anything is counted.
    made = Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions, optimized=False)
    made.filters, made.tests, made.globals = theirs.filters, theirs.tests, theirs.globals
    return made


def _result_length(operator: str, left: Any, right: Any) -> int:
    """Upper bound of the length of what an operator makes; numbers count by their digits."""
    sizes = [len(side) for side in (left, right) if isinstance(side, (str, list, tuple))]
    numbers = [side for side in (left, right) if isinstance(side, int)]
    if operator == "+":
        return sum(sizes)
    if operator == "*":
        if sizes:
            return sum(sizes) * max([0, *numbers])
        return sum(number.bit_length() for number in numbers) // 3
    if operator == "**" and len(numbers) == 2:
        return left.bit_length() * max(0, right)
    if operator == "%" and isinstance(left, str) and _WIDE_FIELD.search(left):
        raise _LimitExceeded(f"it formats {left[:80]!r}")
    return 0

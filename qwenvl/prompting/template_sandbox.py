"""Chat templates, run within bounds.

A template is a small program that comes with a checkpoint. Jinja's sandbox keeps it from the
system, not from running for ever or filling the memory: here its steps and the length of what it
makes are counted. What the template of a real model needs is far below these bounds.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from ..errors import UnsupportedModel

STEPS = 1_000_000
"""Rounds of loops, calls and operations; a long conversation takes some thousands."""
OWN_WORDS = 200_000
"""Characters that a template may write of its own, whatever it is given."""
_WIDE = re.compile(r"%[^a-zA-Z%]*(\d{5}|\*)")  # of a field that `%` fills


class SandboxedTemplate:
    """The template in ``source``. Raises ``UnsupportedModel`` where it cannot be read."""

    def __init__(self, source: str):
        try:
            self._environment = _environment()
            self._template = self._environment.from_string(source)
        except Exception as error:  # the parser raises more than its own errors
            raise _fails(error) from error

    def render(self, **values: Any) -> str:
        """The text for ``values``. Raises ``UnsupportedModel`` where the template raises anything,
        or goes beyond the bounds."""
        bounds = self._environment.bounds
        bounds.steps, bounds.most = STEPS, OWN_WORDS + 8 * _characters(values)
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(**values):
                length += len(piece)
                bounds.fits(length)
                pieces.append(piece)
        except Exception as error:  # a program may raise anything
            raise _fails(error) from error
        return "".join(pieces)


def _fails(error: Exception) -> UnsupportedModel:
    told = str(error)[:500] or type(error).__name__
    return UnsupportedModel(
        f"The chat template of this checkpoint fails: {told}. Replace chat_template.jinja by the "
        "original model's."
    )


def _characters(value: Any) -> int:
    """Of all texts in messages and the like."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, (list, tuple)) else 0


class _TooMuch(Exception):
    """A template goes beyond its bounds."""


class _Bounds(threading.local):
    """What one run of a template, which stays in one thread, may still do."""

    steps = STEPS
    most = OWN_WORDS

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise _TooMuch(f"it does not end within {STEPS} steps")

    def fits(self, length: int) -> None:
        if length > self.most:
            raise _TooMuch(f"it makes more than {self.most} characters")


@cache
def _environment() -> Any:
    """One that counts, with all that transformers lets a template use and nothing else."""
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer
    from transformers.utils.chat_template_utils import _compile_jinja_template

    def call(name: str, node: nodes.Node, *arguments: nodes.Expr) -> nodes.Call:
        made = nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)
        made.set_lineno(node.lineno)
        return made

    class Counted(NodeTransformer):
        """Has loops and joined texts go through the environment, as calls and operators do."""

        def visit_For(self, node: nodes.For) -> nodes.Node:
            self.generic_visit(node)
            assert isinstance(node.iter, nodes.Expr)
            node.iter = call("each", node, node.iter)
            return node

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
            self.generic_visit(node)
            return call("joined", node, *node.nodes)

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})
        bounds = _Bounds()

        def _parse(self, *source: Any) -> nodes.Template:
            return Counted().visit(super()._parse(*source))

        def each(self, items: Iterable[Any]) -> Iterator[Any]:
            for item in items:
                self.bounds.step()
                yield item

        def joined(self, *parts: Any) -> str:
            texts = [str(part) for part in parts]
            self.bounds.fits(sum(map(len, texts)))
            return "".join(texts)

        def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:
            self.bounds.step()
            for value in args:
                if isinstance(value, int):
                    self.bounds.fits(value)
            return super().call(context, called, *args, **kwargs)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            self.bounds.step()
            self.bounds.fits(_length(operator, left, right))
            return super().call_binop(context, operator, left, right)

    theirs = _compile_jinja_template("").environment
    extensions = [type(extension) for extension in theirs.extensions.values()]
    # Folding constants would compute before anything is counted.
    made = Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions, optimized=False)
    made.filters, made.tests, made.globals = theirs.filters, theirs.tests, theirs.globals
    return made


def _length(operator: str, left: Any, right: Any) -> int:
    """Of what an operator makes, at most; numbers count by their digits."""
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
    if operator == "%" and isinstance(left, str) and _WIDE.search(left):
        raise _TooMuch(f"it formats {left[:80]!r}")
    return 0

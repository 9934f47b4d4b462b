"""GBNF grammars: regular expressions and Lark grammars in the form that llama.cpp reads, and
xgrammar as EBNF, by which vLLM and SGLang hold answers.

https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_CLASSES = {"d": "0-9", "w": "a-zA-Z0-9_", "s": r" \t\n\r"}
_CONTROLS = {"n": r"\n", "t": r"\t", "r": r"\r"}
_QUANTIFIER = re.compile(r"[*+?]|\{(\d+)(?:(,)(\d*))?\}")
_RULE = re.compile(r"^[?!]?([A-Za-z_]\w*)(?:\.-?\d+)?[ \t]*:(.*)$")
_LARK = re.compile(
    r"""
    (?P<blank>[ \t\n]+)
    | (?P<string>"(?:[^"\\]|\\.)*")(?!i)
    | (?P<complement>&\ *~/(?:[^/\\]|\\.)+/)
    | (?P<regex>/(?:[^/\\]|\\.)+/)(?![imslux])
    | (?P<name>[A-Za-z_]\w*)
    | (?P<group>[()\[\]|])
    | (?P<quantifier>[*+?]|\{\d+(?:,\d*)?\})
    | ~\ *(?P<times>\d+(?:\.\.\d+)?)
    """,
    re.VERBOSE,
)


_BEGINNING = {"start": "root", "root": "r-root"}


class NotInGbnf(ValueError):
    """Something that GBNF cannot express, in words."""


def from_choices(choices: Sequence[str]) -> str:
    """A grammar of one of ``choices``, word for word."""
    return f"root ::= {' | '.join(_literal(choice) for choice in choices)}\n"


def from_regex(pattern: str) -> str:
    """A grammar of the text that ``pattern`` matches as a whole. Raises ``NotInGbnf`` for what is
    no part of a regular language (look-around, references back), and for flags and boundaries."""
    return f"root ::= {_Regex(pattern).whole()}\n"


def from_lark(source: str) -> str:
    """A grammar of the texts that a Lark grammar describes, and of some more: exclusions from a
    terminal (``& ~/…/``) are left out. Raises ``NotInGbnf`` for directives, flags, aliases and
    whatever else of Lark is not translated."""
    rules: list[tuple[str, str]] = []
    for line in source.splitlines():
        text = line.strip()
        if not text or text.startswith("//"):
            continue
        found = _RULE.match(text)
        if found:
            rules.append((found[1], found[2]))
        elif rules and text.startswith("|"):
            rules[-1] = rules[-1][0], f"{rules[-1][1]} {text}"
        else:
            raise NotInGbnf(f"the line {text[:60]!r}")
    names = {name for name, _ in rules}
    if "start" not in names:
        raise NotInGbnf("a grammar without a rule start")
    if len({_name(name) for name in names}) < len(names):
        raise NotInGbnf("names that differ in underscores alone")
    lines = [f"{_name(name)} ::= {_expansion(text, names)}" for name, text in rules]
    return "\n".join((*lines, ""))


def _name(name: str) -> str:
    """A name in GBNF, which has no underscores and begins at ``root`` in the place of ``start``."""
    if name in _BEGINNING:
        return _BEGINNING[name]
    return ("t-" if name.isupper() else "") + name.lower().strip("_").replace("_", "-")


def _expansion(text: str, names: set[str]) -> str:
    parts: list[str] = []
    at = 0
    while at < len(text):
        found = _LARK.match(text, at)
        if not found:
            raise NotInGbnf(f"{text[at : at + 30].strip()!r}")
        at = found.end()
        kind, value = str(found.lastgroup), found.group()
        if kind == "string":
            parts.append(_literal(_unescaped(value[1:-1])))
        elif kind == "regex":
            parts.append(f"({_Regex(value[1:-1].replace(chr(92) + '/', '/')).whole()})")
        elif kind == "name":
            if value not in names:
                raise NotInGbnf(f"the name {value!r}")
            parts.append(_name(value))
        elif kind in ("quantifier", "times"):
            if not parts:
                raise NotInGbnf(value)
            times = (found["times"] or "").replace("..", ",")
            parts[-1] += f"{{{times}}}" if times else value
        elif kind == "group":
            parts.append({"[": "(", "]": ")?"}.get(value, value))
    return " ".join(parts)


def _unescaped(text: str) -> str:
    controls = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda found: controls.get(found[1], found[1]), text)


def _literal(text: str) -> str:
    """A text in quotes."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    controls = {"\n": r"\n", "\t": r"\t", "\r": r"\r", '"': r"\"", "\\": r"\\"}
    if character in controls:
        return controls[character]
    return character if ord(character) >= 0x20 else _code(ord(character))


def _code(number: int) -> str:
    """A character by its code point. Not as ``\\x``, for which xgrammar also takes any hexadecimal
    digits that follow."""
    return f"\\u{number:04X}"


class _Regex:
    """Reads a regular expression, one character after the other, and writes it as GBNF."""

    def __init__(self, pattern: str):
        self._pattern = pattern.removeprefix("^")
        if self._pattern.endswith("$") and not self._pattern.endswith(r"\$"):
            self._pattern = self._pattern[:-1]
        self._at = 0

    def whole(self) -> str:
        found = self._choices()
        if self._at < len(self._pattern):
            raise NotInGbnf(self._pattern[self._at :][:30])
        return found

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        if not self._next():
            raise NotInGbnf("an expression that ends too early")
        self._at += 1
        return self._pattern[self._at - 1]

    def _choices(self) -> str:
        found = [self._sequence()]
        while self._next() == "|":
            self._take()
            found.append(self._sequence())
        return " | ".join(found)

    def _sequence(self) -> str:
        parts = []
        while self._next() and self._next() not in "|)":
            part = self._atom()
            if found := _QUANTIFIER.match(self._pattern, self._at):
                self._at = found.end()
                part += found.group()
                if self._next() and self._next() in "?+":
                    raise NotInGbnf("a quantifier that is lazy or possessive")
            parts.append(part)
        return " ".join(parts) or '""'

    def _atom(self) -> str:
        character = self._take()
        if character == "(":
            if self._next() == "?":
                if not self._pattern.startswith("?:", self._at):
                    raise NotInGbnf("look-around, a flag or a name")
                self._at += 2
            inner = self._choices()
            if self._take() != ")":
                raise NotInGbnf("a group that is not closed")
            return f"({inner})"
        if character == "[":
            return self._class()
        if character == ".":
            return r"[^\n]"
        if character in "^$*+?{}":
            raise NotInGbnf(character)
        if character == "\\":
            escape = self._take()
            if escape in _CLASSES:
                return f"[{_CLASSES[escape]}]"
            if escape.lower() in _CLASSES:
                return f"[^{_CLASSES[escape.lower()]}]"
            return f'"{self._character(escape)}"'
        return f'"{_escaped(character)}"'

    def _class(self) -> str:
        parts = ["^"] if self._next() == "^" and self._take() else []
        is_first = True
        while self._next() != "]" or is_first:
            character, is_first = self._take(), False
            if character == "[" and self._next() == ":":
                raise NotInGbnf("a named class")
            if character != "\\":
                parts.append(_code(ord(character)) if character in "[]" else _in_class(character))
                continue
            escape = self._take()
            if escape in _CLASSES:
                parts.append(_CLASSES[escape])
            elif escape.lower() in _CLASSES:
                raise NotInGbnf(f"\\{escape} in a class")
            elif escape in "]-^[":
                parts.append(_code(ord(escape)))
            else:
                parts.append(self._character(escape))
        self._take()
        return f"[{''.join(parts)}]"

    def _character(self, escape: str) -> str:
        """What the escaped character is in GBNF."""
        if escape in _CONTROLS:
            return _CONTROLS[escape]
        if escape in "xu":
            digits = self._pattern[self._at :][: 2 if escape == "x" else 4]
            if not re.fullmatch(r"[0-9a-fA-F]{2}|[0-9a-fA-F]{4}", digits):
                raise NotInGbnf(f"\\{escape}")
            self._at += len(digits)
            return _code(int(digits, 16))
        if escape.isalnum():
            raise NotInGbnf(f"\\{escape}")
        return _escaped(escape)


def _in_class(character: str) -> str:
    return "\\\\" if character == "\\" else _escaped(character).replace('\\"', '"')

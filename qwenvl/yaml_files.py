"""YAML data files, the pack's and users' own: read safely, each field checked, with errors that
name the file, the field and what to write."""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from .errors import BadOption, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_BYTES = 1_000_000
"""Of a data file: these hold words for a model, which no longer ones fit."""
_MAX_QUOTED, _MAX_BITS = 80, 256
"""Characters of a text and bits of a number that a message quotes."""


def paths_in(folders: Iterable[Path]) -> list[Path]:
    """The YAML files right in ``folders``, by name; a folder that is not there has none."""
    found = []
    for folder in folders:
        try:
            names = [path for path in folder.iterdir() if path.suffix.lower() in (".yaml", ".yml")]
        except FileNotFoundError:
            continue
        except OSError as error:  # a list of choices is better than none
            log.warning("%s cannot be read: %s", folder, error)
            continue
        found += sorted(names, key=lambda path: path.name.lower())
    return found


def read_mapping(path: Path) -> Mapping[Any, Any]:
    """The names and values in a YAML file; a name without quotes may be no text (see ``unquoted``).
    Raises ``BadOption`` for a file that cannot be read, is no YAML or holds anything but names with
    values, and ``Unavailable`` without pyyaml."""
    try:
        state = path.stat()
    except OSError as error:
        raise BadOption(f"{path} cannot be read: {error}") from error
    if state.st_size > MAX_BYTES:
        raise BadOption(f"{path} is larger than a megabyte. Make it shorter.")
    return _read(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=256)  # lists of choices are asked for again and again
def _read(path: Path, changed: int, size: int) -> Mapping[Any, Any]:
    try:
        import yaml
    except ImportError as error:
        raise Unavailable(
            f"{path.name} is a YAML file, and pyyaml is not installed: pip install pyyaml"
        ) from error
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"{path} cannot be read as UTF-8 text: {error}") from error
    except Exception as error:  # of a value unlike its tag pyyaml raises anything: !!int '' ...
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or _unread(error)
        raise BadOption(
            f"{path}{where}: this is no valid YAML: {problem}. A text with a colon, a # or quotes "
            "in it goes behind a | on lines of its own, which begin with two blanks."
        ) from error
    if not isinstance(found, dict):
        raise BadOption(f"{path}: write names with values, one a line, as in title: My target.")
    return found


def _unread(error: Exception) -> str:
    """What is wrong with a file, where pyyaml does not say it."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"one of its values is not what it looks like, or is tagged as ({shown(str(error))})"


def shown(value: Any) -> str:
    """A value as a message can quote it, cut: by aliases a small file can hold endless ones."""
    if isinstance(value, dict):
        return "names with values"
    if isinstance(value, (list, tuple, set)):
        return "a list"
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return "a number of too many digits"
    text = repr(value[:_MAX_QUOTED] if isinstance(value, (str, bytes)) else value)
    return f"{text}…" if isinstance(value, (str, bytes)) and len(value) > _MAX_QUOTED else text


def unquoted(path: Path, name: Any) -> BadOption:
    """The error about a name that YAML takes for something else, such as ``yes`` or ``2024``."""
    return BadOption(f'{path}: the name that YAML takes for {shown(name)} goes into "quotes".')


@dataclass(frozen=True)
class Found(Generic[T]):
    """What files define, by name. ``kind``: what it is, in words. ``problems``: why something is
    not among it, by its name; ``broken``: why whole files are not, whatever they define, or what
    has no name that can be told."""

    kind: str
    items: Mapping[str, T]
    problems: Mapping[str, str]
    broken: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> T:
        """Raises ``BadOption`` for a name that is not there."""
        if name not in self.items:
            raise self.missing(name)
        return self.items[name]

    def missing(self, name: str, names: Iterable[str] = ()) -> BadOption:
        """The error about a name that is not there: what is wrong with it, or which ones there are
        (``names``; none: the items')."""
        if name in self.problems:
            return BadOption(f"The {self.kind} {name!r} cannot be used. {self.problems[name]}")
        unread = "".join(f" Left out: {problem}" for problem in self.broken)
        there = ", ".join(names or self.items)
        return BadOption(f"There is no {self.kind} {name!r}. Choose one of: {there}.{unread}")


@functools.lru_cache(maxsize=64)
def warn(problem: str) -> None:
    """Logs what is wrong with a file, once: files are read whenever a list of choices is shown."""
    log.warning("%s", problem)


class Fields:
    """The fields of a mapping in a file, taken one by one. ``end`` refuses what nobody took, such
    as a misspelt name. Every method raises ``BadOption``, as does a name that is no text."""

    def __init__(self, path: Path, values: Mapping[Any, Any], within: str = ""):
        if odd := [name for name in values if not isinstance(name, str)]:
            raise unquoted(path, odd[0])
        self._path, self._within = path, within
        self._values = dict(values)
        self._taken: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._values

    def fail(self, name: str, problem: str) -> BadOption:
        """The error about a field."""
        return BadOption(f"{self._path}: {self._within}{name[:_MAX_QUOTED]} {problem}")

    def text(self, name: str, default: str | None = None) -> str:
        """A text without blanks around it; without a default one has to be there."""
        value = self._take(name, default)
        if value is None:
            raise self.fail(name, "is missing: write it as a text.")
        if not isinstance(value, str):
            kind = f"what YAML takes for {shown(value)}"
            raise self.fail(name, f'is no text, but {kind}: put it into "quotes".')
        if not value.strip() and default is None:
            raise self.fail(name, "is empty: write it as a text.")
        return value.strip()

    def choice(self, name: str, options: Collection[str], default: str) -> str:
        value = self.text(name, default)
        if value not in options:
            raise self.fail(name, f"is {shown(value)}. Choose one of: {', '.join(options)}.")
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self._take(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(name, f"is {shown(value)}; write a number of {low:g} to {high:g}.")
        if not low <= value <= high:
            raise self.fail(name, f"is {shown(value)}; it may be {low:g} to {high:g}.")
        return value

    def whole(self, name: str, low: int, high: int, default: int) -> int:
        value = self.number(name, low, high, default)
        if value != int(value):
            raise self.fail(name, f"is {value}; write a whole number.")
        return int(value)

    def flag(self, name: str) -> bool | None:
        """True or False; None where it is not there."""
        value = self._take(name, None)
        if value is not None and not isinstance(value, bool):
            raise self.fail(name, f"is {shown(value)}; write true or false.")
        return value

    def mapping(self, name: str) -> Fields:
        """Fields below a name; none where it is not there."""
        value = self._take(name, {})
        if not isinstance(value, dict):
            raise self.fail(name, "has to have names with values below it, two blanks further in.")
        return Fields(self._path, value, f"{self._within}{name}: ")

    def end(self) -> None:
        """Refuses the fields that were not taken."""
        for name in self._values.keys() - self._taken:
            near = difflib.get_close_matches(name, self._taken, 1)
            advice = f"Did you mean {near[0]}?" if near else f"There are: {self._names()}."
            raise self.fail(name, f"is no field that is known here. {advice}")

    def _names(self) -> str:
        return ", ".join(sorted(self._taken))

    def _take(self, name: str, default: Any) -> Any:
        self._taken.add(name)
        value = self._values.get(name)
        return default if value is None else value

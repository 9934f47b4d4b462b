"""GGUF files: which there are, which projector (mmproj) belongs to which model, and what their
headers say. No tensor is read.

A vision-language model is two files: the language model, perhaps in parts
(``…-00001-of-00003.gguf``), and beside it the vision tower (``mmproj-….gguf``, ``….mmproj.gguf``).
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import functools
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CheckpointNotFound, IncompleteCheckpoint, UnsupportedModel
from ..families import GGUF
from .files import printable, reason

_ENDING = ".gguf"
_DEPTH = 3  # folders below a root: owner, repository, and one for a quantization
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_REMARK = " (cannot be served)"
_MOST_KEYS, _LONGEST = 4096, 1 << 20  # of a header that can be trusted; bytes of a text in it
# Numbers by their type in the file; 8 is a text, 9 an array.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_TEXT, _ARRAY = 8, 9
_BEHIND = "tokenizer."  # keys from here on are long, and of no interest
# Projectors by how precise they are where a folder holds several: their size matters little.
_PRECISIONS = ("bf16", "f16", "f32", "q8_0")


@dataclass(frozen=True)
class GgufModel:
    """A model as GGUF. ``name``: its path below its root, with ``/``; ``path``: of its first part;
    ``mmproj``: the projector that goes with it (None: there is none). ``family``: its
    ``model_type``, empty where the files are of none that is known. ``nbytes``: of all its files;
    ``cache_bytes``: of the KV cache for one token in half precision (0: not known). ``problem``:
    what is wrong, empty where it can be served; ``missing``: parts that are not there.
    ``is_foreign``: a whole file of another kind of model."""

    name: str
    path: Path
    mmproj: Path | None
    family: str
    nbytes: int
    cache_bytes: int = 0
    problem: str = ""
    missing: tuple[str, ...] = ()
    is_foreign: bool = False

    @property
    def choice(self) -> str:
        """The name in a list of choices, with a remark where it cannot be served."""
        return f"{self.name}{_REMARK}" if self.problem else self.name


def scan(roots: Iterable[Path]) -> list[GgufModel]:
    """Every model as GGUF below ``roots``, down to ``root/owner/repository/folder``, by name; a
    projector is none. Where two roots hold the same name the first wins. Cheap enough to be called
    often: headers that did not change are not read again."""
    found: dict[str, GgufModel] = {}
    for root in roots:
        for folder in _folders(root, _DEPTH):
            files = _files(folder)
            projectors = [path for path in files if is_projector(path)]
            for path in files:
                if not is_projector(path) and _is_first(path):
                    name = path.relative_to(root).as_posix()
                    if name not in found:
                        found[name] = _inspect(name, path, projectors)
    return sorted(found.values(), key=lambda model: model.name.casefold())


def projectors(roots: Iterable[Path]) -> dict[str, Path]:
    """Every projector below ``roots``, by its path there."""
    found: dict[str, Path] = {}
    for root in roots:
        for folder in _folders(root, _DEPTH):
            for path in filter(is_projector, _files(folder)):
                found.setdefault(path.relative_to(root).as_posix(), path)
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def locate(name: str, roots: Iterable[Path], mmproj: str = "") -> GgufModel:
    """The model of that name, or ``choice``, by its whole path or else by its last part, with the
    projector ``mmproj`` of ``projectors`` (empty: the one that fits). Raises
    ``CheckpointNotFound``, ``IncompleteCheckpoint`` for one whose parts are not all there, and
    ``UnsupportedModel`` for one that cannot be served."""
    roots = list(roots)
    model = find(name, roots)
    if mmproj:
        chosen = _named(mmproj, projectors(roots), "projector (mmproj)")
        model = _inspect(model.name, model.path, [chosen])
    return _checked(model)


def find(name: str, roots: Iterable[Path]) -> GgufModel:
    """As ``locate``, of a model that perhaps cannot be served as it lies there. Raises
    ``CheckpointNotFound``."""
    found: GgufModel = _named(name, {model.name: model for model in scan(roots)}, "GGUF model")
    return found


def at(path: Path, mmproj: Path | None = None) -> GgufModel:
    """The model whose file, or one of whose files, is ``path``, with that projector (None: the one
    beside it that fits). Raises as ``locate``."""
    first = parts(path)[0]
    for file in filter(None, (first, mmproj)):
        if not file.is_file():
            raise CheckpointNotFound(f"There is no file {file}.")
    if is_projector(first):
        raise UnsupportedModel(
            f"{first} is a vision tower (projector). Name the language model that it goes with."
        )
    beside = [file for file in _files(first.parent) if is_projector(file)]
    return _checked(_inspect(first.name, first, [mmproj] if mmproj else beside))


def _checked(model: GgufModel) -> GgufModel:
    if model.missing:
        raise IncompleteCheckpoint(f"{model.name}: {model.problem}", model.missing)
    if model.problem:
        raise UnsupportedModel(f"{model.name}: {model.problem}")
    return model


def _named(name: str, found: Mapping[str, Any], what: str) -> Any:
    wanted = name.removesuffix(_REMARK).replace("\\", "/")
    if wanted in found:
        return found[wanted]
    same = [item for key, item in found.items() if _last(key) == _last(wanted)]
    if same:
        return same[0]
    there = ", ".join(found) or "none"
    raise CheckpointNotFound(
        f"There is no {what} {name!r} in models/LLM (there: {there}). Put the files there and "
        "press R on the page."
    )


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1].casefold()


def is_projector(path: Path) -> bool:
    """Whether a file is a vision tower, by its name or else by its header."""
    if "mmproj" in path.name.lower():
        return True
    try:
        return bool(header(path).get("general.architecture") == "clip")
    except UnsupportedModel:
        return False


def parts(path: Path) -> list[Path]:
    """All files of the model whose first is ``path``, in order, whether they are there or not."""
    match = _PART.search(path.stem)
    if not match:
        return [path]
    stem, count = path.stem[: match.start()], int(match[2])
    return [
        path.with_name(f"{stem}-{number:05}-of-{match[2]}{path.suffix}")
        for number in range(1, count + 1)
    ]


def states(files: Iterable[Path]) -> list[tuple[int, int]]:
    """The time in nanoseconds and the bytes of each file, by which a replaced one is told; zeros of
    those that are not there."""
    found = [path.stat() if path.is_file() else None for path in files]
    return [(one.st_mtime_ns, one.st_size) if one else (0, 0) for one in found]


def _is_first(path: Path) -> bool:
    match = _PART.search(path.stem)
    return match is None or int(match[1]) == 1


def _inspect(name: str, path: Path, projectors: list[Path]) -> GgufModel:
    files = parts(path)
    missing = tuple(part.name for part in files if not part.is_file())
    try:
        model = header(path)
    except UnsupportedModel as error:
        return GgufModel(name, path, None, "", 0, problem=str(error))
    fitting, family = _fitting(path, model, projectors)
    nbytes = sum(_size(part) for part in (*files, *((fitting,) if fitting else ())))
    return GgufModel(
        name,
        path,
        fitting,
        family,
        nbytes,
        cache_bytes(model),
        _problem(model, missing, fitting, projectors),
        missing,
        not _is_known(model),
    )


def _problem(
    model: Mapping[str, Any], missing: tuple[str, ...], fitting: Path | None, projectors: list[Path]
) -> str:
    if missing:
        return f"Parts are missing: {', '.join(missing)}. Put them beside the others."
    if fitting:
        return ""
    if not _is_known(model):
        architecture = model.get("general.architecture", "unknown")
        return f"Its architecture is {architecture}, which is no Qwen vision-language model."
    if projectors:
        names = ", ".join(path.name for path in projectors)
        return f"None of the projectors beside it ({names}) was made for it. Get its own."
    return (
        "There is no projector (mmproj-….gguf) beside it, without which it sees nothing. Get the "
        "one that its publisher gives with it."
    )


def _is_known(model: Mapping[str, Any]) -> bool:
    return any(text == model.get("general.architecture") for text, _ in GGUF)


def _fitting(
    path: Path, model: Mapping[str, Any], projectors: list[Path]
) -> tuple[Path | None, str]:
    """The projector that goes best with a model, and the family of both."""
    architecture = str(model.get("general.architecture"))
    width = model.get(f"{architecture}.embedding_length")
    found: list[tuple[Path, str]] = []
    for projector in projectors:
        try:
            tower = header(projector)
        except UnsupportedModel:
            continue
        kind = tower.get("clip.projector_type") or tower.get("clip.vision.projector_type")
        family = GGUF.get((architecture, str(kind)), "")
        if family and tower.get("clip.vision.projection_dim", width) == width:
            found.append((projector, family))
    found.sort(key=lambda item: (_unlike(path, item[0]), _precision(item[0]), item[0].name))
    return found[0] if found else (None, "")


def _unlike(path: Path, projector: Path) -> int:
    """How many words of a projector's name the model's lacks, less those that both have: names
    tell sizes and versions."""
    words = _words(projector)
    return len(words - _words(path)) - len(words & _words(path))


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", path.stem.lower())) - {"mmproj", "", *_PRECISIONS}


def _precision(path: Path) -> int:
    name = path.name.lower()
    # bf16 holds f16 in its name, and stands before it.
    return next((at for at, word in enumerate(_PRECISIONS) if word in name), len(_PRECISIONS))


def cache_bytes(model: Mapping[str, Any]) -> int:
    """Keys and values of all layers, two bytes each."""
    architecture = model.get("general.architecture")

    def number(name: str) -> int:
        value = model.get(f"{architecture}.{name}")
        return value if isinstance(value, int) else 0

    heads = number("attention.head_count_kv")
    width = number("attention.key_length")
    if not width and number("attention.head_count"):
        width = number("embedding_length") // number("attention.head_count")
    return 2 * 2 * number("block_count") * heads * width


def header(path: Path) -> Mapping[str, Any]:
    """The keys of a GGUF file up to those of its tokenizer, with their values; arrays are left out.
    Raises ``UnsupportedModel`` for a file that is no GGUF or cannot be read."""
    try:
        state = path.stat()
        return _header(path, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise UnsupportedModel(f"{printable(path.name)} cannot be read: {reason(error)}") from error


@functools.lru_cache(maxsize=512)  # lists of choices are asked for again and again
def _header(path: Path, changed: int, size: int) -> Mapping[str, Any]:
    with path.open("rb") as file:
        try:
            magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version < 2 or count > _MOST_KEYS:
                raise ValueError("its first bytes are others")
            return dict(_keys(file, count))
        except (struct.error, ValueError, UnicodeDecodeError) as error:
            raise UnsupportedModel(
                f"{path.name} is no whole GGUF file of version 2 or later ({error}). Get it again."
            ) from error


def _keys(file: BinaryIO, count: int) -> Iterator[tuple[str, Any]]:
    for _ in range(count):
        key = _text(file)
        if key.startswith(_BEHIND):
            return
        (kind,) = struct.unpack("<I", file.read(4))
        value = _value(file, kind)
        if value is not None:
            yield key, value


def _value(file: BinaryIO, kind: int) -> Any:
    """None of an array, which is passed over."""
    if kind == _TEXT:
        return _text(file)
    if kind in _NUMBERS:
        return struct.unpack(f"<{_NUMBERS[kind]}", file.read(struct.calcsize(_NUMBERS[kind])))[0]
    if kind != _ARRAY:
        raise ValueError(f"a value of type {kind}")
    inner, length = struct.unpack("<IQ", file.read(12))
    if inner in _NUMBERS:
        file.seek(length * struct.calcsize(_NUMBERS[inner]), os.SEEK_CUR)
    elif inner == _TEXT and length <= _LONGEST:
        for _ in range(length):
            _text(file)
    else:
        raise ValueError(f"an array of type {inner}")
    return None


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _LONGEST:
        raise ValueError("a text is too long")
    found = file.read(length)
    if len(found) < length:
        raise ValueError("it ends too early")
    return found.decode("utf-8")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """``root`` and the folders below it, those whose names begin with a dot left out."""
    yield root
    if depth == 0:
        return
    try:
        with os.scandir(root) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except OSError:
        return
    for name in names:
        yield from _folders(root / name, depth - 1)


def _files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.name.lower().endswith(_ENDING) and e.is_file()]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]

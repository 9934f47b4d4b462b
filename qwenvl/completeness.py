"""Whether the files of a checkpoint are all there and whole, without loading a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .errors import IncompleteCheckpoint
from .shards import read_json, readable_size, refuse_pointer, tensor_names
from .types import Family

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Any one row is a whole tokenizer; a leading dot stands for any file so ending.
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), (".tiktoken",))
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_PARTIAL = (".part", ".incomplete", ".crdownload", ".aria2", ".tmp")


def check(
    folder: Path, sizes: Mapping[str, int], family: Family | None
) -> tuple[list[str], dict[str, str]]:
    """The weight files that should be in ``folder``, and by file what is wrong with any file.

    ``sizes``: bytes of each file there is. Looked at: every shard of the index and the tensors it
    must hold, the tokenizer, the picture processor's settings.
    """
    faults: dict[str, str] = {}
    weights = _weight_files(folder, sizes, faults)
    _check_rest(folder, sizes, family, faults)
    return weights, faults


def unsupported_weights(sizes: Mapping[str, int]) -> str:
    """Why weights in another form are not taken; empty if there are none of that kind."""
    if any(".safetensors" in file for file in sizes):
        return ""
    endings = {Path(file).suffix.lower() for file in sizes}
    if ".gguf" in endings:
        return (
            "GGUF weights are not supported here, only safetensors. Download the original "
            "checkpoint; to save memory choose 4-bit or 8-bit quantization when loading."
        )
    if endings & {".bin", ".pt", ".pth", ".ckpt"}:
        return (
            "Its weights are pickle files (.bin), which can run code when they are opened: only "
            "safetensors are loaded. Look for a safetensors version of this checkpoint."
        )
    return ""


def _weight_files(folder: Path, sizes: Mapping[str, int], faults: dict[str, str]) -> list[str]:
    """Names of the weight files that should be there; what is wrong goes into ``faults``."""
    if INDEX in sizes:
        expected = _indexed(folder, faults)
    elif SINGLE in sizes:
        expected = {SINGLE: frozenset()}
    else:
        shards = [file for file in sizes if file.endswith(".safetensors")]
        faults[INDEX if shards else SINGLE] = "is missing"
        expected = {file: frozenset() for file in shards}
    for file, names in sorted(expected.items()):
        try:
            absent = names - tensor_names(folder / file)
        except IncompleteCheckpoint as error:
            faults[file] = str(error)
            continue
        if absent:
            faults[file] = f"lacks {len(absent)} tensors of the index, such as {min(absent)}"
    for file in [file for file, what in faults.items() if what == "is missing"]:
        faults[file] = _partly(file, sizes)
    return sorted(expected)


def _indexed(folder: Path, faults: dict[str, str]) -> dict[str, frozenset[str]]:
    """Tensor names by shard, as the index says."""
    try:
        index = read_json(folder / INDEX)
        shards: dict[str, set[str]] = {}
        for tensor, file in index["weight_map"].items():
            if Path(file).name != file:
                raise ValueError(f"it names a file outside the folder: {file!r}")
            shards.setdefault(file, set()).add(tensor)
    except IncompleteCheckpoint as error:
        faults[INDEX] = str(error)
        return {}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        faults[INDEX] = f"is unreadable ({error})"
        return {}
    return {file: frozenset(names) for file, names in shards.items()}


def _partly(file: str, sizes: Mapping[str, int]) -> str:
    for ending in _PARTIAL:
        if file + ending in sizes:
            came = readable_size(sizes[file + ending])
            return f"is only partly downloaded ({came} in {file + ending})"
    return "is missing"


def _check_rest(
    folder: Path, sizes: Mapping[str, int], family: Family | None, faults: dict[str, str]
) -> None:
    """Tokenizer and processor: there, and not visibly cut off."""
    for needed in _TOKENIZERS:
        if all(any(f == n or (n[0] == "." and f.endswith(n)) for f in sizes) for n in needed):
            break
    else:
        faults["tokenizer.json"] = _partly("tokenizer.json", sizes)
    # The first generation keeps its picture settings in config.json.
    if not any(file in sizes for file in _PROCESSORS) and not (
        family is not None and family.model_type == "qwen"
    ):
        faults[_PROCESSORS[0]] = _partly(_PROCESSORS[0], sizes)
    for file in ("tokenizer.json", "vocab.json", "tokenizer_config.json", *_PROCESSORS):
        if file in sizes and (what := _cut_json(folder / file)):
            faults[file] = what


def _cut_json(path: Path) -> str:
    """What is wrong with a JSON file that may be large: its end is enough to see a cut."""
    try:
        refuse_pointer(path)
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64))
            tail = file.read().rstrip()
    except IncompleteCheckpoint as error:
        return str(error)
    except OSError as error:
        return f"is unreadable ({error})"
    return "" if tail.endswith(b"}") else "is cut off"

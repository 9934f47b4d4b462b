"""Model names on the command line, resolved as the Loader resolves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..checkpoints.adapters import AdapterLibrary, check_adapters, read_adapter
from ..checkpoints.inspection import inspect
from ..checkpoints.library import BUNDLED, BUNDLED_NAME, Download, ModelLibrary
from ..checkpoints.references import parse_reference
from ..errors import BadOption, CheckpointNotFound
from ..types import Adapter

DEFAULT_ROOT = "models/LLM"
_BUNDLED_NAMES = (BUNDLED_NAME, "demo")


def roots_of(roots: Sequence[str] | None) -> tuple[Path, ...]:
    """Where models are looked up, None meaning the default place."""
    return tuple(map(Path, roots or [DEFAULT_ROOT]))


def library_of(roots: Sequence[str] | None) -> ModelLibrary:
    """The models below ``roots``, None meaning the default one."""
    folders = roots_of(roots)
    return ModelLibrary(folders, folders[0])


def checkpoint_of(name: str, roots: Sequence[str] | None) -> Path:
    """The folder of a model: the bundled one by its name, a folder, or a model below ``roots`` by
    its path there, by its own name, or by ``owner/name`` as on the hub.

    Raises ``CheckpointNotFound`` where there is none; nothing is downloaded.
    """
    if name in _BUNDLED_NAMES:  # before folders: the pack itself has one of that name
        return BUNDLED
    path = Path(name)
    if name and path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")):
        return inspect(name).path
    models = library_of(roots)
    try:
        place = models.locate(name)
    except CheckpointNotFound as error:
        place = _named(name, models, error)
    if isinstance(place, Path):
        return place
    if place.folder.is_dir():  # incomplete: whoever loads it says what is missing
        return place.folder
    raise CheckpointNotFound(
        f"{place.reference or place.repo_id} is not in {place.root}. Download it first: "
        f"{place.command}"
    )


def _named(name: str, models: ModelLibrary, error: CheckpointNotFound) -> Path | Download:
    """What ``name`` names on a hub: here already, or to be downloaded. Raises ``error`` where it
    names nothing there, or looks like a slip of the pen."""
    try:
        reference = parse_reference(name, "huggingface")
    except BadOption:
        raise error from None
    if "Did you mean" in str(error):
        raise error
    return models.locate_reference(reference)


def adapters_of(names: Sequence[str] | None, roots: Sequence[str] | None) -> tuple[Adapter, ...]:
    """The adapters that ``--lora`` names: each a folder, or a name below ``roots``, and a strength
    behind a colon. Raises ``BadOption``, and ``CheckpointError`` for what is no adapter."""
    adapters = tuple(_adapter(name, roots) for name in names or ())
    check_adapters(adapters)
    for adapter in adapters:
        read_adapter(Path(adapter.path))
    return adapters


def split_strength(name: str) -> tuple[str, float]:
    """The folder or name, and the strength, of what ``--lora`` names."""
    before, colon, behind = name.rpartition(":")
    if colon and not Path(name).is_dir():  # C:\loras\mine has a colon, too
        try:
            return before, float(behind)
        except ValueError:
            pass  # the colon is the name's own
    return name, 1.0


def _adapter(name: str, roots: Sequence[str] | None) -> Adapter:
    folder, strength = split_strength(name)
    path = Path(folder)
    if folder and path.is_dir():
        return Adapter(str(path), strength)
    library = AdapterLibrary(roots_of(roots))
    return Adapter(str(library.locate(folder)), strength)

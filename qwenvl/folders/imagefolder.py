"""ImageFolder: what ``load_dataset`` of Hugging Face makes of a folder besides its table: parts by
words in names, and all tables below it. Read in ``datasets`` 5.2: ``data_files.py`` and
``folder_based_builder.py``."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

from ..errors import BadOption
from ..unicode import well_formed
from .listing import Item

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables that are read, of which one dataset may have one kind."""

WHOLE = 'data_files="**"'
"""What ``load_dataset`` is to be given so that names part nothing."""

_PART = re.compile(
    "(?:^|[-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)"
    "(?=[-._ 0-9]|$)"
)


def refuse_other_tables(root: Path, own: str) -> None:
    """Raises ``BadOption`` where a table of another kind lies beside ``own``."""
    for name in TABLES:
        if name != own and (root / name).exists():
            raise BadOption(
                f"{root / name} lies beside {own}, and load_dataset refuses tables of two kinds. "
                f"Move it away, or make it {own}."
            )


class Surroundings:
    """Looks at the names of the files of ``root``, each as it is listed."""

    def __init__(self, root: Path):
        self._root = root
        self._seen = {PurePosixPath(".")}
        self._part = self._table = ""

    def look(self, item: Item) -> None:
        path = PurePosixPath(item.relative)
        if not self._part and (found := next(filter(None, map(_PART.search, path.parts)), None)):
            self._part = (
                f"{_quoted(item.relative)} has the word {found[1]} in it: load_dataset parts a "
                f"folder by such words and may leave the other files out. Give it {WHOLE}."
            )
        for folder in path.parents:
            if folder in self._seen:
                break
            self._seen.add(folder)
            for name in TABLES:
                if not self._table and (self._root / folder / name).exists():
                    self._table = (
                        f"{_quoted(str(folder / name))} is read by load_dataset, too: rows come "
                        "twice, or it fails. Move that table away."
                    )

    def notes(self) -> list[str]:
        """What the reader should know."""
        return [note for note in (self._part, self._table) if note]


def _quoted(name: str) -> str:
    return json.dumps(well_formed(name), ensure_ascii=False)

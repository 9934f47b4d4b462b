"""Settings of llama-server that a user keeps in a file which no workflow can change: which program
is started for GGUF models, and with what more of its command line::

    program: C:\\llama.cpp\\llama-server.exe
    options: ["-ngl", "20"]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BadOption
from ..yaml_files import read_mapping
from .llama_program import find_program

NAME = "llama_server.yaml"
"""What it is called, in whichever folder."""


def read_settings(file: Path | None) -> tuple[Path, tuple[str, ...]]:
    """The llama-server to start, by ``file`` or else on PATH, and more of its command line. Raises
    ``Unavailable`` where there is none, and ``BadOption`` for a file that says anything else."""
    if file is None or not file.is_file():
        return find_program("", file), ()
    found: Any = dict(read_mapping(file))
    program, options = found.pop("program", ""), found.pop("options", [])
    are_texts = isinstance(options, list) and all(isinstance(word, str) for word in options)
    if found or not isinstance(program, str) or not are_texts:
        raise BadOption(
            f"{file}: write program: and where llama-server is, and options: with a list of more "
            'of its command line, each in quotes, such as ["-ngl", "20"]. Nothing else is known.'
        )
    return find_program(program, file), tuple(options)

"""GGUF models on the command line: a file by ``--model``, for which an installed llama-server is
started, and ended with the command."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..checkpoints import gguf
from ..checkpoints.files import readable_size
from ..errors import CheckpointNotFound
from ..servers import llama_settings
from ..servers.llama_program import PROGRAM
from ..types import GgufSpec
from .output import print_message
from .user_folder import user_file

ENDING = ".gguf"
_LARGE = 10**9  # bytes that take a while to read


def add_gguf_options(parser: argparse.ArgumentParser) -> None:
    """None stands for an option that is not given."""
    parser.add_argument(
        "--mmproj", metavar="FILE",
        help="of a GGUF model: its vision tower (default: the one beside it that fits)",
    )  # fmt: skip
    parser.add_argument(
        "--context", type=int, metavar="N",
        help="of a GGUF model: tokens of a question with its pictures and its answer (default: "
        f"{GgufSpec.context})",
    )  # fmt: skip


def is_gguf(model: str | None) -> bool:
    """Whether ``--model`` names such a model."""
    return model is not None and model.lower().endswith(ENDING)


def gguf_spec(options: argparse.Namespace, roots: Sequence[Path]) -> GgufSpec:
    """The model that the options name: a file, or its name below one of ``roots``. Raises
    ``CheckpointError`` where there is none, or it cannot be served, ``BadOption`` for settings that
    cannot be read, and ``Unavailable`` without a llama-server."""
    found = _located(options.model, options.mmproj, roots)
    program, more = llama_settings.read_settings(user_file(llama_settings.NAME))
    logs = user_file("logs") or Path(tempfile.gettempdir()) / "qwenvl-logs"
    wishes = {"context": options.context, "concurrency": options.concurrency}
    spec = GgufSpec(
        str(found.path),
        str(found.mmproj),
        found.family,
        program=str(program),
        options=more,
        log_folder=str(logs),
        **{name: value for name, value in wishes.items() if value is not None},
    )
    files = [*gguf.parts(found.path), Path(spec.mmproj)]
    nbytes = sum(size for _, size in gguf.states(files))
    if nbytes >= _LARGE:
        print_message(f"{PROGRAM} is started, and reads {readable_size(nbytes)} first.")
    return spec


def _located(name: str, mmproj: str | None, roots: Sequence[Path]) -> gguf.GgufModel:
    path = Path(name).expanduser()
    if not path.is_file():
        try:
            path = gguf.find(name, roots).path
        except CheckpointNotFound as error:
            places = ", ".join(map(str, roots))
            raise CheckpointNotFound(
                f"There is no file {path}, and no GGUF model of that name below {places}."
            ) from error
    return gguf.at(path, Path(mmproj).expanduser() if mmproj else None)

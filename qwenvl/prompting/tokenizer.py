"""Tokenizer of a checkpoint, loaded by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..checkpoints import newer_format, transformers_version
from ..errors import IncompleteCheckpoint, UnsupportedModel


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer in ``path``. Raises ``IncompleteCheckpoint`` where it cannot be read, and
    ``UnsupportedModel`` where only a newer transformers can."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        cls: Any = AutoTokenizer
        if transformers_version.is_older("5"):
            options |= newer_format.tokenizer_options(path)
            if newer_format.has_generic_tokenizer(path):
                cls = PreTrainedTokenizerFast
        return cls.from_pretrained(str(path), **options)
    except Exception as error:  # the tokenizers library raises nothing narrower
        if newer_format.is_newer(path, transformers_version.installed()):
            advice = newer_format.update_advice(path, transformers_version.installed())
            raise UnsupportedModel(f"{advice} ({error})") from error
        raise IncompleteCheckpoint(
            f"The tokenizer of {path.name} cannot be read ({error}). Download tokenizer.json and "
            "tokenizer_config.json again.",
            ("tokenizer.json",),
        ) from error

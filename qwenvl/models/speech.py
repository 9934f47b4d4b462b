"""Speaking half of Omni checkpoints: whether a checkpoint has one, its voices, and the whole model
loaded with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.files import read_settings
from ..checkpoints.integrity import require_weight_files
from ..errors import BadOption, IncompleteCheckpoint, UnsuitableModel
from ..families import FAMILIES
from ..types import Family, LocalSpec, Speech


def require_voice(path: Path, spec: LocalSpec, family: Family, wish: str) -> str:
    """The voice of the checkpoint ``path`` that ``wish`` names, in any case; empty: the makers'
    default. Raises ``BadOption`` for one that it has not and for ``device: split``,
    ``UnsuitableModel`` for a checkpoint that cannot speak, and ``IncompleteCheckpoint``."""
    from .devices import SPLIT

    speech = _require_speech(path, family)
    if spec.device == SPLIT:
        raise BadOption("A model that is split over several devices cannot speak; choose one.")
    names = voices(path, speech)
    wanted = (wish or speech.voice).casefold()
    found = [name for name in names if name.casefold() == wanted]
    if not found and not wish:
        found = names[:1]
    if not found:
        raise BadOption(
            f"{path.name} has no voice {wish!r}; its voices are {', '.join(names) or 'none'}."
        )
    return found[0]


def voices(path: Path, speech: Speech) -> list[str]:
    """The names of the voices of the whole checkpoint ``path``."""
    if speech.voices_file:
        return list(read_voices(path, speech))
    talker = read_settings(path, "config.json").get("talker_config")
    named = talker.get("speaker_id") if isinstance(talker, Mapping) else None
    return list(named) if isinstance(named, Mapping) else []


def read_voices(path: Path, speech: Speech) -> Mapping[str, Any]:
    """What the file of voices holds, tensors alone: by name. Raises ``IncompleteCheckpoint`` where
    it is missing or damaged."""
    import torch

    file = path / speech.voices_file
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
        if not (isinstance(held, Mapping) and all(map(_is_voice, held, held.values()))):
            raise TypeError("it holds other things than voices")
        return held
    except Exception as error:  # whatever a damaged file makes torch raise
        raise IncompleteCheckpoint(
            f"{path.name} cannot speak without {speech.voices_file}, its voices, which is missing "
            "or damaged. Download it again: only these files are fetched.",
            (speech.voices_file,),
        ) from error


def _is_voice(name: Any, voice: Any) -> bool:
    """Whether the talker can be given ``voice``."""
    import torch

    return (
        isinstance(name, str)
        and isinstance(voice, Mapping)
        and all(isinstance(voice.get(part), torch.Tensor) for part in ("cond", "ref_mel"))
        and isinstance(voice.get("bos_token"), (int, torch.Tensor))
    )


def load_whole(cls: Any, path: Path, speech: Speech, options: dict[str, Any]) -> tuple[Any, Any]:
    """The whole model, of ``cls``, and what was found missing in its files; ``options`` of
    ``from_pretrained``."""
    from transformers import PreTrainedModel

    # One family's own method reads the voices as well, and cannot say what was missing.
    model, report = PreTrainedModel.from_pretrained.__func__(cls, str(path), **options)
    if speech.voices_file:
        model.speaker_map.update(read_voices(path, speech))
    return model, report


def _require_speech(path: Path, family: Family) -> Speech:
    speaking = [row.title.split(" (")[0] for row in FAMILIES.values() if row.speech]
    if family.speech is None:
        # A thinker by itself has the classes of its bigger model beside it.
        half = "is the thinker alone: it" if family.hearing else "writes text. It"
        raise UnsuitableModel(
            f"{path.name} {half} cannot speak. Choose a whole {' or '.join(speaking)} checkpoint."
        )
    config = read_settings(path, "config.json")
    names = require_weight_files(path).tensors
    halves = family.not_loaded
    if not config.get("enable_audio_output", True) or not all(
        any(name.startswith(half) for name in names) for half in halves
    ):
        raise UnsuitableModel(
            f"{path.name} holds the thinker of {family.title.split(' (')[0]} alone: it hears and "
            "writes, and cannot speak. Choose a checkpoint that holds the talker too (the Instruct "
            "edition), or turn speech off."
        )
    return family.speech

"""Definition of a checkpoint: all that its small files say, read before its weights."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints import inspection
from ..checkpoints.files import read_settings
from ..checkpoints.retrieval_files import with_retrieval
from ..errors import IncompleteCheckpoint
from ..families import family_of, is_default, model_config
from ..fine_tunes import as_tuned
from ..media.audio_processor import AudioProcessor
from ..media.image_processor import ImageProcessor
from ..media.video_processor import VideoProcessor
from ..models.architecture import plain_reason
from ..models.loading import check_runnable, transformers_config
from ..prompting.chat_template import ChatTemplate
from ..types import Family, LocalSpec
from ..yarn import context_length, with_yarn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Definition:
    """A checkpoint but for its weights. ``image_processor``: of a model that reads text only, one
    that is never asked. ``video_processor``: None where the family sees no videos.
    ``context_length``: of the model, in tokens (None: unknown).
    ``plain_reason``: see ``architecture.plain_reason``."""

    chat_template: ChatTemplate
    family: Family
    image_processor: ImageProcessor
    video_processor: VideoProcessor | None
    audio_processor: AudioProcessor | None
    context_length: int | None
    plain_reason: str


def read_definition(path: Path, spec: LocalSpec) -> Definition:
    """The definition of the checkpoint in ``path``, to be opened as ``spec`` says. What is wrong
    with it should not be told after minutes of loading: raises ``CheckpointError``, and
    ``BadOption`` for a YaRN factor that the model cannot have."""
    inspection.require_complete(path)
    config = read_settings(path, "config.json")
    family = as_tuned(family_of(config), path.name)
    family = with_retrieval(family, path, config)
    if is_default(family):
        log.warning("%s: unknown model_type %r. %s", path.name, family.model_type, family.notes)
    check_runnable(path, spec, family)
    reason = plain_reason(spec, family, transformers_config(path, spec, family))
    if reason:
        log.info("%s is run by transformers' own generate: %s.", path.name, reason)
    image_processor = load_image_processor(path) if family.sees else ImageProcessor()
    definition = Definition(
        chat_template=ChatTemplate.load(path, family, spec.trust_remote_code),
        family=family,
        image_processor=image_processor,
        video_processor=load_video_processor(path, family, image_processor),
        audio_processor=load_audio_processor(path, family, model_config(config, family)),
        context_length=context_length(with_yarn(model_config(config, family), family, spec.yarn)),
        plain_reason=reason,
    )
    return definition if family.retrieval is None else _for_retrieval(definition)


def _for_retrieval(definition: Definition) -> Definition:
    """Within the limits that a reranker or embedding model was trained with."""
    retrieval, longest = definition.family.retrieval, definition.context_length
    assert retrieval is not None
    return dataclasses.replace(
        definition,
        image_processor=definition.image_processor.bounded(*retrieval.pixel_bounds),
        context_length=min(longest or retrieval.max_tokens, retrieval.max_tokens),
    )


def load_image_processor(path: Path) -> ImageProcessor:
    """The image processor of the checkpoint in ``path``, from ``preprocessor_config.json`` or, in
    newer checkpoints, ``processor_config.json``. Raises ``IncompleteCheckpoint`` where neither file
    describes one."""
    name = "preprocessor_config.json"
    if (path / name).is_file():
        found: Any = read_settings(path, name)
    else:
        name = "processor_config.json"
        found = read_settings(path, name).get("image_processor")
    try:
        return ImageProcessor.from_config(found)
    except (AttributeError, TypeError, ValueError) as error:
        raise _undefined(path, name, "pictures", error) from error


def load_video_processor(
    path: Path, family: Family, image_processor: ImageProcessor
) -> VideoProcessor | None:
    """The video processor of the checkpoint in ``path``, from ``video_preprocessor_config.json``
    or ``processor_config.json``; by its image processor and its family where neither describes one.
    Raises ``IncompleteCheckpoint`` for a file that describes it wrongly."""
    if family.watching is None:
        return None
    name, found = "video_preprocessor_config.json", {}
    if (path / name).is_file():
        found = read_settings(path, name)
    elif (path / "processor_config.json").is_file():
        name = "processor_config.json"
        found = read_settings(path, name).get("video_processor") or {}
    try:
        return VideoProcessor.from_config(found, image_processor, family.watching)
    except (AttributeError, TypeError, ValueError) as error:
        raise _undefined(path, name, "videos", error) from error


def load_audio_processor(
    path: Path, family: Family, config: Mapping[str, Any]
) -> AudioProcessor | None:
    """The audio processor of the checkpoint in ``path``, whose model has this ``config``, from the
    files that describe its image processor; by its family what these do not say. None of a model
    that hears nothing. Raises ``IncompleteCheckpoint`` for a file that describes it wrongly."""
    tower = config.get("audio_config")
    if family.hearing is None or not isinstance(tower, Mapping):
        return None
    name, found = "preprocessor_config.json", {}
    if (path / name).is_file():
        found = read_settings(path, name)
    elif (path / "processor_config.json").is_file():
        name = "processor_config.json"
        found = read_settings(path, name).get("feature_extractor") or {}
    try:
        return AudioProcessor.from_config(family.hearing, found, tower)
    except (AttributeError, TypeError, ValueError) as error:
        raise _undefined(path, name, "sounds", error) from error


def _undefined(path: Path, name: str, media: str, error: Exception) -> IncompleteCheckpoint:
    return IncompleteCheckpoint(
        f"{name} of {path.name} does not say how {media} are prepared ({error}). Download it "
        "again; only what is missing or damaged is fetched.",
        (name,),
    )

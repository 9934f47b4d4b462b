"""Official processors: what transformers' own code makes of a conversation with pictures and
videos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers
from qwen_vl_suite.qwenvl.checkpoints.transformers_version import is_older
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.types import Audio, Image, Request, Video

PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen2_5_omni": "Qwen2_5OmniProcessor",
    "qwen3_omni_moe": "Qwen3OmniMoeProcessor",
}
"""By ``model_type``; that of Qwen3-VL for all others."""

PICTURES = (
    *("patch_size", "merge_size", "temporal_patch_size"),
    *("size", "image_mean", "image_std"),
)


def inputs(
    model_type: str, folder: Path, tokenizer: Any, request: Request, fps: float
) -> dict[str, Any]:
    """Inputs of the model for ``request``, whose videos have ``fps`` frames a second."""
    processor = _processor(model_type, folder, tokenizer)
    kinds: dict[type, Callable[[Any], dict[str, str]]] = {
        Image: lambda _: {"type": "image"},
        Video: lambda _: {"type": "video"},
        Audio: lambda _: {"type": "audio"},
        str: lambda part: {"type": "text", "text": part},
    }
    messages = [
        {"role": message.role, "content": [kinds[type(part)](part) for part in message.parts]}
        for message in request.messages
    ]
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # as that of the makers
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    given: dict[str, Any] = {"text": [text], "return_tensors": "pt"}
    if request.images:
        given["images"] = list(request.images)
    if request.videos:
        given["videos"] = [_frames(video) for video in request.videos]
        if "omni" in model_type:  # it goes by its own sizes, whatever its video processor says
            size = processor.video_processor.size
            given["videos_kwargs"] = {"fps": fps, "size": dict(size)}
        given["video_metadata"] = [
            {
                "total_num_frames": len(frames),
                "fps": fps,
                "duration": len(frames) / fps,
                "frames_indices": [round(time * fps) for time in _times(video)],
            }
            for frames, video in zip(given["videos"], request.videos, strict=True)
        ]
    if request.sounds:
        assert all(sound.rate == 16_000 for sound in request.sounds)
        given["audio"] = [sound.samples.mean(0).numpy() for sound in request.sounds]
    own = [video.audio for video in request.videos]
    if any(own):
        given |= _joined(given.pop("videos_kwargs"), request, own)
        return {**processor(**given), "use_audio_in_video": True}
    return dict(processor(**given))


def _joined(videos: dict[str, Any], request: Request, own: list[Audio | None]) -> dict[str, Any]:
    """How videos are shown with their own sounds: release 4 takes all sounds in one list."""
    if is_older("5"):
        return {"videos_kwargs": {**videos, "use_audio_in_video": True}}
    sources = [own.index(sound) if sound in own else None for sound in request.sounds]
    return {
        "videos_kwargs": videos,
        "load_audio_from_video": True,
        "audio_from_video_indices": sources,
    }


def _frames(video: Video) -> Any:
    """One frame alone has to be repeated, or the processor of Qwen3-VL raises."""
    return video.frames if len(video.frames) > 1 else video.frames.repeat(2, 1, 1, 1)


def _times(video: Video) -> tuple[float, ...]:
    return video.times if len(video.times) > 1 else video.times * 2


def _processor(model_type: str, folder: Path, tokenizer: Any) -> Any:
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    images = {name: settings[name] for name in PICTURES}
    family = FAMILIES[model_type]
    assert family.watching
    videos = images | json.loads((folder / "video_preprocessor_config.json").read_text())
    videos["do_sample_frames"] = False
    if not is_older("5.20"):
        videos["cap_pixels_per_frame"] = True
    kind = "Qwen3VLVideoProcessor" if family.watching.of_all else "Qwen2VLVideoProcessor"
    image_processor = transformers.Qwen2VLImageProcessorFast(**images)
    parts = {
        "image_processor": image_processor,
        "video_processor": getattr(transformers, kind)(**videos),
        "tokenizer": tokenizer,
        "chat_template": tokenizer.chat_template,
    }
    if "omni" in model_type:
        assert family.hearing is not None
        heard = {"feature_size": 16, "chunk_length": 30}  # as ``tiny`` has it
        parts["feature_extractor"] = transformers.WhisperFeatureExtractor(**heard)
        names = {
            "image_token": family.image_token,
            "video_token": family.video_token,
            "audio_token": family.audio_token,
            "vision_bos_token": family.vision_start,
            "vision_eos_token": family.vision_end,
            "audio_bos_token": family.hearing.start,
            "audio_eos_token": family.hearing.end,
        }
        for name, token in names.items():
            setattr(tokenizer, name, token)
            setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
    cls = getattr(transformers, PROCESSORS.get(model_type, "Qwen3VLProcessor"))
    # Release 4 would take no tokenizer but of Qwen's own class.
    lenient = {"check_argument_for_proper_class": lambda *_: None}
    return type(cls.__name__, (cls,), lenient)(**parts)

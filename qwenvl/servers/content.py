"""Content of requests for servers: messages of text, pictures, videos and sounds in the OpenAI
protocol, each picture in the size in which the model will see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import BadOption
from ..families import check_sees
from ..types import Audio, Family, Generated, Image, Message, Part, Request, Size, Video
from ..unicode import well_formed
from .kinds import ServerKind
from .picture_files import picture_url, wav
from .picture_sizes import bound_notes, pixel_bounds, planned_size, tokens_of
from .videos import check_together, plan_video, video_fields, video_parts

Check = Callable[[], None]


@dataclass(frozen=True, eq=False)
class Plan:
    """A request planned for a server of one ``kind``: no pixel is touched before ``messages``.

    ``input_sizes``: as in ``Response``, the size in which each picture and the frames of each video
    are sent, which is that in which the model sees them. ``tokens``: that these become.
    ``fields``: of the request, beside its messages. ``notes``: what the user should know.
    ``picture_format``: as in ``ServerSpec``."""

    request: Request
    kind: ServerKind
    input_sizes: tuple[Size, ...]
    tokens: int
    fields: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    picture_format: str = "png"

    def messages(self, check: Check = lambda: None) -> list[dict[str, Any]]:
        """The messages, with all media in them. Resizing and encoding take some 100 ms for a
        picture of a megapixel, so this belongs into a worker thread. ``check`` is called before
        each picture and frame; what it raises ends the work."""
        sizes = iter(self.input_sizes)
        return [self._message(message, sizes, check) for message in self.request.messages]

    def _message(self, message: Message, sizes: Iterator[Size], check: Check) -> dict[str, Any]:
        if all(isinstance(part, str) for part in message.parts):
            return {"role": message.role, "content": well_formed(message.text)}
        parts = [made for part in message.parts for made in self._parts(part, sizes, check)]
        return {"role": message.role, "content": parts}

    def _parts(self, part: Part, sizes: Iterator[Size], check: Check) -> Iterator[dict[str, Any]]:
        if isinstance(part, str):
            if part:
                yield {"type": "text", "text": well_formed(part)}
        elif isinstance(part, Image):
            from ..media.image_processor import resize

            check()
            url = picture_url(resize(part.pixels, next(sizes)), self.picture_format)
            yield {"type": "image_url", "image_url": {"url": url}}
        elif isinstance(part, Video):
            yield from video_parts(part, next(sizes), self.kind, self.picture_format, check)
            if part.audio is not None:
                yield self._sound(part.audio)
        elif isinstance(part, Audio):
            check()
            yield self._sound(part)

    def _sound(self, audio: Audio) -> dict[str, Any]:
        data = wav(audio)
        if self.kind.audio == "audio_url":
            return {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}}
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def plan(
    request: Request,
    family: Family,
    kind: ServerKind,
    name: str = "",
    picture_format: str = "png",
) -> Plan:
    """Plans ``request`` for the model ``name`` of ``family`` behind a server of ``kind``.

    Raises ``UnsuitableModel`` for media that are shown to a model that reads text only,
    ``BadImage`` for a picture that no model, or no server of this kind, can be shown, and
    ``BadOption`` for media that the family or the server does not take, for bounds that contradict
    one another, and for earlier answers as token ids, which no server takes."""
    _check(request, family, kind, name)
    bounds = pixel_bounds(request.min_pixels, request.max_pixels, family, kind)
    sizes: list[Size] = []
    notes = list(bound_notes(request, family, kind)) if request.images else []
    tokens = 0
    for part in request.media:
        if isinstance(part, Image):
            height, width = part.pixels.shape[-2:]
            sizes.append(planned_size((height, width), bounds, family, kind.pictures))
            tokens += tokens_of(sizes[-1], family)
        elif isinstance(part, Video):
            frames = plan_video(part, request, family, kind)
            sizes.append(frames.size)
            tokens += frames.tokens
            notes += frames.notes
    check_together(list(request.videos), kind)
    return Plan(
        request,
        kind,
        tuple(sizes),
        tokens,
        video_fields(list(request.videos), kind, family),
        tuple(dict.fromkeys(notes)),
        picture_format,
    )


def _check(request: Request, family: Family, kind: ServerKind, name: str) -> None:
    """Raises ``BadOption`` for what cannot be sent at all."""
    if any(isinstance(part, Generated) for message in request.messages for part in message.parts):
        raise BadOption(
            "An earlier answer stands in the conversation as token ids, which only a model on this "
            "machine can read. Give its text."
        )
    if request.media:
        check_sees(family, name or family.title)
    if request.sounds and family.hearing is None:
        raise BadOption(
            f"{family.title} has no audio tower and hears no sounds. Leave them out, or choose "
            "a Qwen2.5-Omni or Qwen3-Omni model."
        )
    if request.sounds and kind.audio == "none":
        raise BadOption(f"{kind.title} takes no sounds. Leave the sound out, or use vLLM.")
    if request.voice is not None:
        raise BadOption(
            "Models on servers do not speak here. Choose an Omni model on this machine."
        )

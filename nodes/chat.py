"""Chat node: the next turn of a conversation, about any number of pictures or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..qwenvl.chat import (
    Ask,
    Attachment,
    Conversation,
    Reference,
    dumps,
    loads,
)
from ..qwenvl.errors import BadAudio, BadImage, BadOption, BadVideo, QwenVLError
from ..qwenvl.media import audio as media_audio
from ..qwenvl.media import images as media_images
from ..qwenvl.media.frame_times import FPS
from ..qwenvl.types import THINKING_TOKENS, Image
from ..qwenvl.watching import FileFootage
from ..qwenvl.watching.viewing import read_whole
from . import chat_files, footages, host, lists, panels, sockets
from .describe import SAMPLING, sampling_of
from .model import ChatTurn, ModelHandle, chat_all

Conversations = io.Custom("QVL_CHAT")
MOST = 32
"""Sockets of a kind; each for pictures takes a batch."""


def _growing(kind: type[Any], name: str, what: str, one: str) -> Any:
    """Sockets for what is shown, one more than are connected, where this ComfyUI can do that; else
    a single one. ``what`` is in each, ``one`` of each is."""
    if not hasattr(io, "Autogrow"):
        return kind.Input(name, optional=True, tooltip=what)
    socket = kind.Input(name[:-1], optional=True, tooltip=one)
    template = io.Autogrow.TemplatePrefix(socket, prefix=f"{name[:-1]}_", min=0, max=MOST)
    return io.Autogrow.Input(name, template=template, optional=True, tooltip=what)


class Chat(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Chat",
            display_name="Qwen-VL Chat",
            description="The next turn of a conversation: a message, with pictures or without, "
            "and the answer to it. Connect history to the next Chat node to ask again: it reads "
            "only what is new.",
            search_aliases=["conversation", "ask again", "multi-turn", "compare", "story", "llm"],
            panels=panels.answer(height=150),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                sockets.model_input(),
                io.String.Input(
                    "message",
                    default="",
                    multiline=True,
                    tooltip="What you say in this turn: a question, or what to do next.",
                ),
                Conversations.Input(
                    "history",
                    optional=True,
                    tooltip="The conversation until now, from another Chat node. Not connected: "
                    "a new one begins.",
                ),
                _growing(
                    io.Image,
                    "images",
                    "Pictures of this turn, if any; the model sees all of them before the message, "
                    "in this order, a batch picture by picture. Those of earlier turns it has seen "
                    "already.",
                    "A picture, or a batch: all are shown.",
                ),
                _growing(
                    io.Video,
                    "videos",
                    "Videos of this turn, if any, shown behind its pictures, at their true times.",
                    "A video.",
                ),
                _growing(
                    io.Audio,
                    "sounds",
                    "Sounds of this turn, if any, heard behind its pictures and videos. Only for "
                    "Omni models.",
                    "A sound, or a batch: all are heard.",
                ),
                io.Int.Input(
                    "max_new_tokens",
                    default=1024,
                    min=1,
                    max=40960,
                    tooltip="The longest the answer may get; one that is cut off is reported. "
                    "Thoughts are counted apart.",
                ),
                io.DynamicCombo.Input(
                    "sampling",
                    options=SAMPLING,
                    tooltip="model default: the makers' values for its family. greedy: always the "
                    "likeliest word, no chance. custom: your own values.",
                ),
                sockets.seed(
                    "Equal seed and equal conversation, equal answer. Greedy takes no "
                    "chances and gives the same for every seed."
                ),
                sockets.system_prompt(
                    "Standing instruction before the conversation, such as a role. Empty: "
                    "that of the history. Another one than before makes the model read all anew."
                ),
                sockets.thinking(),
                sockets.max_thinking_tokens(),
                sockets.reasoning_effort(),
                io.Boolean.Input(
                    "preserve_thinking",
                    default=False,
                    tooltip="Keeps thoughts in the conversation, so that the model sees in later "
                    "turns what it thought. Only for models that were made for it (Qwen3.6); set "
                    "it in all turns. Off: thoughts are left out of the history.",
                    **sockets.ADVANCED,
                ),
                io.String.Input(
                    "history_json",
                    default="",
                    multiline=True,
                    tooltip="The conversation until now as JSON, from the output of that name, in "
                    "place of history. Its pictures are read from ComfyUI's input and output "
                    "folders, and from nowhere else.",
                    **sockets.ADVANCED,
                ),
                io.Boolean.Input(
                    "save_pictures",
                    default=False,
                    tooltip="Puts the pictures of the conversation into the folder qwen_vl_chat of "
                    "ComfyUI's output folder, each once, so that the JSON can be used another day. "
                    "Off: the JSON only names them.",
                    **sockets.ADVANCED,
                ),
                sockets.unanswered(
                    "When there is no answer (memory runs out, a picture holds NaN): stop "
                    "with an error, or keep going with an empty answer and the history as it was."
                ),
                io.Float.Input(
                    "frames_per_second",
                    default=FPS,
                    min=0.01,
                    max=60.0,
                    step=0.25,
                    tooltip="Of the videos of this turn: so many frames a second are shown. 2 is "
                    "what Qwen's own tools take.",
                    **sockets.ADVANCED,
                ),
                io.Boolean.Input(
                    "video_sound",
                    default=False,
                    tooltip="The model also hears the sound of this turn's videos. Only "
                    "Qwen2.5-Omni and Qwen3-Omni hear; other models say so.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[
                io.String.Output("answer", tooltip="What the model says.", is_output_list=True),
                io.String.Output(
                    "thinking_text",
                    display_name="thinking",
                    tooltip="The thought before the answer; empty for models that do not think.",
                    is_output_list=True,
                ),
                Conversations.Output(
                    "history",
                    tooltip="The conversation with this turn, for the next Chat node.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "history_json",
                    tooltip="The same as JSON, to be saved as text. Pictures are named, not held.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, history_json: Any = "", **_: Any) -> str:
        """Another one when a file that the history names has changed."""
        return chat_files.state(map(sockets.words, lists.known(history_json)))

    @classmethod
    def execute(
        cls,
        *,
        model: list[ModelHandle],
        message: list[str],
        history: Any = None,
        images: Any = None,
        videos: Any = None,
        sounds: Any = None,
        max_new_tokens: list[int],
        sampling: dict[str, list[Any]] | None = None,  # ComfyUI leaves out what is no choice
        seed: list[int],
        system_prompt: Any = "",
        thinking: Any = "model default",
        max_thinking_tokens: Any = THINKING_TOKENS,
        reasoning_effort: Any = "",
        preserve_thinking: Any = False,
        history_json: Any = "",
        save_pictures: Any = False,
        when_unreadable: Any = sockets.STOP,
        frames_per_second: Any = FPS,
        video_sound: Any = False,
    ) -> io.NodeOutput:
        turns = lists.mapped(
            _turn,
            model,
            message,
            history,
            images,
            videos,
            sounds,
            max_new_tokens,
            sampling,
            seed,
            system_prompt,
            thinking,
            max_thinking_tokens,
            reasoning_effort,
            preserve_thinking,
            history_json,
            save_pictures,
            when_unreadable,
            frames_per_second,
            video_sound,
        )
        replies = chat_all(turns)
        kept = [
            chat_files.kept(reply) if turn.save_pictures else reply
            for turn, reply in zip(turns, replies, strict=True)
        ]
        return io.NodeOutput(
            [reply.response.text for reply in kept],
            [reply.response.thinking for reply in kept],
            [reply.conversation for reply in kept],
            [dumps(reply.conversation) for reply in kept],
            ui=host.results_ui([reply.as_result() for reply in kept]),
        )


def _turn(
    model: ModelHandle,
    message: str,
    history: Any,
    images: Any,
    videos: Any,
    sounds: Any,
    max_new_tokens: int,
    sampling: dict[str, Any] | None,
    seed: int,
    system_prompt: str,
    thinking: str,
    max_thinking_tokens: int,
    reasoning_effort: str,
    preserve_thinking: bool,
    history_json: str,
    save_pictures: bool,
    when_unreadable: str,
    frames_per_second: float,
    video_sound: bool,
) -> ChatTurn:
    conversation = _conversation(history, sockets.words(history_json))
    if system := sockets.words(system_prompt).strip():
        conversation = dataclasses.replace(conversation, system=system)
    films = [_video(one, frames_per_second, bool(video_sound)) for one in _connected(videos)]
    attachments, problem = _attachments(images, films, sounds)
    ask = Ask(
        conversation,
        sockets.words(message),
        attachments,
        {
            **sampling_of(sampling or {}),
            "max_new_tokens": max_new_tokens,
            "max_thinking_tokens": max_thinking_tokens,
            "seed": seed,
        },
        thinking=sockets.THINKING[sockets.choice("thinking", thinking, sockets.THINKING)],
        preserve_thinking=bool(preserve_thinking),
        reasoning_effort=sockets.words(reasoning_effort).strip(),
        problem=problem,
    )
    return ChatTurn(model, ask, when_unreadable != sockets.STOP, bool(save_pictures))


def _conversation(history: Any, text: str) -> Conversation:
    if history is None:
        return loads(text, chat_files.opened) if text.strip() else Conversation()
    if not isinstance(history, Conversation):
        raise BadOption(
            f"history holds {type(history).__name__}: connect the history output of a Chat node."
        )
    if text.strip():
        raise BadOption("Both history and history_json are given: use one of them.")
    return history


def _attachments(
    images: Any, videos: Sequence[Attachment | BadImage], sounds: Any
) -> tuple[tuple[Attachment, ...], QwenVLError | None]:
    """All that is shown in a turn, in order, and what is wrong with the first that cannot be."""
    found: list[Attachment | BadImage] = [
        picture if isinstance(picture, BadImage) else Attachment(Image(picture))
        for batch in _connected(images)
        for picture in media_images.pictures_or_errors(batch)
    ]
    found += videos
    for sound in _connected(sounds):
        found += _sounds(sound)
    problem = next((one for one in found if isinstance(one, BadImage)), None)
    return tuple(one for one in found if isinstance(one, Attachment)), problem


def _connected(given: Any) -> list[Any]:
    """What is connected to the sockets of a kind; a sound is a mapping itself."""
    is_many = isinstance(given, Mapping) and "waveform" not in given
    values = given.values() if is_many else [given]
    return [value for value in values if value is not None]


def _video(value: Any, fps: float, sound: bool) -> Attachment | BadImage:
    """Of a file in one of ComfyUI's folders with its place there. ``fps``: frames a second that are
    shown; ``sound``: what is heard meanwhile goes with them."""
    footage = footages.footage(value, None, 0, "", sound)
    if isinstance(footage, BadVideo):
        return footage
    try:
        part = read_whole(footage, host.check_interrupt, fps, sound)
    except BadVideo as error:
        return error
    clip = footage.clip if isinstance(footage, FileFootage) else None
    is_whole_file = clip is not None and not clip.start and clip.end is None
    place = host.place_of(clip.source) if clip is not None and is_whole_file else None
    return Attachment(part, Reference(*place, fps, sound) if place else None)


def _sounds(value: Any) -> list[Attachment | BadImage]:
    given = value if isinstance(value, Mapping) else {}
    try:
        heard = media_audio.from_waveform(given.get("waveform"), given.get("sample_rate"))
    except BadAudio as error:
        return [error]
    return [Attachment(sound) for sound in heard]

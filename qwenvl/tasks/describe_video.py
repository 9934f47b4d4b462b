"""Video description: the styles of ``describe`` in words for videos, or a prompt of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from ..errors import BadOption
from ..styles import Style, read_styles
from ..types import Task
from ..yaml_files import Found
from .describe import describe
from .picture_code import CODE_STYLES

VIDEO_STYLES: Mapping[str, str] = MappingProxyType(
    {
        "short": "Describe this video in one sentence.",
        "detailed": "Describe this video in detail.",
        "title": "Write a short title for this video, of at most eight words. Output only the "
        "title.",
        "alt_text": "Write alt text for this video, for people who cannot see it: one or two plain "
        "sentences of what it shows and any text that matters, without opening words such as "
        '"video of". Output only the alt text.',
        "tags": "List tags for this video: subjects, attributes, actions, setting, style, colors. "
        "Output only the tags, in lower case, separated by commas.",
        "prompt": "Write a text-to-video prompt that would recreate this video: subject, "
        "appearance, action and how it goes on, setting, camera movement, composition, lighting, "
        "colors, style. One flowing paragraph in natural language. Output only the prompt.",
        "prompt_tags": "Write a text-to-video prompt that would recreate this video as a list of "
        "short tags: number and kind of subjects first, then appearance, clothing, actions, "
        "camera movement, setting, composition, lighting, style. Output only the tags, in lower "
        "case, separated by commas.",
        "cinematic": "Describe this video as a shot of a film: subject and action, framing, camera "
        "angle and movement, lens, depth of field, lighting, color grade and mood. One paragraph. "
        "Output only the description.",
        "training": "Write a caption for training a video model with this video: state plainly "
        "everything that is visible, what happens and how the camera moves, in one paragraph, "
        'without guesses, opinions or opening words such as "this video shows". Output only the '
        "caption.",
        "style": "Describe only the visual style of this video, not its content: medium, "
        "technique, palette, light, movement of the camera, cutting, era. One paragraph.",
    }
)
"""The styles of ``describe`` that fit videos, each with its prompt."""


def known_video_styles(own: Found[Style] | None = None) -> list[str]:
    """The names of the styles that fit videos: the pack's, then users'. ``own`` as of
    ``describe.known_styles``."""
    words = own or read_styles()
    return [
        *(name for name in VIDEO_STYLES if name in words.items),
        *(name for name in words.items if name not in VIDEO_STYLES),
    ]


def describe_video(
    style: str = "detailed",
    prompt: str = "",
    system: str = "",
    own: Found[Style] | None = None,
) -> Task:
    """The task to describe a video; ``prompt``, unless it is empty, replaces ``style``, one of
    ``known_video_styles(own)``. Users' own are asked in their own words. Replies are read as those
    of ``describe``. Raises ``BadOption`` for a style that is not there, or that rewrites a picture
    as code."""
    words = own or read_styles()
    if not prompt.strip() and style in CODE_STYLES and style not in words.items:
        raise BadOption(
            f"The style {style!r} rewrites a picture as code, and cannot be used for a video. "
            f"Choose one of {', '.join(known_video_styles(words))}."
        )
    if not prompt.strip() and style not in words.items:
        raise words.missing(style, known_video_styles(words))
    task = describe(style, prompt, system, words)
    is_users = words.items.get(style) != read_styles().items.get(style)
    if prompt.strip() or is_users or style not in VIDEO_STYLES:
        return task
    return dataclasses.replace(task, prompt=VIDEO_STYLES[style])

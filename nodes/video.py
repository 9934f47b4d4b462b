"""Video node: descriptions, answers, events, a caption a segment, one thing followed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..qwenvl import run
from ..qwenvl.backends.base import Backend
from ..qwenvl.errors import BadOption, BadVideo
from ..qwenvl.media.frame_times import FPS, MAX_FRAMES, MIN_FRAMES, FrameChoice, Mode
from ..qwenvl.query import Query
from ..qwenvl.tasks.describe_video import describe_video, known_video_styles
from ..qwenvl.tasks.events import events
from ..qwenvl.types import Result, Task
from ..qwenvl.watching import GAPS, Captions, Footage, Track, Viewed, Viewing, Whole, Wish
from . import box_values, footages, host, lists, panels, sockets, styles
from .model import ModelHandle, Report


def _style(about: str) -> io.Combo.Input:
    return io.Combo.Input(
        "style",
        options=known_video_styles(styles.read()),
        default="detailed",
        tooltip=f"What to write of {about}.",
    )


def _words(name: str, tooltip: str) -> io.String.Input:
    return io.String.Input(name, default="", multiline=True, tooltip=tooltip)


TASKS = ("describe", "ask", "events", "captions", "track")


def _tasks() -> list[io.DynamicCombo.Option]:
    """What each of ``TASKS`` takes. Users' styles are read anew."""
    return [
        io.DynamicCombo.Option("describe", [_style("the whole video")]),
        io.DynamicCombo.Option("ask", [_words("question", "Your own question or instruction.")]),
        io.DynamicCombo.Option(
            "events",
            [_words("happening", "What to look for: a dog jumps. Empty: whatever happens.")],
        ),
        io.DynamicCombo.Option(
            "captions",
            [
                _style("each segment"),
                io.Float.Input(
                    "segment",
                    default=10.0,
                    min=0.0,
                    max=600.0,
                    step=0.5,
                    tooltip="How many seconds a segment is long. 0: a segment for each scene.",
                ),
            ],
        ),
        io.DynamicCombo.Option(
            "track",
            [
                _words("thing", "One thing to follow, in words: the red car."),
                io.Combo.Input(
                    "gaps",
                    options=list(GAPS),
                    default=GAPS[0],
                    tooltip="Frames in which it was not found, between others in which it was. "
                    "interpolate: a box between those. leave: no box.",
                ),
            ],
        ),
    ]


_FRAMES: dict[str, tuple[Mode, list[Any]]] = {
    "fps": (
        "fps",
        [
            io.Float.Input(
                "frames_per_second",
                default=FPS,
                min=0.01,
                max=60.0,
                step=0.25,
                tooltip="Frames a second of video that the model sees. 2 is what Qwen's own tools "
                "take.",
            )
        ],
    ),
    "interval": (
        "every",
        [
            io.Float.Input(
                "seconds",
                default=1.0,
                min=0.01,
                max=3600.0,
                step=0.25,
                tooltip="Seconds from one frame that the model sees to the next.",
            )
        ],
    ),
    "count": (
        "count",
        [
            io.Int.Input(
                "number",
                default=16,
                min=1,
                max=MAX_FRAMES,
                tooltip="Frames in all, evenly spread; of captions, in each segment.",
            )
        ],
    ),
    "scenes": ("scenes", []),
}


class Video(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Video",
            display_name="Qwen-VL Video",
            description="Watches videos at their true times: describes them, answers questions, "
            "says what happens when, captions each segment, or follows one thing.",
            search_aliases=["video caption", "events", "timestamps", "dense caption", "track"],
            panels=panels.answer(height=150),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                sockets.model_input(),
                io.DynamicCombo.Input(
                    "task",
                    options=_tasks(),
                    tooltip="describe and ask: a text. events: what happens from when to when. "
                    "captions: a text for each segment. track: a box of one thing in each frame.",
                ),
                io.DynamicCombo.Input(
                    "frames",
                    options=[
                        io.DynamicCombo.Option(name, own) for name, (_, own) in _FRAMES.items()
                    ],
                    tooltip="Which frames the model sees. fps: so many a second. interval: one in "
                    "so many seconds. count: so many in all. scenes: the first of each scene.",
                ),
                sockets.seed("Equal seed, equal text. Events and tracking take no chances."),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="Of Load Video or any node that gives VIDEO; trimmed ones as they are "
                    "trimmed. Only the frames that the model sees are decoded; to find scenes, "
                    "all.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="In place of video: frames one after the other, with their fps below. "
                    "Frames that ComfyUI's sampler has picked have lost their times.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    optional=True,
                    tooltip="Of images: how many of them are a second of the video. After a node "
                    "that has picked every third of 24: 8.",
                ),
                io.String.Input(
                    "file",
                    default="",
                    tooltip="In place of video: a file in ComfyUI's input folder, by name; or "
                    f"{footages.EXAMPLE}.",
                    **sockets.ADVANCED,
                ),
                io.Int.Input(
                    "max_frames",
                    default=MAX_FRAMES,
                    min=1,
                    max=4096,
                    tooltip="At most so many frames of a video, or of a segment, however long it "
                    "is; they are then further apart.",
                    **sockets.ADVANCED,
                ),
                sockets.max_new_tokens(40960),
                sockets.unreadable(),
                sockets.strict(
                    "Only for events and track: holds what the model writes to JSON that can be "
                    "read.",
                    "an event where nothing happens",
                ),
                sockets.system_prompt(),
                io.Boolean.Input(
                    "sound",
                    default=False,
                    tooltip="The model also hears the video's sound. Only Qwen2.5-Omni and "
                    "Qwen3-Omni hear; other models say so. track looks at pictures alone.",
                    **sockets.ADVANCED,
                ),
                io.Int.Input(
                    "max_video_tokens",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="At most so many tokens of a video, or of a segment: its frames are "
                    "shown smaller, however many there are. Less memory and time, less detail. 0: "
                    "as many as the model and its context allow.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[
                io.String.Output(
                    "text",
                    tooltip="One text a video; of captions a line a segment, of events and track "
                    "JSON.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "events",
                    tooltip="JSON, one a video: a list of start and end in seconds, and label. Of "
                    "track: from when to when it is there.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "times",
                    tooltip="JSON, one a video: when the frames that the model saw are shown, in "
                    "seconds.",
                    is_output_list=True,
                ),
                io.Image.Output(
                    "key_frames",
                    tooltip="A batch a video: the middle frame of each event or segment; of track "
                    "each frame looked at, one for each list of bboxes; else some that were seen.",
                    is_output_list=True,
                ),
                io.Video.Output(
                    "clips",
                    tooltip="A list: the part of the video of each event or segment.",
                    is_output_list=True,
                ),
                sockets.BoundingBoxes.Output(
                    "bboxes",
                    tooltip="Of track, per video a list for each of key_frames, in their pixels; "
                    "empty where there is no box.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, task: Any = None, file: Any = "", **_: Any) -> str:
        """Another one when a named file or the style's file has changed."""
        known = styles.read().items
        named = lists.known((task or {}).get("style"))
        words = [known.get(name) for name in named if isinstance(name, str)]
        return repr((words, [*map(_state, lists.known(file))]))

    @classmethod
    def execute(
        cls,
        model: list[ModelHandle],
        task: dict[str, Any] | None = None,
        frames: dict[str, Any] | None = None,
        seed: Any = 0,
        video: Any = None,
        images: Any = None,
        fps: Any = 0.0,
        file: Any = "",
        max_frames: Any = MAX_FRAMES,
        max_new_tokens: Any = 0,
        when_unreadable: Any = sockets.STOP,
        strict: Any = sockets.STRICT[0],
        system_prompt: Any = "",
        sound: Any = False,
        max_video_tokens: Any = 0,
    ) -> io.NodeOutput:
        asked = lists.mapped(
            _asked, model, task, frames, seed, video, images, fps, file, max_frames,
            max_new_tokens, when_unreadable, strict, system_prompt, sound, max_video_tokens,
        )  # fmt: skip
        found = answer_all(asked)
        parts = [
            footages.parts(one.footage, result) for one, result in zip(asked, found, strict=True)
        ]
        results = [part.result for part in parts]
        return io.NodeOutput(
            [
                sockets.found_json(result) if one.wish.task.greedy else result.text
                for one, result in zip(asked, results, strict=True)
            ],
            [_events_json(result) for result in results],
            [_times_json(result) for result in results],
            [part.key_frames for part in parts],
            [clip for part in parts for clip in part.clips],
            [
                [[box_values.bounding_box(box) for box in boxes] for boxes in part.boxes]
                for part in parts
            ],
            ui=host.results_ui(results),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """What one call of the node asks about one video, or the error of one that cannot be read."""

    model: ModelHandle
    footage: Footage | BadVideo
    wish: Wish
    choice: FrameChoice
    sampling: Mapping[str, Any]
    system: str
    keep_unreadable: bool
    sound: bool
    video_tokens: int | None

    def query(self, backend: Backend) -> Query:
        own = run.sampling_for(backend, self.wish.task)
        fields: dict[str, Any] = {
            "system": self.system,
            "sampling": dataclasses.replace(own, **self.sampling),
            "min_pixels": self.model.min_pixels,
            "max_pixels": self.model.max_pixels,
            "may_shrink": self.model.shrink_to_fit,
            "keep_unreadable": self.keep_unreadable,
            "video_tokens": self.video_tokens,
        }
        if isinstance(self.footage, BadVideo):
            return Query(self.wish.task, self.footage, **fields)
        hears = self.sound and not isinstance(self.wish, Track)
        viewing = Viewing(self.footage, self.wish, self.choice, host.check_interrupt, _tell, hears)
        return viewing.query(**fields)


def answer_all(asked: Sequence[Asked]) -> list[Result]:
    """A result for each, in order; each model is asked once. Raises what ``ModelHandle.run``
    raises."""
    results: dict[int, Result] = {}
    for model in dict.fromkeys(one.model for one in asked):
        own = {index: one for index, one in enumerate(asked) if one.model == model}

        def queries(backend: Backend, own: Mapping[int, Asked] = own) -> list[Query]:
            return [one.query(backend) for one in own.values()]

        report: Report = host.send_results
        results |= zip(own, model.run(queries, report, "video"), strict=True)
    return [results[index] for index in range(len(asked))]


def _tell(title: str, frames: int, tokens: int) -> None:
    host.send_live(status=f"{title}: {frames:,} frames, {tokens:,} tokens")


def _asked(
    model: ModelHandle,
    task: dict[str, Any] | None,
    frames: dict[str, Any] | None,
    seed: int,
    video: Any,
    images: Any,
    fps: float,
    file: str,
    max_frames: int,
    max_new_tokens: int,
    when_unreadable: str,
    strict: str,
    system_prompt: str,
    sound: bool,
    max_video_tokens: int,
) -> Asked:
    return Asked(
        model,
        footages.footage(video, images, fps, sockets.words(file).strip(), bool(sound)),
        _wish(task or {}, sockets.choice("strict", strict, sockets.STRICT)),
        _choice(frames or {}, max_frames),
        {**sockets.length(max_new_tokens), "seed": seed},
        sockets.words(system_prompt),
        when_unreadable != sockets.STOP,
        bool(sound),
        max_video_tokens or None,
    )


def _wish(task: Mapping[str, Any], strict: str) -> Wish:
    kind = sockets.choice("task", task.get("task"), TASKS)
    if kind == "events":
        find = sockets.words(task.get("happening"))
        return Whole(lambda length: events(find, length, strict=strict))
    if kind == "track":
        return Track(sockets.words(task.get("thing")), task.get("gaps", GAPS[0]), strict)
    described = _described(task)
    if kind == "captions":
        return Captions(described, task.get("segment", 10.0))
    return Whole(lambda length: described)


def _described(task: Mapping[str, Any]) -> Task:
    if task["task"] != "ask":
        return describe_video(sockets.words(task.get("style")), own=styles.read())
    if not (question := sockets.words(task.get("question"))).strip():
        raise BadOption("The question is empty: write what you want to know of the video.")
    return describe_video(prompt=question)


def _choice(frames: Mapping[str, Any], max_frames: int) -> FrameChoice:
    mode, own = _FRAMES[sockets.choice("frames", frames.get("frames"), _FRAMES)]
    value = frames.get(own[0].id, own[0].default) if own else FPS
    least = MIN_FRAMES if mode == "fps" else 1
    return FrameChoice(mode, value, min(least, max_frames), max_frames)


def _events_json(result: Result) -> str:
    if result.error:
        return sockets.found_json(result)
    found = [{"start": e.start, "end": e.end, "label": e.label} for e in result.events]
    return json.dumps(found, ensure_ascii=False)


def _times_json(result: Result) -> str:
    times = result.times if isinstance(result, Viewed) else ()
    return json.dumps([round(time, 3) for time in times])


def _state(file: Any) -> str:
    try:
        state = footages.path(sockets.words(file).strip()).stat()
    except (OSError, BadOption):  # what runs says what is wrong
        return ""
    return f"{state.st_mtime_ns} {state.st_size}"

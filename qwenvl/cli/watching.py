"""The video command: descriptions, answers, events, a caption a segment, something followed."""

from __future__ import annotations

import argparse
import itertools
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadOption, BadVideo, QwenVLError
from ..media.frame_times import FPS, MAX_FRAMES, MIN_FRAMES, FrameChoice, Mode
from ..styles import read_styles
from ..types import Result
from ..unicode import well_formed
from .answering import query_fields
from .inputs import data_folders
from .model_options import spec_of
from .output import as_json, print_error, print_json, print_message, print_notes, print_result
from .portions import media_portions
from .results import OrderedResults

if TYPE_CHECKING:
    from ..query import Query
    from ..watching import FileFootage, Wish

DEFAULT_SEGMENT = 10.0


def video(options: argparse.Namespace) -> int:
    """A line a video, in order, each as soon as it is answered. Returns the exit status."""
    from ..model_cache import CACHE

    wish, choice = _wish(options), frame_choice(options)
    footages: dict[int, FileFootage] = {}
    uncut: set[int] = set()

    def show(number: int, result: Result) -> None:
        found, path = footages.pop(number, None), options.videos[number]
        _show(path, result, options)
        try:
            if options.clips and found and result.events:
                _cut(found, result, Path(options.clips))
        except QwenVLError as error:  # of this video alone
            uncut.add(number)
            print_error(str(error), well_formed(path))

    results = OrderedResults(len(options.videos), show)
    with results.told(), CACHE.lease(spec_of(options)) as backend:
        fields = query_fields(options, backend, wish.task)
        fields["video_tokens"] = options.max_video_tokens or None
        queries = (
            {number: _query(options, wish, choice, fields, number, footages) for number in numbers}
            for numbers in media_portions(len(options.videos))
        )
        results.ask(backend, queries)
    return results.exit_status(has_failed=bool(uncut))


def _query(
    options: argparse.Namespace,
    wish: Wish,
    choice: FrameChoice,
    fields: dict[str, Any],
    number: int,
    footages: dict[int, FileFootage],
) -> Query:
    from ..media.video_files import Clip
    from ..query import Query
    from ..watching import FileFootage, Viewing

    path = options.videos[number]
    try:
        footages[number] = FileFootage(Clip(path, name=well_formed(path)))
    except BadVideo as error:
        return Query(wish.task, error, **fields)
    told = cache(_tell)  # once, though it may be asked again for its own reason of a refusal
    sound = bool(options.sound)
    return Viewing(footages[number], wish, choice, told=told, sound=sound).query(**fields)


def _tell(title: str, frames: int, tokens: int) -> None:
    print_message(f"{title}: {frames:,} frames, {tokens:,} tokens")


def _wish(options: argparse.Namespace) -> Wish:
    """What is wanted of each video. Raises ``BadOption`` for options that do not go together."""
    from ..tasks.describe_video import describe_video
    from ..tasks.events import events
    from ..watching import Captions, Track, Whole

    asked = {"ask": options.ask, "events": options.events, "track": options.track}
    kind = next((name for name, words in asked.items() if words is not None), "")
    _only_with(options, "gaps", kind == "track", "--track")
    _only_with(options, "strict", kind in ("track", "events"), "--events or --track")
    _only_with(options, "segment", options.dense, "--dense")
    _only_with(options, "sound", kind != "track", "anything but --track, which looks at pictures")
    has_events = options.dense or kind in ("track", "events")
    _only_with(options, "clips", has_events, "--events, --track or --dense")
    _only_with(options, "style", not kind, "--dense, or with none of --ask, --events and --track")
    strict = options.strict or "auto"
    if kind == "events":
        find = partial(events, options.events, strict=strict)
        find()  # what cannot be asked for is refused before any model is loaded
        return Whole(lambda length: find(length))
    if kind == "track":
        return Track(options.track, options.gaps or "interpolate", strict)
    if kind == "ask" and not options.ask.strip():
        raise BadOption("--ask is empty: write a question.")
    own = read_styles(data_folders("--styles-folder", options.styles_folder))
    task = describe_video(options.style or "detailed", options.ask or "", own=own)
    if options.dense:
        return Captions(task, DEFAULT_SEGMENT if options.segment is None else options.segment)
    return Whole(lambda length: task)


def _only_with(options: argparse.Namespace, name: str, fits: bool, others: str) -> None:
    if getattr(options, name) is not None and not fits:
        raise BadOption(f"--{name} has a use only with {others}.")


def frame_choice(options: argparse.Namespace) -> FrameChoice:
    """Which frames of a video are shown, by the options of the commands about videos."""
    modes: dict[Mode, float | None] = {
        "fps": options.fps,
        "every": options.every,
        "count": options.frames,
        "scenes": FPS if options.scenes else None,
    }
    mode, value = next(((m, v) for m, v in modes.items() if v is not None), ("fps", FPS))
    most = max(MAX_FRAMES, options.frames or 0)  # of a number that was asked for, all
    most = most if options.max_frames is None else options.max_frames
    least = MIN_FRAMES if mode == "fps" else 1
    return FrameChoice(mode, value, min(least, most), most)


def _show(path: str, result: Result, options: argparse.Namespace) -> None:
    name = well_formed(path)
    print_notes(result.notes, name)
    if result.error:
        print_error(result.error, name)
    if options.json:
        print_json(_row(name, result))
    elif not result.error:
        print_result(f"{name}:\n{result.text}\n" if len(options.videos) > 1 else result.text)


def _row(name: str, result: Result) -> dict[str, Any]:
    from ..watching import Viewed

    row = as_json(result)
    events = [{"start": e.start, "end": e.end, "label": e.label} for e in result.events]
    times = [round(time, 3) for time in result.times] if isinstance(result, Viewed) else []
    found = {
        "video": name,
        "text": result.text,
        "times": times,
        "events": events,
        "data": result.data,
        "notes": row["notes"],
        "thinking": result.thinking,
        "finish_reason": result.finish_reason,
    }
    return {**found, "error": result.error} if result.error else found


def _cut(footage: FileFootage, result: Result, folder: Path) -> None:
    """Writes a clip for each event that has a length. Files that are there stay: the numbers go on
    behind them."""
    from ..media.video_writing import cut

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QwenVLError(f"{folder} cannot be written to: {error.strerror}.") from error
    stem = Path(str(footage.clip.source)).stem
    paths = (folder / f"{stem}-{number:03}.mp4" for number in itertools.count(1))
    free = (path for path in paths if not path.exists())
    for event in result.events:
        if event.end > event.start:
            path = next(free)
            try:
                cut(footage.clip, event.start, event.end, path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            print_message(f"written: {path}")

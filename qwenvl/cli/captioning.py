"""The caption command: whole folders to captions for trainers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadOption, QwenVLError
from ..styles import read_styles
from ..tasks.picture_code import CODE_STYLES
from ..types import Spec, Task
from .answering import SAMPLING_OPTIONS, read_text
from .caption_options import DEFAULT_STYLE
from .folder_progress import FolderProgress
from .inputs import data_folders
from .model_options import named_spec_of, spec_of
from .results import SOME_FAILED, exit_status
from .watching import frame_choice

if TYPE_CHECKING:
    from ..folders import Asking, Job, Summary


def caption(options: argparse.Namespace) -> int:
    """Captions a folder. Returns the exit status."""
    from ..folders import caption_folder, survey
    from ..model_cache import CACHE

    by_name = options.ocr or options.target  # the task depends on it
    spec = named_spec_of(options) if by_name else spec_of(options)
    job = job_of(options, spec)
    with FolderProgress(options.json, options.dry_run) as progress:
        if options.dry_run:
            return _status(progress.ended(survey(job, progress)))
        with CACHE.lease(spec) as backend:
            try:
                return _status(progress.ended(caption_folder(backend, job, progress)))
            except QwenVLError as error:
                if not progress.done:
                    raise
                progress.stopped(error)
                return SOME_FAILED
            except BaseException:
                progress.stopped()
                raise


def _status(summary: Summary) -> int:
    answered = summary.captioned + summary.skipped
    return exit_status(answered, summary.failed - summary.unreadable, summary.unreadable)


def job_of(options: argparse.Namespace, spec: Spec) -> Job:
    """What the options say. Raises ``BadOption`` for those that do not go together, and for what
    the bundled model does not know."""
    from ..folders import Job, Shard, Sizes, Template, check_bundled, model_of, trainer

    chosen = trainer(options.trainer, options.caption_ext)
    template = Template(options.template, options.trigger, options.prefix, options.suffix)
    asking = _asking(options, chosen.task, "tags" in template.names, spec)
    style = "" if _names_a_task(options) else DEFAULT_STYLE
    check_bundled(spec, asking, template, options.style or style)
    return Job(
        Path(options.folder),
        asking,
        chosen,
        template,
        "append" if options.append else _existing(options),
        Shard.of(options.shard),
        options.near_duplicates,
        Sizes.of(spec),
        model_of(spec),
    )


def _existing(options: argparse.Namespace) -> Any:
    return "overwrite" if options.overwrite or options.refine else "skip"


def _asking(options: argparse.Namespace, only: str, has_tags: bool, spec: Spec) -> Asking:
    from ..folders import Asking
    from ..prompt_writing import Wishes, listed
    from ..tasks.describe import describe
    from ..tasks.describe_video import describe_video

    task, method, clip_task = _tasks(options, only, spec)
    fields = {
        "system": options.system,
        "min_pixels": options.min_pixels or None,
        "max_pixels": options.max_pixels or None,
        "thinking": options.thinking,
        "reasoning_effort": options.reasoning_effort,
        "video_tokens": options.max_video_tokens or None,
    }
    sampling = {name: getattr(options, name) for name in SAMPLING_OPTIONS}
    return Asking(
        task,
        method,
        clip_task,
        frame_choice(options),
        describe("tags") if has_tags else None,
        describe_video("tags") if has_tags else None,
        options.refine,
        Wishes(listed(options.must), listed(options.must_not)),
        options.ask_again,
        fields,
        {name: value for name, value in sampling.items() if value is not None},
    )


def _tasks(options: argparse.Namespace, only: str, spec: Spec) -> tuple[Task, Any, Task | None]:
    """The task about pictures, its method, and the task about clips, where there is one."""
    if options.layout or (only == "layout" and not _names_a_task(options)):
        from ..layouts import Wanted

        layout = Wanted()
        return layout.task, layout.method, None
    if options.ocr:
        from ..fine_tunes import AUTO, preset
        from ..tasks.ocr import ocr

        return ocr(options.ocr, fine_tune=preset(AUTO, spec.name)), None, None
    if options.keys is not None or options.schema is not None:
        from ..tasks.extract import extract, form

        if options.schema is not None:
            return extract(form("schema", read_text(options.schema))), None, None
        return extract(form("keys", options.keys)), None, None
    if options.target:
        return (*_prompt(options.target, spec), None)
    return _descriptions(options)


def _names_a_task(options: argparse.Namespace) -> bool:
    names = ("style", "prompt", "target", "ocr", "keys", "schema")
    return any(getattr(options, name) is not None for name in names)


def _prompt(target: str, spec: Spec) -> tuple[Task, Any]:
    from ..prompt_writing import Order, read_targets
    from ..types import LocalSpec

    folder = Path(spec.checkpoint) if isinstance(spec, LocalSpec) else None
    order = Order(read_targets()[target], has_pictures=True, model=spec.name, folder=folder)
    return order.task, order.method


def _descriptions(options: argparse.Namespace) -> tuple[Task, Any, Task | None]:
    from ..tasks.describe import describe
    from ..tasks.describe_video import describe_video

    own = read_styles(data_folders("--styles-folder", options.styles_folder))
    style, prompt = options.style or DEFAULT_STYLE, options.prompt or ""
    if options.prompt is not None and not prompt.strip():
        raise BadOption("--prompt is empty: write a question or instruction.")
    task = describe(style, prompt, own=own)
    is_code = not prompt and style in CODE_STYLES and style not in own.items
    return task, None, None if is_code else describe_video(style, prompt, own=own)

"""Caption Folder node: every picture and clip of a folder to captions that trainers read."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..qwenvl.errors import QwenVLError
from ..qwenvl.fine_tunes import AUTO, preset
from ..qwenvl.folders import (
    Asking,
    Job,
    Shard,
    Sizes,
    Summary,
    Template,
    check_bundled,
    model_of,
    survey,
    trainers,
)
from ..qwenvl.folders import trainer as trainer_named
from ..qwenvl.layouts import Wanted
from ..qwenvl.media.frame_times import FPS, MAX_FRAMES, MIN_FRAMES, FrameChoice
from ..qwenvl.prompt_writing import MOST_TRIES, Order, Wishes, listed, read_targets
from ..qwenvl.query import Method
from ..qwenvl.tasks.describe import describe, known_styles
from ..qwenvl.tasks.describe_video import describe_video
from ..qwenvl.tasks.extract import extract, form
from ..qwenvl.tasks.ocr import OUTPUTS, ocr
from ..qwenvl.tasks.picture_code import CODE_STYLES
from ..qwenvl.types import LocalSpec, Result, Task
from . import host, panels, sockets, styles
from .example_picture import FOLDER as PICTURES
from .footages import EXAMPLE
from .model import ModelHandle

Asked = tuple[Task, Method | None, Task | None]
"""The task about pictures, its method, and the task about clips, where there is one."""

SKIP, OVERWRITE, APPEND, REFINE = "skip", "overwrite", "append", "refine"

TASKS = ("describe", "tags", "read text", "extract", "layout", "prompt")


def _words(name: str, tooltip: str, multiline: bool = False) -> io.String.Input:
    return io.String.Input(name, default="", multiline=multiline, tooltip=tooltip)


def _tasks() -> list[io.DynamicCombo.Option]:
    """What each of ``TASKS`` takes. Users' styles and targets are read anew."""
    taken: dict[str, list[Any]] = {
        "describe": [
            io.Combo.Input(
                "style",
                options=list(known_styles(styles.read())),
                default="training",
                tooltip="What to write. training: what is to be seen, as trainers like it.",
            ),
            _words("prompt", "Your own instruction. Takes the place of the style.", True),
        ],
        "tags": [],
        "read text": [
            io.Combo.Input(
                "output",
                options=list(OUTPUTS),
                default="plain",
                tooltip="Form of the text that is read in pictures.",
            )
        ],
        "extract": [_words("keys", "JSON with these keys, commas between: title, author, year.")],
        "layout": [],
        "prompt": [
            io.Combo.Input(
                "target",
                options=list(read_targets([host.user_folder("targets")]).items),
                default="qwen_image",
                tooltip="The image model that a prompt is written for.",
            )
        ],
    }
    return [io.DynamicCombo.Option(name, taken[name]) for name in TASKS]


class CaptionFolder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_CaptionFolder",
            display_name="Qwen-VL Caption Folder",
            description="Captions every picture and video of a folder and the folders in it, in "
            "the files that trainers read. What is captioned is safe at once: a run that was "
            "stopped goes on where it was.",
            search_aliases=["batch caption", "dataset", "training captions", "lora training"],
            panels=panels.answer(height=130),
            is_output_node=True,
            inputs=[
                sockets.model_input(),
                io.String.Input(
                    "folder",
                    default="",
                    tooltip="In ComfyUI's input folder: its name, such as dragons/10_dragon; "
                    "input: all of it. Or begin with output, or with a name that you have listed "
                    f"in user/__qwen_vl/folders.yaml. {EXAMPLE}: drawn pictures, which are "
                    "put into output/qwen-vl-example first.",
                ),
                io.DynamicCombo.Input(
                    "task",
                    options=_tasks(),
                    tooltip="describe: a caption. tags: words with commas. read text: what is "
                    "written in pictures. extract: JSON of keys. layout: Ideogram 4 captions. "
                    "prompt: a prompt for an image model.",
                ),
                io.Combo.Input(
                    "trainer",
                    options=list(trainers()),
                    default="kohya",
                    tooltip="What will read the captions, and so where and how they are written: "
                    "kohya, onetrainer, ai-toolkit, musubi: a .txt file beside each picture (for "
                    "sd-scripts, train with --caption_extension .txt). musubi-jsonl, diffusers, "
                    "csv: one table. ideogram: JSON, for the task layout.",
                ),
                _words("trigger", "Words that stand before each caption, as of a LoRA."),
                io.Combo.Input(
                    "existing",
                    options=[SKIP, OVERWRITE, APPEND, REFINE],
                    default=SKIP,
                    tooltip="Captions that are there. skip: they stay, and their pictures are not "
                    "asked about. overwrite: written anew. append: the new one behind the old. "
                    "refine: the model sees the old one and corrects it. The old ones are kept in "
                    ".qwenvl-captions/backup.",
                ),
                sockets.seed("Equal seed, equal captions."),
                io.Boolean.Input(
                    "dry_run",
                    default=False,
                    optional=True,
                    tooltip="Only says which files would be asked about; nothing is written.",
                ),
                *_advanced(),
            ],
            outputs=[
                io.String.Output(
                    "summary", tooltip="How many files are captioned, skipped and failed, and why."
                ),
                io.Int.Output("captioned", tooltip="How many captions this run has written."),
                io.Int.Output("failed", tooltip="How many files have got none."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """Changes with each run, since the folder's content may have changed."""
        return time.time()

    @classmethod
    def execute(
        cls,
        model: ModelHandle,
        folder: str,
        task: Mapping[str, Any],
        trainer: str = "kohya",
        trigger: str = "",
        existing: str = SKIP,
        seed: int = 0,
        dry_run: bool = False,
        template: str = "{text}",
        prefix: str = "",
        suffix: str = "",
        must_appear: str = "",
        must_not_appear: str = "",
        ask_again: int = 2,
        caption_extension: str = "",
        near_duplicates: int = -1,
        shard: str = "1/1",
        fps: float = FPS,
        max_frames: int = MAX_FRAMES,
        max_new_tokens: int = 0,
        thinking: str = "model default",
    ) -> io.NodeOutput:
        sockets.choice("existing", existing, (SKIP, OVERWRITE, APPEND, REFINE))
        form = trainer_named(trainer, sockets.words(caption_extension).strip())
        caption = Template(
            sockets.words(template) or "{text}", *map(sockets.words, (trigger, prefix, suffix))
        )
        has_tags = "tags" in caption.names
        asking = Asking(
            *_asked(model, task),
            FrameChoice("fps", fps, min(MIN_FRAMES, max_frames), max_frames),
            describe("tags") if has_tags else None,
            describe_video("tags") if has_tags else None,
            existing == REFINE,
            Wishes(*(listed(sockets.words(words)) for words in (must_appear, must_not_appear))),
            ask_again,
            _fields(model, thinking),
            {**sockets.length(max_new_tokens), "seed": seed},
        )
        check_bundled(model.spec, asking, caption, _style(task))
        path, root = _folder(sockets.words(folder).strip())
        job = Job(
            path,
            asking,
            form,
            caption,
            "overwrite" if existing == REFINE else existing,  # type: ignore[arg-type]
            Shard.of(sockets.words(shard)),
            None if near_duplicates < 0 else near_duplicates,
            Sizes.of(model.spec),
            model_of(model.spec),
            root,
        )
        summary = survey(job) if dry_run else model.caption(job)
        told = _told(summary, dry_run, asking.clip_task is not None)
        if summary.failed and not (summary.captioned or summary.skipped):
            raise QwenVLError(told)
        return io.NodeOutput(
            told,
            0 if dry_run else summary.captioned,
            summary.failed,
            ui=host.results_ui([Result(told)], own_words=True),
        )


def _fields(model: ModelHandle, thinking: str) -> dict[str, Any]:
    """Fields of each ``Query``."""
    return {
        "min_pixels": model.min_pixels,
        "max_pixels": model.max_pixels,
        "may_shrink": model.shrink_to_fit,
        "thinking": sockets.THINKING[sockets.choice("thinking", thinking, sockets.THINKING)],
    }


def _folder(name: str) -> tuple[Path, Path]:
    """The folder, and the root that it lies in. The pack's own pictures are captioned as copies."""
    if name != EXAMPLE:
        return host.media_folder(name)
    output, root = host.media_folder("output")
    folder = output / "qwen-vl-example"
    folder.mkdir(exist_ok=True)
    for picture in PICTURES.glob("*.png"):
        if not (folder / picture.name).exists():
            shutil.copyfile(picture, folder / picture.name)
    return folder, root


def _advanced() -> list[Any]:
    """The inputs that are rarely used."""
    return [
        io.String.Input(
            "template",
            default="{text}",
            tooltip="The caption, with names in braces: text is the reply, tags are those of the "
            "picture, name is its file's, folder its folder's, trigger the trigger words.",
            **sockets.ADVANCED,
        ),
        io.String.Input("prefix", default="", tooltip="Before all, as it is.", **sockets.ADVANCED),
        io.String.Input("suffix", default="", tooltip="Behind all, as it is.", **sockets.ADVANCED),
        io.String.Input(
            "must_appear",
            default="",
            tooltip="Words that captions have to hold as they are, with commas between; those of "
            "the template and the trigger count.",
            **sockets.ADVANCED,
        ),
        io.String.Input(
            "must_not_appear",
            default="",
            tooltip="What captions are not to describe, with commas between; none of these words "
            "may stand in them.",
            **sockets.ADVANCED,
        ),
        io.Int.Input(
            "ask_again",
            default=2,
            min=0,
            max=MOST_TRIES,
            tooltip="How often a caption is asked for again that is not as wished; then its file "
            "has failed.",
            **sockets.ADVANCED,
        ),
        io.String.Input(
            "caption_extension",
            default="",
            tooltip="Of caption files, where it is not txt: caption, which is what sd-scripts "
            "reads unless it is given --caption_extension .txt.",
            **sockets.ADVANCED,
        ),
        io.Int.Input(
            "near_duplicates",
            default=-1,
            min=-1,
            max=16,
            tooltip="Pictures that look the same get the same caption: at most so many of 64 bits "
            "of their perceptual hashes differ, such as 2. -1: each is asked about.",
            **sockets.ADVANCED,
        ),
        io.String.Input(
            "shard",
            default="1/1",
            tooltip="Only a part of the files, such as 1/4 to 4/4 on four machines.",
            **sockets.ADVANCED,
        ),
        io.Float.Input(
            "fps",
            default=FPS,
            min=0.01,
            max=60.0,
            step=0.25,
            tooltip="Of videos: frames a second that the model sees.",
            **sockets.ADVANCED,
        ),
        io.Int.Input(
            "max_frames",
            default=MAX_FRAMES,
            min=1,
            max=4096,
            tooltip="Of videos: at most so many frames of each.",
            **sockets.ADVANCED,
        ),
        sockets.max_new_tokens(40960),
        sockets.thinking(),
    ]


def _asked(model: ModelHandle, task: Mapping[str, Any]) -> Asked:
    kind = sockets.choice("task", task.get("task"), TASKS)
    if kind == "read text":
        fine_tune = preset(AUTO, model.spec.name)
        return ocr(task.get("output", "plain"), fine_tune=fine_tune), None, None
    if kind == "extract":
        return extract(form("keys", sockets.words(task.get("keys")))), None, None
    if kind == "layout":
        wanted = Wanted()
        return wanted.task, wanted.method, None
    if kind == "prompt":
        return *_prompt(model, sockets.words(task.get("target"))), None
    if kind == "tags":
        return describe("tags"), None, describe_video("tags")
    style, prompt = sockets.words(task.get("style")), sockets.words(task.get("prompt"))
    own = styles.read()
    about = describe(style, prompt, own=own)
    if style in CODE_STYLES and not prompt.strip() and style not in own.items:
        return about, None, None
    return about, None, describe_video(style, prompt, own=own)


def _style(task: Mapping[str, Any]) -> str:
    """Of the descriptions; empty where they have none."""
    if task.get("task") == "tags":
        return "tags"
    has_style = task.get("task") == "describe" and not sockets.words(task.get("prompt")).strip()
    return sockets.words(task.get("style")) if has_style else ""


def _prompt(model: ModelHandle, name: str) -> tuple[Task, Method | None]:
    target = read_targets([host.user_folder("targets")])[name]
    folder = Path(model.spec.checkpoint) if isinstance(model.spec, LocalSpec) else None
    order = Order(target, has_pictures=True, model=model.spec.name, folder=folder)
    return order.task, order.method


def _told(summary: Summary, dry_run: bool, has_clips: bool) -> str:
    done = "to caption" if dry_run else "captioned"
    lines = [
        f"{summary.captioned:,} {done}, {summary.skipped:,} skipped, {summary.failed:,} failed"
    ]
    if summary.passed_over:
        why = "this task is about pictures."
        if has_clips:
            why = "this trainer reads no videos from a folder that has pictures."
        lines.append(f"{summary.passed_over:,} videos passed over: {why}")
    if summary.unread:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in summary.unread.items())
        lines.append(f"Not read: {kinds}. Convert them to PNG or JPEG.")
    lines += summary.notes
    if not summary.found:
        lines.append("There are no pictures in this folder that are read.")
    lines += [f"{name}: {why}" for name, why in summary.failures]
    if len(summary.failures) < summary.failed:
        lines.append(f"and {summary.failed - len(summary.failures):,} more")
    return "\n".join(lines)

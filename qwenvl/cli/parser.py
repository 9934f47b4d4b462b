"""Argument parser of the command line: its commands and their options."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from ..camera import FIELD_OF_VIEW
from ..families import FAMILIES
from ..fine_tunes import AUTO, PRESETS
from ..media.documents import PASSWORD
from ..media.frame_times import FPS
from ..reading import OFF
from ..types import Sampling, Size
from . import (
    answering,
    captioning,
    chatting,
    commands,
    describing,
    doctor,
    listening,
    prompting,
    reviewing,
    scoring,
    surveying,
    watching,
)
from .answering import SAMPLING_OPTIONS
from .caption_options import add_caption_options, add_review_options
from .frame_options import add_frame_options
from .model_names import DEFAULT_ROOT
from .model_options import add_roots, model_options

EXIT_STATUS = """\
exit status:
  0    everything was done; of what an input's several requests (tiles, queries, regions) lack,
       its notes tell
  1    some inputs failed or were not reached; the others were answered
       (doctor: something is wrong; servers: one does not answer)
  2    nothing could be started, or no input could be answered
  3    the only failures are replies that could not be read
  129, 130, 143
       stopped by SIGHUP, by Ctrl-C, by SIGTERM; what is written until then is whole
  141  who read the results has closed the pipe
"""
_HELP: dict[str, Any] = {
    "epilog": EXIT_STATUS,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}
_MAX_SIDE = 1_000_000  # pixels, of an image that a reply is about


def make_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qwenvl", description=description, **_HELP)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_tasks(subparsers)
    _add_chat(subparsers)
    _add_models(subparsers)
    _add_servers(subparsers)
    _add_doctor(subparsers)
    parse = _command(subparsers, commands.parse, "read a raw reply on stdin, print what it says")
    parse.add_argument("--family", required=True, help=f"one of {', '.join(FAMILIES)}")
    parse.add_argument("--image-size", required=True, type=_size, metavar="WxH")
    parse.add_argument(
        "--input-size", type=_size, metavar="WxH",
        help="of the picture that the model saw (default: as the family's processor resizes)",
    )  # fmt: skip
    parse.add_argument("--task", required=True, choices=("boxes", "points", "action", "ocr"))
    return parser


def _command(
    subparsers: Any, run: Callable[[argparse.Namespace], int | None], about: str, **more: Any
) -> Any:
    """A subcommand, named after the function that runs it."""
    parser = subparsers.add_parser(run.__name__, help=about, description=about, **_HELP, **more)
    parser.set_defaults(run=run)
    return parser


def _add_tasks(subparsers: Any) -> None:
    from ..constraints import STRICT
    from ..grounding import KINDS
    from ..layouts import FORMS
    from ..tasks.act import SCREENS
    from ..tasks.describe import known_styles
    from ..tasks.ocr import OUTPUTS

    common = [_image_options(), model_options(), _request_options()]
    describe = _command(subparsers, describing.describe, "say what pictures show", parents=common)
    describe.add_argument(
        "--style", default="detailed", metavar="NAME",
        help=f"one of {', '.join(known_styles())}, or of --styles-folder (default: %(default)s)",
    )  # fmt: skip
    describe.add_argument(
        "--styles-folder", action="append", metavar="DIR",
        help="more styles, in YAML files; may repeat",
    )  # fmt: skip
    describe.add_argument("--prompt", default="", help="own words in place of a style")
    describe.add_argument(
        "--choices", default="", metavar="A,B,C",
        help="answer with one of these, word for word; --prompt is the question (default: which "
        "fits best)",
    )  # fmt: skip
    describe.add_argument(
        "--together", action="store_true",
        help="one question about all images at once, such as the pages of a document",
    )  # fmt: skip
    ocr = _command(subparsers, answering.ocr, "read the text in pictures", parents=common)
    ocr.add_argument(
        "--output", choices=(*OUTPUTS, "pdf"), default="plain",
        help="pdf: the pages under invisible lines of text, to be searched; it needs --out",
    )  # fmt: skip
    ocr.add_argument(
        "--out", metavar="FOLDER",
        help="write a document for each input there: .txt, .md, .html or .pdf, with figures cut "
        "out beside it; without --json nothing else is printed",
    )  # fmt: skip
    ocr.add_argument(
        "--csv", action="store_true", help="with --out: each table beside it as CSV, too"
    )
    ocr.add_argument("--language", default="auto")
    ocr.add_argument(
        "--tiles", default=OFF, metavar="off|auto|N",
        help="read large pages in overlapping tiles of N pixels, line by line (auto: pages over "
        "twice the usual size, such as PDFs with --dpi 300; default: %(default)s)",
    )  # fmt: skip
    ocr.add_argument(
        "--preset", choices=PRESETS, default=AUTO,
        help="prompt and picture size that a fine-tune was trained on (default: %(default)s, by "
        "the model's name; --max-pixels goes before its size)",
    )  # fmt: skip
    ground = _command(subparsers, answering.ground, "find things in pictures", parents=common)
    ground.add_argument(
        "--find", required=True, action="append", metavar="WORDS",
        help="what to find, several with commas; may repeat: each is asked and counted by itself",
    )  # fmt: skip
    ground.add_argument("--kind", choices=KINDS, default="boxes")
    ground.add_argument(
        "--screen", choices=SCREENS, default=SCREENS[0],
        help="of the kind action, which says what to do next to reach what --find says (default: "
        "%(default)s)",
    )  # fmt: skip
    ground.add_argument("--max-count", type=_integer, default=0, help="0: as many as there are")
    ground.add_argument(
        "--inside", action="append", type=_area, metavar="X,Y,W,H",
        help="look only inside this rectangle of each picture, in its pixels; may repeat: each is "
        "shown to the model by itself",
    )  # fmt: skip
    ground.add_argument(
        "--tile", type=_integer, default=0, metavar="N",
        help="for small things in large pictures: show the model tiles of N by N pixels too",
    )  # fmt: skip
    ground.add_argument(
        "--fov", type=float, default=FIELD_OF_VIEW, metavar="DEGREES",
        help="of boxes_3d: what the picture's longer side spans, to project them into the picture "
        "(default: %(default)g)",
    )  # fmt: skip
    ground.add_argument(
        "--look-again", action="store_true",
        help="show the model each box once more, and take the new one where it is surer of it",
    )  # fmt: skip
    ground.add_argument(
        "--logprobs", action="store_true",
        help="with --json: the reply itself and each of its tokens' log-probability",
    )  # fmt: skip
    for parser in (ocr, ground):
        _add_scores(parser)
        parser.add_argument(
            "--strict", choices=STRICT, default=STRICT[0],
            help="hold replies to JSON: auto, from where they begin it; on, from the first word "
            "(default: %(default)s)",
        )  # fmt: skip

    extract = _command(
        subparsers, answering.extract, "write what pictures show as JSON of a given form",
        parents=common,
    )  # fmt: skip
    form = extract.add_mutually_exclusive_group(required=True)
    form.add_argument("--schema", metavar="FILE", help="a JSON schema")
    form.add_argument("--keys", metavar="A,B,C", help="an object with these keys, null if not seen")
    form.add_argument("--example", metavar="FILE", help="JSON of the form wanted")
    extract.add_argument("--prompt", default="", help="what to extract, in own words")

    layout = _command(
        subparsers, answering.layout,
        "write what pictures consist of and where, so that they could be drawn anew",
        parents=common,
    )  # fmt: skip
    layout.add_argument(
        "--form", choices=tuple(FORMS), default="ideogram",
        help="ideogram: captions of Ideogram 4. plain: all there is, boxes in pixels "
        "(default: %(default)s)",
    )  # fmt: skip
    layout.add_argument("--max-elements", type=_integer, default=20, metavar="N")
    layout.add_argument(
        "--instructions", default="", help="more on what to write, such as a language"
    )
    _add_caption(subparsers)
    _add_video(subparsers)
    _add_listen(subparsers)
    _add_prompt(subparsers)
    _add_score(subparsers)


def _add_caption(subparsers: Any) -> None:
    caption = _command(
        subparsers, captioning.caption,
        "caption all pictures and videos of a folder, in files as trainers read them",
        parents=[model_options(), _request_options()],
    )  # fmt: skip
    add_caption_options(caption, _integer)
    review = _command(
        subparsers, reviewing.review,
        "show the pictures and captions of a folder on a local page, to correct them",
        parents=[model_options(), _request_options()],
    )  # fmt: skip
    add_review_options(review, _integer)


def _add_video(subparsers: Any) -> None:
    from ..constraints import STRICT
    from ..tasks.describe_video import known_video_styles
    from ..watching import GAPS

    video = _command(
        subparsers, watching.video, "say what happens in videos and when, follow things in them",
        parents=[model_options(), _request_options()],
    )  # fmt: skip
    video.add_argument("videos", nargs="+", metavar="FILE", help="video files")
    wanted = video.add_mutually_exclusive_group()
    wanted.add_argument("--ask", metavar="WORDS", help="a question or instruction of your own")
    wanted.add_argument(
        "--events", nargs="?", const="", metavar="WORDS",
        help="when what the words say happens; without any, whatever happens",
    )  # fmt: skip
    wanted.add_argument(
        "--dense", action="store_true", help="a caption for each segment of the video"
    )
    wanted.add_argument("--track", metavar="WORDS", help="where one thing is in each frame")
    video.add_argument(
        "--style", metavar="NAME",
        help=f"of a description: one of {', '.join(known_video_styles())}, or of --styles-folder "
        "(default: detailed)",
    )  # fmt: skip
    video.add_argument(
        "--styles-folder", action="append", metavar="DIR",
        help="more styles, in YAML files; may repeat",
    )  # fmt: skip
    video.add_argument(
        "--segment", type=float, metavar="SECONDS",
        help="how long a segment of --dense is, or 0 for one a scene (default: "
        f"{watching.DEFAULT_SEGMENT:g})",
    )  # fmt: skip
    video.add_argument(
        "--gaps", choices=GAPS,
        help="of --track: frames without a find between others (default: interpolate)",
    )  # fmt: skip
    video.add_argument(
        "--strict", choices=STRICT, help="hold replies to JSON, as in ground (default: auto)"
    )
    add_frame_options(video, _integer, "a video, or of a segment")
    video.add_argument(
        "--sound", action="store_const", const=True,
        help="hear the video's sound too, with a model that hears (Qwen2.5-Omni, Qwen3-Omni)",
    )  # fmt: skip
    video.add_argument(
        "--clips", metavar="FOLDER", help="write the part of the video of each event there, as MP4"
    )
    video.add_argument(
        "--json", action="store_true",
        help="one JSON object a video, in order: its text, the times of the frames that the model "
        "saw and its events, in seconds",
    )  # fmt: skip


def _add_listen(subparsers: Any) -> None:
    listen = _command(
        subparsers, listening.listen, "write down, describe or answer sounds, aloud too",
        parents=[model_options(), _request_options(pixels=False)],
    )  # fmt: skip
    listen.add_argument("sounds", nargs="*", metavar="FILE", help="sound files, or videos")
    listen.add_argument("--json", action="store_true", help="one JSON object a sound")
    wanted = listen.add_mutually_exclusive_group()
    wanted.add_argument(
        "--ask", nargs="?", const="", metavar="WORDS",
        help="a question or instruction of your own; without any words, an answer to what is said "
        "(default: a transcript)",
    )  # fmt: skip
    wanted.add_argument("--describe", action="store_true", help="all that is heard")
    listen.add_argument("--language", default="", help="of the speech that is transcribed")
    listen.add_argument("--start", type=float, default=0.0, metavar="SECONDS")
    listen.add_argument("--end", type=float, metavar="SECONDS")
    listen.add_argument(
        "--speak", metavar="FILE.wav", help="also speak the answer, into this file; of several "
        "sounds, into numbered ones",
    )  # fmt: skip
    listen.add_argument("--voice", default="", metavar="NAME", help="one of the checkpoint's")


def _add_prompt(subparsers: Any) -> None:
    from ..prompt_writing import MOST_TRIES

    prompt = _command(
        subparsers, prompting.prompt,
        "write prompts for an image or video model out of ideas and pictures",
        parents=[model_options(), _request_options()],
    )  # fmt: skip
    prompt.add_argument(
        "ideas", nargs="*", metavar="IDEA", help="with {a|b} for choices, drawn by --seed"
    )
    prompt.add_argument(
        "--image", action="append", metavar="FILE",
        help="a picture; may repeat: a prompt each, with the idea of its place or the only one",
    )  # fmt: skip
    prompt.add_argument(
        "--together", action="store_true", help="all images go with each idea, such as for edits"
    )
    prompt.add_argument(
        "--target", default="qwen_image", metavar="NAME",
        help="the model that the prompts are for (default: %(default)s)",
    )  # fmt: skip
    prompt.add_argument(
        "--targets-folder", action="append", metavar="DIR",
        help="more targets, each a YAML file; may repeat",
    )  # fmt: skip
    prompt.add_argument("--list-targets", action="store_true", help="say which there are, and end")
    prompt.add_argument(
        "--must", default="", metavar="A,B", help="words that prompts have to hold as they are"
    )
    prompt.add_argument(
        "--must-not", default="", metavar="A,B",
        help="what prompts are not to describe; none of these words may stand in them",
    )  # fmt: skip
    prompt.add_argument("--trigger", default="", metavar="WORDS", help="stand before each prompt")
    prompt.add_argument(
        "--ask-again", type=_integer, default=2, metavar="N",
        help="how often a prompt is asked for again that is not as wished, or too long: 0 to "
        f"{MOST_TRIES} (default: %(default)s)",
    )  # fmt: skip
    prompt.add_argument(
        "--megapixels", type=float, default=0, metavar="N",
        help="of the width and height that some targets give (default: the target's own)",
    )  # fmt: skip
    prompt.add_argument("--json", action="store_true", help="one JSON object a prompt, in order")


def _add_score(subparsers: Any) -> None:
    score = _command(
        subparsers, scoring.score, "tell how well pictures fit a text",
        parents=[_image_options(), model_options(), _pixel_options()],
    )  # fmt: skip
    score.add_argument("--text", required=True, help="what the pictures should show")
    score.add_argument(
        "--instruction", default="", metavar="WORDS",
        help="an own yes-or-no question, with [text] where the text goes (default: Does this image "
        'show "[text]"? Answer yes or no.); of rerankers and embedding models what to look for',
    )  # fmt: skip
    score.add_argument("--top", type=_integer, metavar="N", help="only the N best, the best first")


def _add_chat(subparsers: Any) -> None:
    chat = _command(
        subparsers, chatting.chat, "hold a conversation, about pictures or without",
        parents=[model_options(), _request_options()],
    )  # fmt: skip
    chat.add_argument(
        "--turn", action=chatting.Say, metavar="WORDS",
        help="what to say; may repeat, a turn each. Without one, each line on stdin is a turn",
    )  # fmt: skip
    for kind, what in (
        ("image", "a picture"), ("video", "a video"), ("sound", "a sound, for an Omni model"),
    ):  # fmt: skip
        chat.add_argument(
            f"--{kind}", action=chatting.Say, metavar="FILE",
            help=f"{what}, for the --turn behind it; may repeat: all of a turn go together",
        )  # fmt: skip
    chat.add_argument(
        "--fps", type=float, default=FPS, metavar="N",
        help=f"frames a second that are shown of each --video (default: {FPS:g})",
    )  # fmt: skip
    chat.add_argument(
        "--video-sound", action="store_true",
        help="hear the sound of each --video too, with a model that hears (Qwen2.5-Omni, "
        "Qwen3-Omni)",
    )  # fmt: skip
    chat.add_argument("--history", metavar="FILE", help="go on with a conversation that was saved")
    chat.add_argument(
        "--save", metavar="FILE",
        help="write the conversation there after each turn, as JSON that names its pictures",
    )  # fmt: skip
    chat.add_argument(
        "--preserve-thinking", action="store_true",
        help="keep thoughts in the conversation, where the model was made for it (Qwen3.6)",
    )  # fmt: skip
    chat.add_argument(
        "--json", action="store_true",
        help="one JSON object a turn, with how many tokens were read anew and how many reused",
    )  # fmt: skip


def _add_scores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scores", action="store_true",
        help="with --json: of each box, point or line how sure the model was of what it wrote: the "
        "mean probability of its numbers and words, 0 to 1",
    )  # fmt: skip
    parser.add_argument(
        "--min-score", type=float, default=0, metavar="X",
        help="leave out what has a lower score than this, 0 to 1 (default: 0, nothing)",
    )  # fmt: skip


def _image_options() -> argparse.ArgumentParser:
    """The options of all commands that ask about images."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "images", nargs="+", metavar="FILE",
        help="pictures, and PDF documents, of which each page is a picture",
    )  # fmt: skip
    common.add_argument(
        "--json", action="store_true",
        help="one JSON object a picture, in order, each as soon as it is answered; one that "
        "failed has an error, one of a document its page",
    )  # fmt: skip
    common.add_argument(
        "--pages", metavar="RANGE",
        help=f"of PDFs: 1-10, 3, 2-, or 1,4-6 (default: all); {PASSWORD} in the environment opens "
        "encrypted ones",
    )  # fmt: skip
    size = common.add_mutually_exclusive_group()
    size.add_argument(
        "--longest-side", type=_integer, metavar="N",
        help=f"pixels of PDF pages (default: {answering.PAGE_SIDE}, or a preset's own)",
    )  # fmt: skip
    size.add_argument("--dpi", type=float, metavar="N", help="of PDF pages, in place of that")
    return common


def _request_options(pixels: bool = True) -> argparse.ArgumentParser:
    """How to ask: the options of all commands that ask a model. ``pixels``: about images."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--system", default="", help="a system prompt")
    common.add_argument(
        "--thinking", action=argparse.BooleanOptionalAction, default=None,
        help="for models that can be asked to (default: their own way)",
    )  # fmt: skip
    common.add_argument(
        "--reasoning-effort", default="", metavar="WORD",
        help="how much to think, in the model's own word for it, where it has one (Qwen3.8)",
    )  # fmt: skip
    if pixels:
        _add_pixel_options(common)
    kinds = {field.name: field.default for field in dataclasses.fields(Sampling)}
    for name in SAMPLING_OPTIONS:
        kind = float if isinstance(kinds[name], float) else _integer
        common.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N")
    return common


def _pixel_options() -> argparse.ArgumentParser:
    """How large a model sees images."""
    common = argparse.ArgumentParser(add_help=False)
    _add_pixel_options(common)
    return common


def _add_pixel_options(parser: argparse.ArgumentParser) -> None:
    for name in ("min_pixels", "max_pixels"):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=_integer, metavar="N",
            help="bound on width times height of what the model sees (default: the model's own)",
        )  # fmt: skip


def _add_models(subparsers: Any) -> None:
    models = _command(subparsers, commands.models, "list the models on this machine")
    add_roots(models, "where models are looked for")
    models.add_argument("--catalogue", action="store_true", help="also those to download")
    models.add_argument("--json", action="store_true", help="one JSON object for each model")
    download = _command(subparsers, commands.download, "bring a model onto this machine")
    download.add_argument(
        "repo", metavar="OWNER/NAME[@REVISION]",
        help="on the hub, or the address of its page on Hugging Face or ModelScope; a revision "
        "that is named here gets a folder of its own",
    )  # fmt: skip
    download.add_argument("--root", default=DEFAULT_ROOT, metavar="DIR")
    download.add_argument("--source", choices=("huggingface", "modelscope"), default="huggingface")
    download.add_argument(
        "--endpoint", metavar="URL",
        help="a mirror's address; it gets no login unless QVL_TOKEN_HOST names its host",
    )  # fmt: skip
    download.add_argument("--revision", help="a branch, a tag or a commit (default: the newest)")
    download.add_argument(
        "--verify", action="store_true",
        help="read all files anew and fetch again what differs from the hub's",
    )  # fmt: skip
    download.add_argument("--trust-remote-code", action="store_true", help="fetch Python files too")
    download.add_argument("--json", action="store_true")


def _add_servers(subparsers: Any) -> None:
    servers = _command(
        subparsers, surveying.servers,
        "say what answers at addresses: which server, its models, what it can and cannot do",
    )  # fmt: skip
    servers.add_argument(
        "urls", nargs="+", metavar="URL", help="as --server takes it: http://127.0.0.1:8000/v1"
    )
    servers.add_argument(
        "--allow-http", action="store_true", help="ask other machines unencrypted, by http"
    )
    servers.add_argument("--json", action="store_true", help="one JSON object for each address")


def _add_doctor(subparsers: Any) -> None:
    examine = _command(
        subparsers, doctor.doctor, "examine a model and this machine: for a bug report",
        parents=[model_options()],
    )  # fmt: skip
    examine.add_argument(
        "--scenes", type=_integer, default=24, metavar="N",
        help="drawn pictures that the model is asked about (default: 24)",
    )  # fmt: skip
    examine.add_argument(
        "--seconds", type=float, default=600.0, metavar="N",
        help="how long to ask at most, loading left out (default: 600)",
    )  # fmt: skip
    examine.add_argument("--json", action="store_true", help="the report as one JSON object")


def _integer(text: str) -> int:
    """``1000`` or ``1e3``."""
    try:
        number = float(text) if "e" in text.lower() else int(text)
        if number == int(number):
            return int(number)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number")


def _area(text: str) -> tuple[int, int, int, int]:
    """``X,Y,W,H`` in pixels to left, top, right and bottom."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        x = y = width = height = -1
    if min(x, y) < 0 or min(width, height) < 1 or max(x + width, y + height) > _MAX_SIDE:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no rectangle: give X,Y,WIDTH,HEIGHT in pixels, as 10,20,300,200"
        )
    return x, y, x + width, y + height


def _size(text: str) -> Size:
    """``640x480``, width first, to (height, width)."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        width = height = 0
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no size: give WIDTHxHEIGHT, as 640x480, up to {_MAX_SIDE} each"
        )
    return height, width

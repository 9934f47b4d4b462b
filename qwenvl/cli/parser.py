"""Argument parser of the command line: its commands; ``*_options`` have what each takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from ..families import FAMILIES
from . import (
    captioning,
    chatting,
    commands,
    describing,
    doctor,
    listening,
    prompting,
    reading,
    reviewing,
    scoring,
    surveying,
    watching,
)
from .argument_types import integer, size
from .caption_options import add_caption_options, add_review_options
from .media_options import add_listen_options, add_video_options
from .model_names import DEFAULT_ROOT
from .model_options import add_roots, model_options
from .picture_options import (
    add_describe_options,
    add_extract_options,
    add_ground_options,
    add_layout_options,
    add_ocr_options,
    add_score_options,
)
from .request_options import image_options, pixel_options, request_options
from .text_options import add_chat_options, add_prompt_options

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


class _Parser(argparse.ArgumentParser):
    """Its subcommands have so many options that a list of them would hide what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\nAll options: {self.prog} --help\n")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m qwenvl", description=description, **_HELP)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_picture_tasks(subparsers)
    _add_folder_tasks(subparsers)
    _add_other_tasks(subparsers)
    _add_models(subparsers)
    _add_servers(subparsers)
    _add_doctor(subparsers)
    _add_parse(subparsers)
    return parser


def _command(
    subparsers: Any, run: Callable[[argparse.Namespace], int | None], about: str, **more: Any
) -> Any:
    """A subcommand, named after the function that runs it."""
    parser = subparsers.add_parser(run.__name__, help=about, description=about, **_HELP, **more)
    parser.set_defaults(run=run)
    return parser


def _add_picture_tasks(subparsers: Any) -> None:
    common = [image_options(), model_options(), request_options()]
    for run, about, add_options in (
        (describing.describe, "say what pictures show", add_describe_options),
        (reading.ocr, "read the text in pictures", add_ocr_options),
        (reading.ground, "find things in pictures", add_ground_options),
        (
            reading.extract,
            "write what pictures show as JSON of a given form",
            add_extract_options,
        ),
        (
            reading.layout,
            "write what pictures consist of and where, so that they could be drawn anew",
            add_layout_options,
        ),
    ):
        add_options(_command(subparsers, run, about, parents=common))


def _add_folder_tasks(subparsers: Any) -> None:
    common = [model_options(), request_options()]
    caption = _command(
        subparsers, captioning.caption,
        "caption all pictures and videos of a folder, in files as trainers read them",
        parents=common,
    )  # fmt: skip
    add_caption_options(caption)
    review = _command(
        subparsers, reviewing.review,
        "show the pictures and captions of a folder on a local page, to correct them",
        parents=common,
    )  # fmt: skip
    add_review_options(review)


def _add_other_tasks(subparsers: Any) -> None:
    common = [model_options(), request_options()]
    video = _command(
        subparsers, watching.video, "say what happens in videos and when, follow things in them",
        parents=common,
    )  # fmt: skip
    add_video_options(video)
    listen = _command(
        subparsers, listening.listen, "write down, describe or answer sounds, aloud too",
        parents=[model_options(), request_options(pixels=False)],
    )  # fmt: skip
    add_listen_options(listen)
    prompt = _command(
        subparsers, prompting.prompt,
        "write prompts for an image or video model out of ideas and pictures",
        parents=common,
    )  # fmt: skip
    add_prompt_options(prompt)
    score = _command(
        subparsers, scoring.score, "tell how well pictures fit a text",
        parents=[image_options(), model_options(), pixel_options()],
    )  # fmt: skip
    add_score_options(score)
    chat = _command(
        subparsers, chatting.chat, "hold a conversation, about pictures or without",
        parents=common,
    )  # fmt: skip
    add_chat_options(chat)


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
        "--scenes", type=integer, default=24, metavar="N",
        help="drawn pictures that the model is asked about (default: 24)",
    )  # fmt: skip
    examine.add_argument(
        "--seconds", type=float, default=600.0, metavar="N",
        help="how long to ask at most, loading left out (default: 600)",
    )  # fmt: skip
    examine.add_argument("--json", action="store_true", help="the report as one JSON object")


def _add_parse(subparsers: Any) -> None:
    parse = _command(subparsers, commands.parse, "read a raw reply on stdin, print what it says")
    parse.add_argument("--family", required=True, help=f"one of {', '.join(FAMILIES)}")
    parse.add_argument("--image-size", required=True, type=size, metavar="WxH")
    parse.add_argument(
        "--input-size", type=size, metavar="WxH",
        help="of the picture that the model saw (default: as the family's processor resizes)",
    )  # fmt: skip
    parse.add_argument("--task", required=True, choices=("boxes", "points", "action", "ocr"))

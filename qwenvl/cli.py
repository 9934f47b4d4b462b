"""The engine from the command line, for people and scripts: ``python -m qwenvl --help``.

Results go to stdout, one picture after the other, with ``--json`` as one JSON object a line; all
else goes to stderr. Exit status: 0; 2 for anything that could not be done, with the reason in
words; 3 where a model's reply could not be read.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import logging
import sys
from collections.abc import Sequence
from typing import Any

from . import commands
from .commands import DEFAULT_ROOT, DEMO, SAMPLED
from .errors import QwenVLError, UnreadableReply
from .families import FAMILIES
from .types import Sampling, Size


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):  # whatever the console's own encoding
            stream.reconfigure(encoding="utf-8", errors="replace")
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s")
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options) or 0)
    except UnreadableReply as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except QwenVLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _size(text: str) -> Size:
    """``640x480``, width first, to (height, width)."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        width = height = 0
    if width < 1 or height < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give WIDTHxHEIGHT, as 640x480")
    return height, width


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qwenvl", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_tasks(verbs)
    _add_shelf(verbs)
    reads = verbs.add_parser("parse", help="read a raw reply on stdin, print what it says")
    reads.set_defaults(run=commands.parse)
    reads.add_argument("--family", required=True, help=f"one of {', '.join(FAMILIES)}")
    reads.add_argument("--image-size", required=True, type=_size, metavar="WxH")
    reads.add_argument(
        "--input-size", type=_size, metavar="WxH",
        help="of the picture that the model saw (default: as the family's processor resizes)",
    )  # fmt: skip
    reads.add_argument("--task", required=True, choices=("boxes", "points", "ocr"))
    return parser


def _add_tasks(verbs: Any) -> None:
    from .tasks.describe import STYLES
    from .tasks.ocr import OUTPUTS

    common = _asking()
    says = verbs.add_parser("describe", parents=[common], help="say what pictures show")
    says.set_defaults(run=commands.describe)
    says.add_argument("--style", choices=tuple(STYLES), default="detailed")
    says.add_argument("--prompt", default="", help="own words in place of a style")
    reads = verbs.add_parser("ocr", parents=[common], help="read the text in pictures")
    reads.set_defaults(run=commands.ocr)
    reads.add_argument("--output", choices=tuple(OUTPUTS), default="plain")
    reads.add_argument("--language", default="auto")
    finds = verbs.add_parser("ground", parents=[common], help="find things in pictures")
    finds.set_defaults(run=commands.ground)
    finds.add_argument("--find", required=True, help="what to find, several with commas")
    finds.add_argument("--kind", choices=("boxes", "points"), default="boxes")
    finds.add_argument("--max-count", type=int, default=0, help="0: as many as there are")


def _asking() -> argparse.ArgumentParser:
    """What all commands that ask a model have in common."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("images", nargs="+", metavar="IMAGE")
    common.add_argument("--json", action="store_true", help="one JSON object for each picture")
    common.add_argument(
        "--model", default=DEMO, metavar="PATH|demo",
        help="a checkpoint's folder (default: the small bundled model)",
    )  # fmt: skip
    for name, default, choices in (
        ("precision", "auto", "auto, bf16, fp16 or fp32"),
        ("quantization", "none", "none, 8bit or 4bit"),
        ("attention", "auto", "auto, sdpa, eager, flash_attention_2, ..."),
        ("device", "auto", "auto, cpu, cuda:0, ..."),
    ):
        common.add_argument(f"--{name}", default=default, metavar="X", help=choices)
    common.add_argument(
        "--trust-remote-code", action="store_true", help="run Python that lies in the checkpoint"
    )
    common.add_argument("--system", default="", help="a system prompt")
    common.add_argument(
        "--thinking", action=argparse.BooleanOptionalAction, default=None,
        help="for models that can be asked to (default: their own way)",
    )  # fmt: skip
    for name in ("min_pixels", "max_pixels"):
        common.add_argument(
            f"--{name.replace('_', '-')}", type=int, metavar="N",
            help="bound on width times height of what the model sees",
        )  # fmt: skip
    kinds = {field.name: field.default for field in dataclasses.fields(Sampling)}
    for name in SAMPLED:
        kind = float if isinstance(kinds[name], float) else int
        common.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N")
    return common


def _add_shelf(verbs: Any) -> None:
    lists = verbs.add_parser("models", help="list the models on this machine")
    lists.set_defaults(run=commands.models)
    lists.add_argument(
        "--root", action="append", metavar="DIR", help=f"may repeat (default: {DEFAULT_ROOT})"
    )
    lists.add_argument("--catalogue", action="store_true", help="also those to download")
    lists.add_argument("--json", action="store_true", help="one JSON object for each model")
    brings = verbs.add_parser("download", help="bring a model onto this machine")
    brings.set_defaults(run=commands.download)
    brings.add_argument("repo", metavar="OWNER/NAME")
    brings.add_argument("--root", default=DEFAULT_ROOT, metavar="DIR")
    brings.add_argument("--source", choices=("huggingface", "modelscope"), default="huggingface")
    brings.add_argument(
        "--endpoint", metavar="URL",
        help="a mirror's address; it gets no login unless QVL_TOKEN_HOST names its host",
    )  # fmt: skip
    brings.add_argument("--revision", help="a branch, a tag or a commit (default: the newest)")
    brings.add_argument(
        "--verify", action="store_true",
        help="read all files anew and fetch again what differs from the hub's",
    )  # fmt: skip
    brings.add_argument("--trust-remote-code", action="store_true", help="fetch Python files too")
    brings.add_argument("--json", action="store_true")

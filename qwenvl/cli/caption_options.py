"""Options of the caption command."""

from __future__ import annotations

import argparse

from .argument_types import integer
from .frame_options import add_frame_options

DEFAULT_STYLE = "training"


def add_caption_options(parser: argparse.ArgumentParser) -> None:
    _add_folder(parser)
    _add_tasks(parser)
    _add_trainer(parser)
    _add_existing(parser)
    _add_words(parser)
    add_frame_options(parser, "a video")
    _add_run(parser)


def add_review_options(parser: argparse.ArgumentParser) -> None:
    """Of the review command: the caption command's, which say how a model is asked again, but for
    those about a whole run."""
    _add_folder(parser)
    _add_trainer(parser)
    parser.add_argument(
        "--port", type=integer, default=0, metavar="N",
        help="of the page, at 127.0.0.1 (default: any that is free)",
    )  # fmt: skip
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address, and open no browser"
    )
    _add_tasks(parser)
    _add_words(parser)
    add_frame_options(parser, "a video")
    parser.set_defaults(
        overwrite=True, append=False, refine=False, shard="1/1", near_duplicates=None
    )


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="pictures and videos in it and below it")


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    from ..tasks.ocr import OUTPUTS

    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument(
        "--style", metavar="NAME",
        help="of a description, as describe has them: short, training, tags, prompt_tags, ... "
        f"(default: {DEFAULT_STYLE})",
    )  # fmt: skip
    wanted.add_argument("--prompt", metavar="WORDS", help="own words in place of a style")
    wanted.add_argument(
        "--target", metavar="NAME",
        help="a prompt for this image model, as the prompt command writes it: qwen_image, ...",
    )  # fmt: skip
    wanted.add_argument("--ocr", choices=OUTPUTS, metavar="FORM", help="the text in pictures: "
                        f"{', '.join(OUTPUTS)}")  # fmt: skip
    wanted.add_argument("--layout", action="store_true", help="Ideogram 4 captions, as JSON")
    wanted.add_argument("--keys", metavar="A,B,C", help="JSON with these keys")
    wanted.add_argument("--schema", metavar="FILE", help="JSON of this schema")
    parser.add_argument(
        "--styles-folder", action="append", metavar="DIR",
        help="more styles, in YAML files; may repeat",
    )  # fmt: skip


def _add_trainer(parser: argparse.ArgumentParser) -> None:
    from ..folders.trainers import DEFAULT, trainers

    parser.add_argument(
        "--trainer", choices=tuple(trainers()), default=DEFAULT,
        help="what will read the captions, and so where and in which form they are written: "
        + "; ".join(f"{name}: {one.title}" for name, one in trainers().items())
        + " (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--caption-ext", default="", metavar="EXT",
        help="of caption files, in place of the trainer's usual one, such as caption, which is "
        "what sd-scripts reads unless it is told otherwise",
    )  # fmt: skip


def _add_existing(parser: argparse.ArgumentParser) -> None:
    there = parser.add_mutually_exclusive_group()
    there.add_argument(
        "--overwrite", action="store_true",
        help="captions that are there are written anew (default: skipped); what a file held at "
        "first is kept in .qwenvl-captions/backup",
    )  # fmt: skip
    there.add_argument("--append", action="store_true", help="behind captions that are there")
    there.add_argument(
        "--refine", action="store_true",
        help="the model sees the caption that is there and corrects it; it is written over as by "
        "--overwrite",
    )  # fmt: skip


def _add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--template", default="{text}", metavar="WORDS",
        help="the caption, with {text} for the reply, {tags} for tags of the picture, {name} of "
        "the file, {folder} it lies in (10_cat is cat), {trigger} (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--trigger", default="", metavar="WORDS",
        help="trigger words: where the template has {trigger}, else before the caption",
    )  # fmt: skip
    parser.add_argument("--prefix", default="", metavar="WORDS", help="before all, as it is")
    parser.add_argument("--suffix", default="", metavar="WORDS", help="behind all, as it is")
    parser.add_argument(
        "--must", default="", metavar="A,B",
        help="words that captions have to hold as they are; the template's and trigger words count",
    )  # fmt: skip
    parser.add_argument(
        "--must-not", default="", metavar="A,B",
        help="what captions are not to describe; the model is to write none of these words",
    )  # fmt: skip
    parser.add_argument(
        "--ask-again", type=integer, default=2, metavar="N",
        help="how often a reply is asked for again that is not as wished; then it is a failure "
        "(default: %(default)s)",
    )  # fmt: skip


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard", default="1/1", metavar="I/N",
        help="only this part of the files, such as 1/4 to 4/4 on four machines: which file is "
        "in which part depends on its path below the folder alone",
    )  # fmt: skip
    parser.add_argument(
        "--near-duplicates", type=integer, metavar="BITS",
        help="pictures that look the same get the same reply: at most so many of 64 bits of "
        "their perceptual hashes differ, such as 2 (default: each is asked about)",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="say which files would be asked about, and end"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a file, as it comes")

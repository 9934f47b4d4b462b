"""Options of commands about pictures: describe, ocr, ground, extract, layout, score."""

from __future__ import annotations

import argparse

from ..camera import FIELD_OF_VIEW
from ..fine_tunes import AUTO, PRESETS
from ..reading import OFF
from .argument_types import area, integer


def add_describe_options(parser: argparse.ArgumentParser) -> None:
    from ..tasks.describe import known_styles

    parser.add_argument(
        "--style", default="detailed", metavar="NAME",
        help=f"one of {', '.join(known_styles())}, or of --styles-folder (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--styles-folder", action="append", metavar="DIR",
        help="more styles, in YAML files; may repeat",
    )  # fmt: skip
    parser.add_argument("--prompt", default="", help="own words in place of a style")
    parser.add_argument(
        "--choices", default="", metavar="A,B,C",
        help="answer with one of these, word for word; --prompt is the question (default: which "
        "fits best)",
    )  # fmt: skip
    parser.add_argument(
        "--together", action="store_true",
        help="one question about all images at once, such as the pages of a document",
    )  # fmt: skip


def add_ocr_options(parser: argparse.ArgumentParser) -> None:
    from ..tasks.ocr import OUTPUTS

    parser.add_argument(
        "--output", choices=(*OUTPUTS, "pdf"), default="plain",
        help="pdf: the pages under invisible lines of text, to be searched; it needs --out",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FOLDER",
        help="write a document for each input there: .txt, .md, .html or .pdf, with figures cut "
        "out beside it; without --json nothing else is printed",
    )  # fmt: skip
    parser.add_argument(
        "--csv", action="store_true", help="with --out: each table beside it as CSV, too"
    )
    parser.add_argument("--language", default="auto")
    parser.add_argument(
        "--tiles", default=OFF, metavar="off|auto|N",
        help="read large pages in overlapping tiles of N pixels, line by line (auto: pages over "
        "twice the usual size, such as PDFs with --dpi 300; default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--preset", choices=PRESETS, default=AUTO,
        help="prompt and picture size that a fine-tune was trained on (default: %(default)s, by "
        "the model's name; --max-pixels goes before its size)",
    )  # fmt: skip
    _add_scores(parser)
    _add_strict(parser)


def add_ground_options(parser: argparse.ArgumentParser) -> None:
    from ..grounding import KINDS
    from ..tasks.act import SCREENS

    parser.add_argument(
        "--find", required=True, action="append", metavar="WORDS",
        help="what to find, several with commas; may repeat: each is asked and counted by itself",
    )  # fmt: skip
    parser.add_argument("--kind", choices=KINDS, default="boxes")
    parser.add_argument(
        "--screen", choices=SCREENS, default=SCREENS[0],
        help="of the kind action, which says what to do next to reach what --find says (default: "
        "%(default)s)",
    )  # fmt: skip
    parser.add_argument("--max-count", type=integer, default=0, help="0: as many as there are")
    parser.add_argument(
        "--inside", action="append", type=area, metavar="X,Y,W,H",
        help="look only inside this rectangle of each picture, in its pixels; may repeat: each is "
        "shown to the model by itself",
    )  # fmt: skip
    parser.add_argument(
        "--tile", type=integer, default=0, metavar="N",
        help="for small things in large pictures: show the model tiles of N by N pixels too",
    )  # fmt: skip
    parser.add_argument(
        "--fov", type=float, default=FIELD_OF_VIEW, metavar="DEGREES",
        help="of boxes_3d: what the picture's longer side spans, to project them into the picture "
        "(default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--look-again", action="store_true",
        help="show the model each box once more, and take the new one where it is surer of it",
    )  # fmt: skip
    parser.add_argument(
        "--logprobs", action="store_true",
        help="with --json: the reply itself and each of its tokens' log-probability",
    )  # fmt: skip
    _add_scores(parser)
    _add_strict(parser)


def add_extract_options(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--schema", metavar="FILE", help="a JSON schema")
    form.add_argument("--keys", metavar="A,B,C", help="an object with these keys, null if not seen")
    form.add_argument("--example", metavar="FILE", help="JSON of the form wanted")
    parser.add_argument("--prompt", default="", help="what to extract, in own words")


def add_layout_options(parser: argparse.ArgumentParser) -> None:
    from ..layouts import FORMS

    parser.add_argument(
        "--form", choices=tuple(FORMS), default="ideogram",
        help="ideogram: captions of Ideogram 4. plain: all there is, boxes in pixels "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--max-elements", type=integer, default=20, metavar="N")
    parser.add_argument(
        "--instructions", default="", help="more on what to write, such as a language"
    )


def add_score_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", required=True, help="what the pictures should show")
    parser.add_argument(
        "--instruction", default="", metavar="WORDS",
        help="an own yes-or-no question, with [text] where the text goes (default: Does this image "
        'show "[text]"? Answer yes or no.); of rerankers and embedding models what to look for',
    )  # fmt: skip
    parser.add_argument("--top", type=integer, metavar="N", help="only the N best, the best first")


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


def _add_strict(parser: argparse.ArgumentParser) -> None:
    from ..constraints import STRICT

    parser.add_argument(
        "--strict", choices=STRICT, default=STRICT[0],
        help="hold replies to JSON: auto, from where they begin it; on, from the first word "
        "(default: %(default)s)",
    )  # fmt: skip

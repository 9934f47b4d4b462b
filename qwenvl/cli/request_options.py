"""Options of requests: the pictures, and how a model is asked about them."""

from __future__ import annotations

import argparse
import dataclasses

from ..media.documents import PASSWORD
from ..types import Sampling
from .answering import PAGE_SIDE, SAMPLING_OPTIONS
from .argument_types import integer


def image_options() -> argparse.ArgumentParser:
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
        "--longest-side", type=integer, metavar="N",
        help=f"pixels of PDF pages (default: {PAGE_SIDE}, or a preset's own)",
    )  # fmt: skip
    size.add_argument("--dpi", type=float, metavar="N", help="of PDF pages, in place of that")
    return common


def request_options(pixels: bool = True) -> argparse.ArgumentParser:
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
        kind = float if isinstance(kinds[name], float) else integer
        common.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N")
    return common


def pixel_options() -> argparse.ArgumentParser:
    """How large a model sees images."""
    common = argparse.ArgumentParser(add_help=False)
    _add_pixel_options(common)
    return common


def _add_pixel_options(parser: argparse.ArgumentParser) -> None:
    for name in ("min_pixels", "max_pixels"):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=integer, metavar="N",
            help="bound on width times height of what the model sees (default: the model's own)",
        )  # fmt: skip

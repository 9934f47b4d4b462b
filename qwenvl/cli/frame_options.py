"""Options of commands that show videos: which frames, and how many."""

from __future__ import annotations

import argparse

from ..media.frame_times import MAX_FRAMES
from .argument_types import integer


def add_frame_options(parser: argparse.ArgumentParser, of: str) -> None:
    """``of``: what the limits hold for, in words."""
    frames = parser.add_mutually_exclusive_group()
    frames.add_argument(
        "--fps", type=float, metavar="N", help="of videos: frames a second (default: 2)"
    )
    frames.add_argument("--every", type=float, metavar="SECONDS", help="one frame in so long")
    frames.add_argument("--frames", type=integer, metavar="N", help="so many, evenly spread")
    frames.add_argument("--scenes", action="store_true", help="the first frame of each scene")
    parser.add_argument(
        "--max-frames", type=integer, metavar="N",
        help=f"at most so many of {of} (default: {MAX_FRAMES})",
    )  # fmt: skip
    parser.add_argument(
        "--max-video-tokens", type=integer, metavar="N",
        help=f"at most so many tokens of {of}: its frames are shown smaller (default: as many as "
        "the model and its context allow)",
    )  # fmt: skip

"""Options of commands about videos and sounds: video, listen."""

from __future__ import annotations

import argparse

from .frame_options import add_frame_options
from .watching import DEFAULT_SEGMENT


def add_video_options(parser: argparse.ArgumentParser) -> None:
    from ..constraints import STRICT
    from ..tasks.describe_video import known_video_styles
    from ..watching import GAPS

    parser.add_argument("videos", nargs="+", metavar="FILE", help="video files")
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--ask", metavar="WORDS", help="a question or instruction of your own")
    wanted.add_argument(
        "--events", nargs="?", const="", metavar="WORDS",
        help="when what the words say happens; without any, whatever happens",
    )  # fmt: skip
    wanted.add_argument(
        "--dense", action="store_true", help="a caption for each segment of the video"
    )
    wanted.add_argument("--track", metavar="WORDS", help="where one thing is in each frame")
    parser.add_argument(
        "--style", metavar="NAME",
        help=f"of a description: one of {', '.join(known_video_styles())}, or of --styles-folder "
        "(default: detailed)",
    )  # fmt: skip
    parser.add_argument(
        "--styles-folder", action="append", metavar="DIR",
        help="more styles, in YAML files; may repeat",
    )  # fmt: skip
    parser.add_argument(
        "--segment", type=float, metavar="SECONDS",
        help="how long a segment of --dense is, or 0 for one a scene (default: "
        f"{DEFAULT_SEGMENT:g})",
    )  # fmt: skip
    parser.add_argument(
        "--gaps", choices=GAPS,
        help="of --track: frames without a find between others (default: interpolate)",
    )  # fmt: skip
    parser.add_argument(
        "--strict", choices=STRICT, help="hold replies to JSON, as in ground (default: auto)"
    )
    add_frame_options(parser, "a video, or of a segment")
    parser.add_argument(
        "--sound", action="store_const", const=True,
        help="hear the video's sound too, with a model that hears (Qwen2.5-Omni, Qwen3-Omni)",
    )  # fmt: skip
    parser.add_argument(
        "--clips", metavar="FOLDER", help="write the part of the video of each event there, as MP4"
    )
    parser.add_argument(
        "--json", action="store_true",
        help="one JSON object a video, in order: its text, the times of the frames that the model "
        "saw and its events, in seconds",
    )  # fmt: skip


def add_listen_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sounds", nargs="*", metavar="FILE", help="sound files, or videos")
    parser.add_argument("--json", action="store_true", help="one JSON object a sound")
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument(
        "--ask", nargs="?", const="", metavar="WORDS",
        help="a question or instruction of your own; without any words, an answer to what is said "
        "(default: a transcript)",
    )  # fmt: skip
    wanted.add_argument("--describe", action="store_true", help="all that is heard")
    parser.add_argument("--language", default="", help="of the speech that is transcribed")
    parser.add_argument("--start", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--end", type=float, metavar="SECONDS")
    parser.add_argument(
        "--speak", metavar="FILE.wav", help="also speak the answer, into this file; of several "
        "sounds, into numbered ones",
    )  # fmt: skip
    parser.add_argument("--voice", default="", metavar="NAME", help="one of the checkpoint's")

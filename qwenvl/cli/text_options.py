"""Options of commands that write at length: prompt, chat."""

from __future__ import annotations

import argparse

from ..media.frame_times import FPS
from .argument_types import integer
from .chatting import Say


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    from ..prompt_writing import MOST_TRIES

    parser.add_argument(
        "ideas", nargs="*", metavar="IDEA", help="with {a|b} for choices, drawn by --seed"
    )
    parser.add_argument(
        "--image", action="append", metavar="FILE",
        help="a picture; may repeat: a prompt each, with the idea of its place or the only one",
    )  # fmt: skip
    parser.add_argument(
        "--together", action="store_true", help="all images go with each idea, such as for edits"
    )
    parser.add_argument(
        "--target", default="qwen_image", metavar="NAME",
        help="the model that the prompts are for (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--targets-folder", action="append", metavar="DIR",
        help="more targets, each a YAML file; may repeat",
    )  # fmt: skip
    parser.add_argument("--list-targets", action="store_true", help="say which there are, and end")
    parser.add_argument(
        "--must", default="", metavar="A,B", help="words that prompts have to hold as they are"
    )
    parser.add_argument(
        "--must-not", default="", metavar="A,B",
        help="what prompts are not to describe; none of these words may stand in them",
    )  # fmt: skip
    parser.add_argument("--trigger", default="", metavar="WORDS", help="stand before each prompt")
    parser.add_argument(
        "--ask-again", type=integer, default=2, metavar="N",
        help="how often a prompt is asked for again that is not as wished, or too long: 0 to "
        f"{MOST_TRIES} (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--megapixels", type=float, default=0, metavar="N",
        help="of the width and height that some targets give (default: the target's own)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a prompt, in order")


def add_chat_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--turn", action=Say, metavar="WORDS",
        help="what to say; may repeat, a turn each. Without one, each line on stdin is a turn",
    )  # fmt: skip
    for kind, what in (
        ("image", "a picture"), ("video", "a video"), ("sound", "a sound, for an Omni model"),
    ):  # fmt: skip
        parser.add_argument(
            f"--{kind}", action=Say, metavar="FILE",
            help=f"{what}, for the --turn behind it; may repeat: all of a turn go together",
        )  # fmt: skip
    parser.add_argument(
        "--fps", type=float, default=FPS, metavar="N",
        help=f"frames a second that are shown of each --video (default: {FPS:g})",
    )  # fmt: skip
    parser.add_argument(
        "--video-sound", action="store_true",
        help="hear the sound of each --video too, with a model that hears (Qwen2.5-Omni, "
        "Qwen3-Omni)",
    )  # fmt: skip
    parser.add_argument(
        "--history", metavar="FILE", help="go on with a conversation that was saved"
    )
    parser.add_argument(
        "--save", metavar="FILE",
        help="write the conversation there after each turn, as JSON that names its pictures",
    )  # fmt: skip
    parser.add_argument(
        "--preserve-thinking", action="store_true",
        help="keep thoughts in the conversation, where the model was made for it (Qwen3.6)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true",
        help="one JSON object a turn, with how many tokens were read anew and how many reused",
    )  # fmt: skip

"""Fuzzing of the reply parsers: ``python tests/engine/fuzz_replies.py``.

Every task parses every text, which must give a valid result (valid Unicode, JSON without NaN, boxes
inside the picture, scores of 0 to 1 or none) or ``UnreadableReply``. Then growth: the time for
hostile texts from a kilobyte to a megabyte must be linear in their length.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import conftest  # noqa: F401  (loads the pack under its name)

from qwen_vl_suite.qwenvl.errors import UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.tasks.act import act
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.tasks.ocr import OUTPUTS, ocr, read_any
from qwen_vl_suite.qwenvl.tasks.picture_code import CODE_STYLES
from qwen_vl_suite.qwenvl.types import ReplyContext, Result, Task, Token

# Fragments of replies, from which texts are put together.
PIECES = (
    '{"bbox_2d": [10, 20, 300, 400], "label": "cat"}', '[{"bbox_2d": [1, 2, 3, 4], "label": "',
    '"}]', "```json\n", "```", '{"point_2d": [5, 6]}', '{"x": 1, "y": 2, "w": 3, "h": 4}',
    "<ref>cat</ref>", "<box>(1,2),(3,4)</box>", "<box>[[1, 2, 3, 4]]</box>", "<|box_start|>",
    "<|box_end|>", "<point>5 6</point>", '<points x1="5" y1="6"', "click(x=5, y=6)",
    "Top-left: (1, 2), bottom-right: (3, 4)", "| a | [1, 2, 3, 4] |\n", "|---|---|\n",
    "| a | b |\n",
    '<p data-bbox="1 2 30 40">', "</p>", "<table><tr><td>", "</td></tr></table>",
    "<!-- Image (1, 2",
    "<think>", "</think>", "<answer>", "</answer>", "<|im_end|>", "<|im_start|>user\n",
    "<|endoftext|>Human: ", "None", "null", "(0 found)", "Result: no cats", "没有", "\\boxed{",
    "There are no cats", " but ", "C:\\temp\\new", "\\frac{a}{b}", "\\ud83d", "\\ude00", "\\u00e9",
    "---\nprimary_language: en\n---\n", '{"natural_text": "', "[1990, 1991, 1992, 1993]",
    "[10, 20, 300, 400)", "1e999", "NaN", "-1", "[-1, -1]", "0.5", "9" * 30, "1920", "x<y", "<b",
    "<ann@example.com>", "，", "：", "【", "】", "“", "”", "\ud83d", "\x00", "\x85", "😀", "é",
    "\t", "```html\n", "```svg\n", "\n```\n", "~~~", "<html>", "</html>", "<div>", "<script>",
    "<!DOCTYPE svg [",
    "<svg", ' xmlns="http://www.w3.org/2000/svg">', "</svg>", "<!--", "-->", "&a;",
    "<mxGraphModel>", "</mxGraphModel>", "graph TD\n", "A --> B\n", "Thought: ", "\nAction: ",
    "<tool_call>", "</tool_call>", '{"name": "mobile_use", "arguments": {"action": "click", ',
    '"coordinate": [500, 81]}}', '"coordinate2": [5, 1e999]}}', "<function=computer_use>",
    "<parameter=action>left_click</parameter>", "<parameter=coordinate>[44, 81]", "</function>",
    *"[]{}()<>\"'\\:,;=|*_-#/ \n.0123456789abxy",
)  # fmt: skip

TASKS: Mapping[str, Callable[[], Task]] = {
    **{f"ocr {output}": (lambda output=output: ocr(output)) for output in OUTPUTS},
    "ground boxes": lambda: ground("cat, dog"),
    "ground points": lambda: ground("cat", "points"),
    "describe": lambda: describe("detailed"),
    "describe tags": lambda: describe("tags"),
    "act": lambda: act("Go on.", "mobile"),
    **{f"describe {style}": (lambda style=style: describe(style)) for style in CODE_STYLES},
    "describe own": lambda: describe(prompt="What is it?"),
}


def texts(count: int, seed: int) -> Iterator[str]:
    """Texts of up to 40 fragments, some with a character removed, doubled or replaced."""
    rng = random.Random(seed)
    for _ in range(count):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 40)))
        for _ in range(rng.choice((0, 0, 1, 3))):
            at = rng.randrange(len(text) or 1)
            text = (
                text[:at]
                + rng.choice(("", text[at : at + 1] * 2, rng.choice(PIECES)))
                + text[at + 1 :]
            )
        yield text


def check(text: str, context: ReplyContext) -> None:
    """Parses ``text`` in every way; fails on anything but a valid result or ``UnreadableReply``."""
    context = scored(text, context)
    readers = [task().parse for task in TASKS.values()]
    for read in (*readers, read_any):
        try:
            result = read(text, context)
        except UnreadableReply as error:
            str(error).encode()
            continue
        check_result(result, context)


def scored(text: str, context: ReplyContext) -> ReplyContext:
    """``context`` with a token for each three characters of ``text``."""
    tokens = (Token(0, at, min(at + 3, len(text)), -1.0) for at in range(0, len(text), 3))
    return dataclasses.replace(context, tokens=tuple(tokens))


def check_result(result: Result, context: ReplyContext) -> None:
    height, width = context.image_size
    saved = json.dumps([result.text, result.data, result.notes], allow_nan=False)
    saved.encode()
    result.text.encode()
    for box in result.boxes:
        assert 0 <= box.x1 < box.x2 <= width and 0 <= box.y1 < box.y2 <= height, box
        assert box.score is None or 0 <= box.score <= 1
        box.label.encode()
    for point in result.points:
        assert 0 <= point.x <= width and 0 <= point.y <= height, point
        assert point.score is None or 0 <= point.score <= 1


HOSTILE = (
    "[", "{", '{"a":', '{"a": [}]', '"', '{"label": "x"y ', "\\", '\\"', "1", " ", " \n", "(1,2)",
    ", ", "<a ", "<", "<p data-bbox=\"1 1 2 2\">", "<ref>", "<points x1=", "<think>", "</think>",
    "<think></think>",
    "“", "{a:[]", "no, ", "(1,2,3,4)", '{"a":[', "<|im_end|>", "<|im_start|>", "[[]]", "| a ",
    "| a |\n", "|---|\n", "x=5, ", "Top-left: (1, 2), ", "cat: [1, 2, 3, 4]\n", "<answer>", "```\n",
    "(1,2) to ", "x=1 ", "size 1 x ", "cat (1, 2, 3, 4)\n", "[x, y, w, h] ",
    "<div hidden ", " hidden",
    "C:\\a", "\\frac", "<box>[", "<box>1 2 3 4</box>", "[1, 2, 3, 4)", "【", "<td>", "</tr>", "- ",
    '{"bbox_2d": [1, 2, 3, 4], "label": "cat",}, ', '{"bbox_2d": [1, 2, 3, "label": }, ', "- - ",
    "<ref>cat</ref><box>(10,20),(300,400)</box>", "<!-- ", "<!-- Image (1, 2, 3, 4) -->\n", "#a ",
    "---\n", "is_table: no\n", "0 found ", "there is no ", "a" , "**a", ": ", "没有", "'a': ",
    "<tool_call>", "<function=a>", "<parameter=a>", "<tool_call></tool_call>", '{"action": "a"}',
    "Thought: ", "\nAction: a", "```html\n", "<svg>", "<svg ", "<div>", "<p></p></div>", "<a '",
    "<!DOCTYPE a [", "&a;", "<?xml ?>", "graph TD\n", "\n\nAbc d e f", "<mxfile>", "~~~\n",
    "<function=a><parameter=a>", "<script>",
)  # fmt: skip


# Long runs of one character between a beginning and an end.
STRETCHED = (
    ("a <p", " ", "|"), ("<p", " ", "x>"), ("a", "\n", "b"), ("1 1", "\n", "x"),
    ("<answer>", " ", "x"),
    ("top-left", " ", "!"), ("top-left", "*", "!"), ("x=1", " ", "q y=2."), ("a\n", " ", "x|"),
    ("<div hidden", " ", "x>t</div>"), ("[1,2,3,4]", " ", "x"), ("(1,2)", " ", "(3,4)"),
    ("{", " ", "}"),
    ("cat:", " ", "[1,2,3,4]"), ('<point alt="', "a", ""), ("box", " ", "(1,2),(3,4)"),
    ("---\na:", " ", "\n"), ("Thought:", " ", '{"action": "a"}'), ("graph TD\n", "\n", "A"),
    ("```", " ", "x"), ("<?xml ?>", " ", "<svg>"),
)  # fmt: skip


def seconds(text: str, context: ReplyContext) -> dict[str, float]:
    """CPU time that each task takes to parse ``text``."""
    took = {}
    for name, task in TASKS.items():
        parse = task().parse
        asked = scored(text, context)
        start = time.process_time()
        with contextlib.suppress(UnreadableReply):
            parse(text, asked)
        took[name] = time.process_time() - start
    return took


def stretched(scrap: str | tuple[str, str, str], size: int) -> str:
    """A text of ``size`` characters: a repeated fragment, or a run between a start and an end."""
    if isinstance(scrap, str):
        return scrap * (size // len(scrap))
    start, run, end = scrap
    return start + run * size + end


def measure_growth(sizes: tuple[int, ...], limit: float) -> int:
    """Prints the texts whose time grows faster than their length, or exceeds ``limit`` seconds at
    a megabyte; returns how many."""
    context = ReplyContext(FAMILIES["qwen3_vl"], (800, 600), (800, 600))
    bad, slowest = 0, (0.0, "", "")
    for scrap in (*HOSTILE, *STRETCHED):
        rows = [seconds(stretched(scrap, size), context) for size in sizes]
        for name in TASKS:
            first, last = max(rows[-2][name], 0.01), rows[-1][name]
            slowest = max(slowest, (last, name, repr(scrap)))
            if last > limit or last > 3 * first * sizes[-1] / sizes[-2]:
                bad += 1
                print(f"{name}: {scrap!r} took " + ", ".join(f"{row[name]:.3f}" for row in rows))
    print(f"slowest at {sizes[-1]} characters: {slowest[0]:.2f} s, {slowest[1]}, {slowest[2]}")
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=1000, help="for each family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--growth", action="store_true", help="also time from 1 KB to 1 MB")
    parser.add_argument("--limit", type=float, default=1.0, help="seconds at a megabyte")
    options = parser.parse_args()
    for number, family in enumerate(FAMILIES.values()):
        context = ReplyContext(family, (1000, 1333), (1008, 1344))
        for text in texts(options.texts, options.seed + number):
            try:
                check(text, context)
            except Exception:
                print(f"{family.model_type}: {text!r}", file=sys.stderr)
                raise
        print(f"{family.model_type}: {options.texts} texts read or refused")
    return int(
        options.growth and measure_growth((1000, 10_000, 100_000, 1_000_000), options.limit) > 0
    )


if __name__ == "__main__":
    sys.exit(main())

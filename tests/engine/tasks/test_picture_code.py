"""Pictures as code: the code is taken out of replies as models write them, and checked."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.replies.code import _fences
from qwen_vl_suite.qwenvl.tasks.describe import describe, known_styles
from qwen_vl_suite.qwenvl.tasks.picture_code import CODE_STYLES
from qwen_vl_suite.qwenvl.types import ReplyContext, Result

CONTEXT = ReplyContext(FAMILIES["qwen3_vl"], (500, 2000), (512, 2016))
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="UTF-8"><title>Muffins</title>
<style>.a > .b { color: #333; }</style></head>
<body><p>Was <s>12</s> now 9<ul><li>one<li>two</ul>
<button onclick="if (a > b) go('</div>')">Go</button><img src="a.png"><br>
<script>if (a < b && "<div>") { f(); }</script></body>
</html>"""
DRAWING = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">
  <circle cx="5" cy="5" r="4" fill="red"/>
</svg>"""
PUBLIC = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">"""
GRAPH = "graph TD\n    A[Start] --> B{Is it?}\n    B -->|Yes| C[OK]"
CELLS = '<mxGraphModel><root><mxCell id="0"/><mxCell id="1" parent="0"/></root></mxGraphModel>'


def read(style: str, reply: str, cut: bool = False) -> Result:
    return describe(style).parse(reply, replace(CONTEXT, cut=cut))


@pytest.mark.parametrize(
    ("style", "reply", "code"),
    [
        pytest.param("html", f"```html\n{PAGE}\n```", PAGE, id="a fence"),
        pytest.param("html", PAGE, PAGE, id="bare"),
        pytest.param("html", f"Here is the page, a <div> in a <body>:\n\n{PAGE}\n\nIt is modern.",
                     PAGE, id="bare, amid talk that names tags"),
        pytest.param("html", f"Sure!\n\n```HTML\n{PAGE}\n```\n\nI used `flex`.", PAGE, id="talk"),
        pytest.param("html", f"<think>A page.</think>```html\n{PAGE}\n```<|im_end|>", PAGE,
                     id="a thought"),
        pytest.param("html", f"```html\n{PAGE}", PAGE, id="a fence left open"),
        pytest.param("html", f"```html\n{PAGE}\n```\n<|im_end|>\n<|im_start|>user\n```html\n"
                     f"{PAGE}{PAGE}\n```", PAGE, id="a turn that the model made up"),
        pytest.param("html", f"```html{PAGE}```", PAGE, id="a fence in the lines of the code"),
        pytest.param("html", f"````html\n{PAGE}\n````", PAGE, id="four marks"),
        pytest.param("html", f"~~~html\n{PAGE}\n~~~", PAGE, id="tildes"),
        pytest.param("html", f"```markdown\n```html\n{PAGE}\n```\n```", PAGE, id="in a document"),
        pytest.param("html", f"```\n{PAGE}\n```", PAGE, id="no name"),
        pytest.param("html", "1. So:\n   ```html\n   <ul>\n     <li>a</li>\n   </ul>\n   ```",
                     "<ul>\n  <li>a</li>\n</ul>", id="indented as in a list"),
        pytest.param("html", f"So:\n```html\n<a href='#'>x</a>\n```\n```html\n{PAGE}\n```", PAGE,
                     id="the larger one"),
        pytest.param("html", f"```js\nf('<div>', 1, 2, 3){'// ...' * 99}\n```\n```html\n<p>a\n```",
                     "<p>a", id="the language, not the size"),
        pytest.param("svg", f"```svg\n{DRAWING}\n```", DRAWING, id="svg"),
        pytest.param("svg", f"```xml\n{DRAWING}\n```", DRAWING, id="svg called xml"),
        pytest.param("svg", f'So:\n<?xml version="1.0"?>\n{DRAWING}\nDone.',
                     f'<?xml version="1.0"?>\n{DRAWING}', id="bare svg"),
        pytest.param("svg", f"```html\n<html><body>{DRAWING}</body></html>\n```", DRAWING,
                     id="svg in a page"),
        pytest.param("svg", f"```svg\n{PUBLIC}\n{DRAWING}\n```", f"{PUBLIC}\n{DRAWING}",
                     id="a public document type"),
        pytest.param("mermaid", f"```mermaid\n{GRAPH}\n```", GRAPH, id="mermaid"),
        pytest.param("mermaid", f"```\n{GRAPH}\n```", GRAPH, id="mermaid without a name"),
        pytest.param("mermaid", f"The diagram:\n\n{GRAPH}\n\nThis chart shows a decision.", GRAPH,
                     id="bare mermaid"),
        pytest.param("mermaid", f"```mermaid\n---\ntitle: A\n---\n%% a note\n{GRAPH}\n```",
                     f"---\ntitle: A\n---\n%% a note\n{GRAPH}", id="front matter"),
        pytest.param("mermaid", "```mermaid\nsequenceDiagram\n    A->>B: Hi\n```",
                     "sequenceDiagram\n    A->>B: Hi", id="a sequence"),
        pytest.param("drawio", f"```xml\n{CELLS}\n```", CELLS, id="draw.io"),
        pytest.param("drawio", f"```xml\n<mxfile><diagram>{CELLS}</diagram></mxfile>\n```\nOpen it "
                     "in draw.io.", f"<mxfile><diagram>{CELLS}</diagram></mxfile>", id="mxfile"),
        pytest.param("drawio", f"Here: {CELLS}", CELLS, id="bare draw.io"),
    ],
)  # fmt: skip
def test_the_code_alone(style: str, reply: str, code: str) -> None:
    result = read(style, reply)
    assert result.text == code
    assert result.data == {"language": style, "well_formed": None if style == "mermaid" else True}
    assert not [note for note in result.notes if "well-formed" in note]


ENTITIES = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghij"))
BOMB = f'<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa">{ENTITIES}]>\n' + DRAWING.replace(
    "</svg>", "<text>&j;</text></svg>"
)


@pytest.mark.parametrize(
    ("style", "code", "problem"),
    [
        pytest.param("html", "<div>\n<span>a</div>", "<span> in line 2 is never", id="nested"),
        pytest.param("html", "<div>\n</div></div>", "</div> in line 2 has no", id="closed twice"),
        pytest.param("html", "<body><script>f()</body>", "<script> in line 1 is", id="a script"),
        pytest.param("html", "<p>a\n<!-- b <p>c", "the tag in line 2 is cut off", id="a comment"),
        pytest.param("html", '<a href="x>y</a>', "the tag in line 1 is cut off", id="a quote"),
        pytest.param("svg", DRAWING[:-7], "it ends before its last element", id="cut svg"),
        pytest.param("svg", DRAWING.replace('r="4"', "r=4"), "not well-formed", id="no quotes"),
        pytest.param("svg", DRAWING.replace("<svg xmlns=\"http://www.w3.org/2000/svg\"", "<svg"),
                     'no xmlns="http://www.w3.org/2000/svg"', id="no namespace"),
        pytest.param("svg", BOMB, "a document type of its own", id="entities"),
        pytest.param("svg", CELLS.replace("<root>", "<root><svg/>"), "<mxGraphModel>, not <svg>",
                     id="another root"),
        pytest.param("mermaid", "A --> B", "no kind of diagram", id="no diagram"),
        pytest.param("drawio", CELLS.replace('id="1" ', 'id="1" value="a & b" '), "not well-formed",
                     id="an ampersand"),
    ],
)  # fmt: skip
def test_code_that_is_not_well_formed_is_given_with_a_note(
    style: str, code: str, problem: str
) -> None:
    result = read(style, f"```{CODE_STYLES[style].language.tags[0]}\n{code}\n```")
    assert result.text == code
    assert result.data["well_formed"] is False
    (note,) = result.notes
    assert "is not well-formed: " in note and problem in note


def test_a_cut_reply_says_so() -> None:
    backend = ScriptedBackend(f"```html\n{PAGE}\n```")
    import torch

    settings = run.sampling_for(backend, describe("html"))
    assert (settings.temperature, settings.max_new_tokens) == (0.0, 8192)
    sampling = replace(settings, max_new_tokens=20)
    picture = torch.zeros(3, 64, 64, dtype=torch.uint8)
    (result,) = run.answer(backend, describe("html"), [picture], sampling=sampling)
    assert result.text.startswith("<!DOCTYPE html>") and "```" not in result.text
    assert "cut at 20 tokens" in result.notes[0] and "was cut off" in result.notes[1]


def test_further_code_is_named() -> None:
    result = read("html", "```html\n<p>a\n```\n```css\np {}\n```\n```js\nf()\n```\n```css\n```")
    assert result.text == "<p>a"
    assert result.notes == ("The reply has further code, which was left out: css, js.",)


@pytest.mark.parametrize(
    ("style", "reply", "message"),
    [
        ("svg", "I cannot draw this picture.", "no SVG code.*I cannot draw"),
        ("html", "```python\nprint(1)\n```", "no HTML code"),
        ("mermaid", "The graph shows a decision.", "no Mermaid code"),
        ("drawio", DRAWING, "no draw.io code"),
        ("html", " ", "answered nothing"),
        ("html", "<think>a <div>", "still thinking"),
    ],
)
def test_a_reply_without_code_is_unreadable(style: str, reply: str, message: str) -> None:
    with pytest.raises(UnreadableReply, match=message):
        read(style, reply)


@pytest.mark.parametrize("style", CODE_STYLES)
def test_the_styles_are_there_last(style: str) -> None:
    assert list(known_styles())[-len(CODE_STYLES) :] == list(CODE_STYLES)
    task = describe(style, system="Use blue.")
    assert (task.prompt, task.system, task.greedy) == (known_styles()[style], "Use blue.", True)
    assert describe(style, "What is it?").greedy is False


@pytest.mark.parametrize(
    ("fence", "is_one"),
    [("```", True), ("````", True), ("~~~~", True), ("``", False), ("```a`", False)],
)
def test_what_a_fence_is(fence: str, is_one: bool) -> None:
    (found,) = [code.body for code in _fences(f"{fence} svg\n<svg/>\n{fence}")] or [""]
    assert found == ("<svg/>" if is_one else "")


@pytest.mark.parametrize("marks", ["```", "`" * 100_000])
def test_a_long_line_that_is_no_fence_takes_no_longer_than_its_letters(marks: str) -> None:
    line = f"{marks}{'a' * 100_000}`"
    assert list(_fences(line)) == []

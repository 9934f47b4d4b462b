"""Pictures as code: a screenshot as HTML, a drawing as SVG, a diagram as Mermaid or draw.io XML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from ..errors import UnreadableReply
from ..replies import STILL_THINKING, extract_answer
from ..replies.code import DRAWIO, HTML, MERMAID, SVG, Language, find_code
from ..replies.syntax import SVG_NAMESPACE, html_problem, mermaid_problem, xml_problem
from ..types import ReplyContext, Result


@dataclass(frozen=True)
class CodeStyle:
    """A style of Describe whose answer is code. ``problem``: why code is not well-formed, or "".
    ``is_parsed``: whether that reads the whole of it."""

    prompt: str
    language: Language
    max_new_tokens: int
    problem: Callable[[str], str]
    is_parsed: bool = True


CODE_STYLES: Mapping[str, CodeStyle] = MappingProxyType(
    {
        "html": CodeStyle(
            "Analyze this screenshot and convert it to clean, functional and modern HTML code.",
            HTML,
            8192,
            html_problem,
        ),
        "svg": CodeStyle(
            "Convert this image to SVG code that can reproduce the image. Output only the code.",
            SVG,
            8192,
            partial(xml_problem, roots=("svg",), namespace=SVG_NAMESPACE),
        ),
        "mermaid": CodeStyle(
            "Convert this diagram image to Mermaid code that can reproduce the diagram. Output "
            "only the code.",
            MERMAID,
            4096,
            mermaid_problem,
            is_parsed=False,
        ),
        "drawio": CodeStyle(
            "Convert this diagram image to draw.io XML code that can reproduce the diagram. Output "
            "only the code.",
            DRAWIO,
            8192,
            partial(xml_problem, roots=("mxfile", "mxGraphModel")),
        ),
    }
)
"""Styles for code. The prompt for HTML is the model makers' own (``mmcode.ipynb`` of Qwen3-VL's
cookbooks), the others are worded after theirs for charts. Lengths in tokens: a page or a drawing
takes 2,000 to 6,000."""


def read_code(text: str, context: ReplyContext, style: str) -> Result:
    """The code in a reply to ``style``, a key of ``CODE_STYLES``, without its fence and the talk
    around it. Code that is cut off or not well-formed is given all the same, with a note.

    ``data``: ``language``, the style's name, and ``well_formed``; None where that cannot be told,
    as of Mermaid, for which there is no parser here. Raises ``UnreadableReply`` for a reply without
    such code.
    """
    asked = CODE_STYLES[style]
    answer = extract_answer(text, is_markup=True)
    code = find_code(answer, asked.language)
    title = asked.language.title
    if code is None:
        raise UnreadableReply(_complaint(answer, text, title), text)
    problem = asked.problem(code.text)
    notes = []
    if problem:
        cause = " It was cut off." if context.cut else ""
        notes.append(f"The {title} code is not well-formed: {problem}.{cause}")
    if code.others:
        others = ", ".join(code.others)
        notes.append(f"The reply has further code, which was left out: {others}.")
    well_formed = None if not (problem or asked.is_parsed) else not problem
    data = {"language": style, "well_formed": well_formed}
    return Result(text=code.text, data=data, notes=tuple(notes))


def _complaint(answer: str, text: str, title: str) -> str:
    if not answer:
        is_thinking = text.lstrip().startswith("<think>")
        return STILL_THINKING if is_thinking else "The model answered nothing."
    excerpt = answer if len(answer) <= 200 else f"{answer[:200]}…"
    return (
        f"The reply holds no {title} code. Try a larger model, or ask in a prompt of your own. The "
        f"model wrote: {excerpt}"
    )

"""Tool prompts: how models are told of a tool, each family in the form of its chat template."""

from __future__ import annotations

import json

from ..constraints import ONE_LINE
from ..types import Constraint, Family, Size
from .screen_tools import Tool

_CALL = '{"name": <function-name>, "arguments": <args-json-object>}'
# As Qwen2-VL to Qwen3-VL are given their tools.
_JSON_TOOLS = f"""# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
SIGNATURE
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{_CALL}
</tool_call>"""
# As Qwen3.5 and newer are.
_XML_TOOLS = """# Tools

You have access to the following functions:

<tools>
SIGNATURE
</tools>

If you choose to call a function ONLY reply in the following format with NO suffix:

<tool_call>
<function=example_function_name>
<parameter=example_parameter_1>
value_1
</parameter>
<parameter=example_parameter_2>
This is the value for the second parameter
that can span
multiple lines
</parameter>
</function>
</tool_call>

<IMPORTANT>
Reminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must \
be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the \
function call, but NOT after
- If there is no function call available, answer the question like normal with your current \
knowledge and do not tell the user about function calls
</IMPORTANT>"""
_MOST_PIXELS = 99_999  # of a screen's side
_RESPONSE = """# Response format

Response format for every step:
1) Thought: one concise sentence explaining the next move (no multi-step reasoning).
2) Action: a short imperative describing what to do in the UI.
3) A single <tool_call>...</tool_call> block{form}.

Rules:
- Output exactly in the order: Thought, Action, <tool_call>.
- Be brief: one sentence for Thought, one for Action.
- Do not output anything else outside those three parts.
- If finishing, use action=terminate in the tool call."""
_TOOLS = {
    "json": f"{_JSON_TOOLS}\n\n{_RESPONSE.format(form=f' containing only the JSON: {_CALL}')}",
    "xml": f"{_XML_TOOLS}\n\n{_RESPONSE.format(form='')}",
}


def instructions(tool: Tool, family: Family, input_size: Size) -> str:
    """What a model of ``family``, which sees the picture in ``input_size`` (height, width) pixels,
    is told of ``tool``, and in what form to answer. The screen measures what the family's
    coordinates do."""
    height, width = input_size
    if family.coordinates == "relative":
        width = height = family.box_scale
    return _TOOLS[family.tool_calls].replace("SIGNATURE", tool.signature(width, height))


def call_constraint(tool: Tool, strict: str, family: Family) -> Constraint | None:
    """What a reply of a model of ``family`` is held to, so that it calls ``tool`` in a form that
    can be read. ``strict``, one of ``constraints.STRICT``: ``auto`` from where the reply opens its
    call; ``on`` from its first token, so that it calls; ``off``: None. None too for families that
    write XML, whose texts no schema holds."""
    if strict == "off" or family.tool_calls != "json":
        return None
    largest = family.box_scale if family.coordinates == "relative" else _MOST_PIXELS
    schema = {"x-guidance": ONE_LINE, **tool.call_schema(largest)}
    words = r"/[^<{]{0,600}/ " if strict == "on" else ""
    start = f'start: {words}"<tool_call>" "\\n" call "\\n" "</tool_call>"'
    source = f"{start}\ncall: %json {json.dumps(schema)}\n"
    return Constraint("lark", source, ("<tool_call>",) if strict == "auto" else ())

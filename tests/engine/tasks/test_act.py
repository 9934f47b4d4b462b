"""Actions: asked for in the tools' own grammar, and read from replies as models write them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import torch
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend, tokenize
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption, UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.tasks.act import SCREENS, act
from qwen_vl_suite.qwenvl.tasks.screen_tools import TOOLS
from qwen_vl_suite.qwenvl.types import Point, ReplyContext, Result

# A phone's screen, 1080 by 2400, and as Qwen2.5-VL sees it.
CONTEXT = ReplyContext(FAMILIES["qwen3_vl"], (2400, 1080), (2400, 1088))
CONTEXT_25 = ReplyContext(FAMILIES["qwen2_5_vl"], (2400, 1080), (2408, 1092))
CLICK = '{"name": "mobile_use", "arguments": {"action": "click", "coordinate": [500, 250]}}'
LEFT = '{"name": "computer_use", "arguments": {"action": "left_click", "coordinate": [500, 250]}}'
XML = """<tool_call>
<function=computer_use>
<parameter=action>
left_click
</parameter>
<parameter=coordinate>
[500, 250]
</parameter>
</function>
</tool_call>"""


def read(reply: str, screen: str = "computer", context: ReplyContext = CONTEXT) -> Result:
    return act("Open the settings.", screen).parse(reply, context)


@pytest.mark.parametrize(
    ("screen", "reply", "action", "thought", "step"),
    [
        pytest.param("mobile", "Thought: The gear is at the top.\nAction: \"Tap the gear.\"\n"
                     f"<tool_call>\n{CLICK}\n</tool_call>",
                     "click", "The gear is at the top.", "Tap the gear.", id="as asked for"),
        pytest.param("computer", f"<tool_call>\n{LEFT}\n</tool_call>", "left_click", "", "",
                     id="the call alone"),
        pytest.param("computer", f"Thought: A.\nAction: B.\n{XML}", "left_click", "A.", "B.",
                     id="xml parameters"),
        pytest.param("computer", XML.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"),
                     "left_click", "", "", id="xml without the tag around"),
        pytest.param("computer", f"The gear opens it.\n<tool_call>{LEFT}", "left_click",
                     "The gear opens it.", "", id="plain words, the tag left open"),
        pytest.param("computer", f"**Thought:** A.\n**Action:** B.\n```json\n{LEFT}\n```",
                     "left_click", "A.", "B.", id="bold, in a fence"),
        pytest.param("computer", f"Action: B.\nThought: A.\n{LEFT}", "left_click", "A.", "B.",
                     id="the other way round"),
        pytest.param("computer", f"1) Thought: A.\n2) Action: B.\n3) {LEFT}", "left_click", "A.",
                     "B.", id="numbered"),
        pytest.param("mobile", f"思考：齿轮在上。\n操作：点齿轮。\n<tool_call>{CLICK}</tool_call>",
                     "click", "齿轮在上。", "点齿轮。", id="Chinese"),
        pytest.param("computer", f"<tool_call>\n{LEFT[:-1]}\n</tool_call>", "left_click", "", "",
                     id="a bracket too few"),
        pytest.param("computer", f"<tool_call>\n{LEFT}}}\n</tool_call>", "left_click", "", "",
                     id="a bracket too many"),
        pytest.param("computer", "<tool_call>\n{" + LEFT + "}\n</tool_call>", "left_click", "", "",
                     id="doubled brackets"),
        pytest.param("computer", '{"thought": "A.", "action": "left_click", "coordinate": '
                     "[500, 250]}", "left_click", "A.", "", id="arguments alone"),
        pytest.param("computer", '{"name": "left_click", "arguments": {"coordinate": [500, 250]}}',
                     "left_click", "", "", id="the action called as a tool"),
        pytest.param("computer", '{"type": "function", "function": {"name": "computer_use", '
                     '"arguments": "{\\"action\\": \\"left_click\\", \\"coordinate\\": '
                     '[500, 250]}"}}', "left_click", "", "", id="as a server writes it"),
        pytest.param("computer", LEFT.replace("left_click", "Left Click"), "left_click", "", "",
                     id="in another spelling"),
        pytest.param("computer", LEFT.replace("left_click", "click"), "left_click", "", "",
                     id="by the other tool's name"),
        pytest.param("computer", LEFT.replace("[500, 250]", '"(500, 250)"'), "left_click", "", "",
                     id="the place as text"),
        pytest.param("computer", LEFT.replace("[500, 250]", '{"x": 500, "y": 250}'), "left_click",
                     "", "", id="the place by name"),
        pytest.param("computer", LEFT.replace('"coordinate": [500, 250]', '"x": 500, "y": 250'),
                     "left_click", "", "", id="two numbers"),
        pytest.param("computer", LEFT.replace("[500, 250]", "[480, 240, 520, 260]"), "left_click",
                     "", "", id="a box"),
        pytest.param("computer", f"<think>Hm. {CLICK}</think>{LEFT}<|im_end|>", "left_click", "",
                     "", id="a call that was only thought of"),
    ],
)  # fmt: skip
def test_a_click(screen: str, reply: str, action: str, thought: str, step: str) -> None:
    result = read(reply, screen)
    assert result.data == {
        "thought": thought,
        "step": step,
        "name": f"{screen}_use",
        "action": action,
        "arguments": {"action": action, "coordinate": [540, 600]},
        "point_2d": [540, 600],
    }
    assert result.points == (Point(540, 600, action),)
    assert json.loads(result.text) == result.data
    assert result.notes == ()


@pytest.mark.parametrize(
    ("screen", "arguments", "expected"),
    [
        ("computer", {"action": "key", "keys": ["ctrl", "c"]}, {}),
        ("computer", {"action": "key", "keys": "ctrl+c"}, {"keys": ["ctrl", "c"]}),
        ("computer", {"action": "key", "keys": "+"}, {"keys": ["+"]}),
        ("computer", {"action": "key", "keys": "ctrl++"}, {"keys": ["ctrl", "+"]}),
        ("computer", {"action": "type", "text": "12"}, {}),
        ("computer", {"action": "scroll", "pixels": -300, "coordinate": [500, 500]},
         {"coordinate": [540, 1200]}),
        ("computer", {"action": "terminate", "status": "success"}, {}),
        ("computer", {"action": "answer", "text": "\u05e9\u05dc\u05d5\u05dd, 42 Â°"}, {}),
        ("computer", {"action": "left_click_drag", "coordinate": [0, 1000]},
         {"coordinate": [0, 2399]}),
        ("mobile", {"action": "swipe", "coordinate": [500, 800], "coordinate2": [500, 200]},
         {"coordinate": [540, 1920], "coordinate2": [540, 480]}),
        ("mobile", {"action": "system_button", "button": "Back"}, {}),
        ("mobile", {"action": "long_press", "coordinate": [1, 1], "time": 2},
         {"coordinate": [1, 2]}),
        ("mobile", {"action": "open", "text": "设置"}, {}),
        ("mobile", {"action": "wait", "time": 1.5}, {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "xml"])
def test_every_argument(
    screen: str, arguments: dict[str, Any], expected: dict[str, Any], form: str
) -> None:
    """The same from JSON and from XML, where all are text."""
    name = f"{screen}_use"
    if form == "json":
        call = json.dumps({"name": name, "arguments": arguments})
    else:
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in arguments.items()}
        inner = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in texts.items())
        call = f"<function={name}>\n{inner}</function>"
    result = read(f"<tool_call>\n{call}\n</tool_call>", screen)
    found = result.data["arguments"]
    assert found == {**arguments, **expected}
    assert len(result.points) == sum(key.startswith("coordinate") for key in arguments)
    assert result.data["point_2d"] == found.get("coordinate")
    jsonschema.validate(found, TOOLS[screen].schema())
    assert result.notes == ()


def test_pixels_of_the_resized_picture() -> None:
    reply = f"<tool_call>\n{CLICK.replace('[500, 250]', '[546, 602]')}\n</tool_call>"
    assert read(reply, "mobile", CONTEXT_25).data["point_2d"] == [540, 600]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("I cannot click anything.", "holds no action.*I cannot"),
        ("", "answered nothing"),
        ("<think>Where", "still thinking"),
        (LEFT[:-8], "holds no action"),
        (XML[: XML.index("250") + 2], "left_click has no coordinate"),
        ('{"name": "computer_use", "arguments": {"text": "a"}}', "names no action"),
        ('{"action": "left_click"}', "left_click has no coordinate"),
        ('{"action": "left_click", "coordinate": [500]}', "left_click has no coordinate"),
        ('{"action": "left_click", "coordinate": [1e999, 5]}', "has no coordinate"),
        ('{"action": "left_click", "coordinate": [1900, 500]}', "cannot be mapped.*0-1000"),
        ('{"name": "mobile_use", "arguments": {"action": "swipe", "coordinate": [1, 2]}}',
         "swipe has no coordinate2"),
    ],
)  # fmt: skip
def test_a_reply_without_an_action_is_unreadable(reply: str, message: str) -> None:
    with pytest.raises(UnreadableReply, match=message):
        read(reply)


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        ('{"action": "hover", "coordinate": [1, 2]}', "hover is no action of computer_use"),
        ('{"action": "wait"}', "wait says no time"),
        ('{"action": "wait", "time": "1e999"}', "wait says no time"),
        ('{"action": "terminate", "status": null}', "terminate says no status"),
        (f"<tool_call>{LEFT}</tool_call><tool_call>{CLICK}</tool_call>", "called 2 actions"),
    ],
)
def test_what_is_odd_is_noted(reply: str, note: str) -> None:
    result = read(reply)
    assert any(note in found for found in result.notes)
    assert result.data["name"] == "computer_use"


@pytest.mark.parametrize(
    "reply",
    [
        f"Thought: 2 gears.\n<tool_call>\n{LEFT}\n</tool_call>",
        XML,
        LEFT.replace("left_click", "click"),
        LEFT.replace("[500, 250]", "[480, 240, 520, 260]"),
    ],
)
def test_the_place_has_a_score(reply: str) -> None:
    """Of its own numbers and the action's name, as the model wrote them."""
    words = ("left", "_", "click")
    sure = [token.strip().isdigit() or token.strip() in words for token in tokenize(reply)]
    backend = ScriptedBackend(Reply(reply, logprobs=[-0.5 if own else -9.0 for own in sure]))
    picture = torch.zeros(3, 64, 64, dtype=torch.uint8)

    def told(**settings: Any) -> Result:
        (result,) = run.answer(backend, act("Open the settings.", **settings), [picture])
        return result

    scored = told(scores=True)
    assert scored.data["score"] == pytest.approx(0.6065, abs=1e-4)
    assert scored.points[0].score == pytest.approx(0.6065, abs=1e-4)
    assert told(min_score=0.6).data == scored.data
    left_out = told(min_score=0.7)
    assert (left_out.text, left_out.data, left_out.points) == ("[]", [], ())
    assert left_out.notes == ("The model's left_click was left out: its score is below 0.7.",)
    assert "score" not in told().data


def asked(family: str, screen: str, size: tuple[int, int], **settings: Any) -> tuple[str, str]:
    """System prompt and prompt that a model of the family gets."""
    backend = ScriptedBackend(LEFT.replace("[500, 250]", "[50, 25]"), family=family)
    picture = torch.zeros(3, *size, dtype=torch.uint8)
    run.answer(backend, act("Open the settings.", screen), [picture], **settings)
    (request,) = backend.requests
    assert request.sampling.temperature == 0
    return request.system, request.prompt


@pytest.mark.parametrize(
    ("family", "resolution"),
    [("qwen3_vl", "1000x1000"), ("qwen2_vl", "1000x1000"), ("qwen2_5_vl", "1092x2408")],
)
@pytest.mark.parametrize("screen", SCREENS)
def test_the_screen_measures_what_the_coordinates_do(
    family: str, resolution: str, screen: str
) -> None:
    system, prompt = asked(family, screen, (2400, 1080))
    head, _, rest = system.partition("<tools>\n")
    signature = json.loads(rest.partition("\n</tools>")[0])["function"]
    assert head.startswith("You are a helpful assistant.\n\n# Tools\n\nYou may call one or more")
    assert signature["name"] == f"{screen}_use"
    assert f"The screen's resolution is {resolution}.\n" in signature["description"]
    assert signature["parameters"]["properties"]["action"]["enum"] == list(TOOLS[screen].actions)
    assert '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>' in rest
    assert rest.endswith("- If finishing, use action=terminate in the tool call.")
    assert "Open the settings." in prompt


def test_the_resolution_follows_the_bounds_on_the_picture() -> None:
    bounds = {"max_pixels": 28 * 28 * 100}
    system, _ = asked("qwen2_5_vl", "computer", (2400, 1080), **bounds)
    assert "The screen's resolution is 168x392." in system


def test_newer_families_are_asked_for_xml() -> None:
    system, _ = asked("qwen3_5", "computer", (100, 100), system="Be quick.")
    assert system.startswith("Be quick.\n\n# Tools\n\nYou have access to the following functions:")
    assert "<function=example_function_name>" in system and "containing only" not in system


def test_a_picture_that_no_model_can_be_shown_costs_only_itself() -> None:
    task = act("Open it.")
    backend = ScriptedBackend('{"action": "wait", "time": 1}', family="qwen2_5_vl")
    pictures = [torch.zeros(3, *size, dtype=torch.uint8) for size in ((1, 900), (64, 64))]
    with pytest.raises(BadImage, match="1 of 2"):
        run.answer(backend, task, pictures)
    queries = [run.Query(task, picture, keep_unreadable=True) for picture in pictures]
    narrow, square = run.answer_all(backend, queries)
    assert narrow.error and square.data["action"] == "wait"


@pytest.mark.parametrize(
    "goal",
    [
        pytest.param("打开设置", id="Chinese"),
        pytest.param("افتح الإعدادات", id="Arabic"),
        pytest.param("\u202bלחץ על Save\u202c", id="Hebrew with directions and Latin"),
        pytest.param("a" * 20_000, id="very long"),
        pytest.param('{x} "</tools>" {0} {goal}', id="brackets"),
        pytest.param("one\n\ntwo", id="paragraphs"),
    ],
)
@pytest.mark.parametrize("screen", SCREENS)
def test_any_goal_is_told_as_it_is(goal: str, screen: str) -> None:
    assert goal in act(f" {goal}\n", screen).prompt
    act(f"{goal}\ud83d", screen).prompt.encode()


def test_bad_options_of_act() -> None:
    with pytest.raises(BadOption, match="No goal"):
        act(" \n")
    with pytest.raises(BadOption, match=r"'tv'.*computer, mobile"):
        act("Open it.", "tv")

"""Tasks: their prompts, and parsing from the raw reply to results in pixels."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from qwen_vl_suite.qwenvl.errors import BadOption, UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.tasks import ground as grounding
from qwen_vl_suite.qwenvl.tasks.describe import describe, known_styles
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.tasks.ocr import LANGUAGES, OUTPUTS, ocr, read_any
from qwen_vl_suite.qwenvl.types import Box, Point, ReplyContext

CONTEXT = ReplyContext(FAMILIES["qwen3_vl"], (500, 2000), (512, 2016))
CUT = replace(CONTEXT, cut=True)
CONTEXT_25 = ReplyContext(FAMILIES["qwen2_5_vl"], (766, 507), (1540, 1008))


# Describe


def test_a_custom_prompt_replaces_the_style() -> None:
    own = describe("tags", "  How many cats?\n", system="Count.")
    assert (own.prompt, own.system, own.greedy) == ("How many cats?", "Count.", False)
    assert own.parse("```\n1, 1\n```", CONTEXT).text == "```\n1, 1\n```"
    assert describe("tags", "   ").prompt == known_styles()["tags"]


def test_styles_have_different_prompts() -> None:
    assert len(set(known_styles().values())) == len(known_styles())
    assert describe().prompt == known_styles()["detailed"]
    with pytest.raises(BadOption, match=r"'poem'.*short, detailed"):
        describe("poem")


@pytest.mark.parametrize(
    ("style", "reply", "text"),
    [
        pytest.param("short", " A cat.\n", "A cat.", id="stripped"),
        pytest.param("short", '"A cat."', "A cat.", id="quotes around it"),
        pytest.param("short", "“A cat.”", "A cat.", id="curly quotes"),
        pytest.param("short", '"Cats" and "dogs"', '"Cats" and "dogs"', id="quotes in it"),
        pytest.param("short", "```text\nA cat\non a mat.\n```", "A cat on a mat.", id="a fence"),
        pytest.param("title", "**Title:** The Cat", "The Cat", id="a heading"),
        pytest.param("title", "**The Cat**", "The Cat", id="bold"),
        pytest.param("prompt", 'Prompt: "a cat, soft light"', "a cat, soft light", id="both"),
        pytest.param("prompt", "prompt engineering: a cat", "prompt engineering: a cat", id="none"),
        pytest.param("detailed", "A cat.\n\nA mat.", "A cat.\n\nA mat.", id="paragraphs stay"),
        pytest.param("detailed", "```\nA cat.\n```", "A cat.", id="a fence around paragraphs"),
        pytest.param("tags", "cat, Mat,cat , soft light.", "cat, Mat, soft light", id="tags"),
        pytest.param("tags", "- cat\n- mat\n* #light", "cat, mat, light", id="a list"),
        pytest.param("tags", "1. cat\n2. mat", "cat, mat", id="a numbered list"),
        pytest.param("tags", "Tags: cat、mat，light", "cat, mat, light", id="Chinese commas"),
        pytest.param(
            "prompt_tags",
            "1girl, (red hat:1.2), 3.5mm",
            "1girl, (red hat:1.2), 3.5mm",
            id="weights",
        ),
        pytest.param("short", "<think>hm</think>A cat.<|im_end|>", "A cat.", id="a thought before"),
        pytest.param(
            "tags", "Here are the tags for this image:\ncat, mat", "cat, mat", id="talk of tags"
        ),
        pytest.param("tags", "**Tags for this image:**\ncat, mat", "cat, mat", id="a long heading"),
        pytest.param("short", "Sure, here is a description: A cat.", "A cat.", id="talk"),
        pytest.param(
            "short", "Sure! Here’s a caption:\n\n“A cat.”", "A cat.", id="talk and quotes"
        ),
        pytest.param(
            "prompt",
            "Here is a text-to-image prompt to recreate this image:\n```\na cat\n```",
            "a cat",
            id="talk and a fence",
        ),
        pytest.param(
            "detailed",
            "Here is a detailed, vivid description of the image:\n\nA cat.\n\nA mat.",
            "A cat.\n\nA mat.",
            id="talk before paragraphs",
        ),
        pytest.param(
            "short", "Here is a cat: it sleeps.", "Here is a cat: it sleeps.", id="no talk"
        ),
        pytest.param(
            "short",
            "This is a book with the title: Dune",
            "This is a book with the title: Dune",
            id="a title in the picture",
        ),
        pytest.param("title", "Title of the Book: Dune", "Title of the Book: Dune", id="a book"),
        pytest.param("short", "<answer>A cat.</answer>", "A cat.", id="answer tags"),
        pytest.param("", "<answer>A cat.", "A cat.", id="answer tags, own prompt"),
        pytest.param("", "Use <answer> tags", "Use <answer> tags", id="words of answer tags"),
        pytest.param("short", '{"caption": "A cat."}', "A cat.", id="a caption in JSON"),
        pytest.param("", '{"caption": "A cat."}', '{"caption": "A cat."}', id="JSON asked for"),
        pytest.param(
            "detailed",
            '```json\n[{"description": "A\\n\\ncat."}]\n```',
            "A\n\ncat.",
            id="fenced JSON",
        ),
        pytest.param("short", 'A cat: {"a": 1}', 'A cat: {"a": 1}', id="JSON in a caption"),
        pytest.param("tags", '["cat", "mat"]', "cat, mat", id="a JSON list of tags"),
        pytest.param("tags", '```json\n{"tags": ["cat", ";)"]}\n```', "cat, ;)", id="tags in JSON"),
        pytest.param("tags", "1girl, ;), ^_^, -_-, ._.", "1girl, ;), ^_^, -_-, ._.", id="smileys"),
        pytest.param("tags", "cat; mat; soft light", "cat, mat, soft light", id="semicolons"),
        pytest.param("tags", "#cat #mat", "cat, mat", id="hash tags"),
        pytest.param("tags", "cat;mat", "cat, mat", id="semicolons without blanks"),
        pytest.param("short", '{"Caption": ["A cat."]}', "A cat.", id="a caption in a list"),
        pytest.param("tags", "**cat**, `mat`, 'hat'", "cat, mat, hat", id="tags in marks"),
        pytest.param("short", "A cat.<|im_end|>\n<|im_start|>user\nAnd?", "A cat.", id="runs on"),
        pytest.param("", "A cat.<|endoftext|>Human: And?", "A cat.", id="runs on, own prompt"),
        pytest.param("", "It says </think> there.", "It says </think> there.", id="words of tags"),
    ],
)
def test_descriptions(style: str, reply: str, text: str) -> None:
    task = describe(style) if style else describe(prompt="What is it?")
    assert task.parse(reply, CONTEXT).text == text


@pytest.mark.parametrize("reply", ["", " \n", "```\n```", '""'])
@pytest.mark.parametrize("style", ["short", "tags"])
def test_an_empty_description_has_a_note(style: str, reply: str) -> None:
    result = describe(style).parse(reply, CONTEXT)
    assert (result.text, result.notes) == ("", ("The model answered nothing.",))


@pytest.mark.parametrize("style", ["short", "tags"])
def test_thinking_without_an_answer_is_an_error(style: str) -> None:
    with pytest.raises(UnreadableReply, match="still thinking") as caught:
        describe(style).parse("<think>hm", CONTEXT)
    assert caught.value.raw == "<think>hm"


# Ground


@pytest.mark.parametrize(
    ("find", "question"),
    [
        pytest.param("cat", 'following categories: "cat". Report', id="one"),
        pytest.param(
            "cat, red car,dog", 'following categories: "cat, red car, dog". Report', id="list"
        ),
        pytest.param("猫，狗", 'following categories: "猫, 狗". Report', id="Chinese comma"),
        pytest.param("cat\ndog\n", 'following categories: "cat, dog". Report', id="lines"),
        pytest.param("cat, cat,, ", 'following categories: "cat". Report', id="said twice"),
        pytest.param('"cat", "dog"', 'following categories: "cat, dog". Report', id="quoted"),
        pytest.param('the "big" cat, dog', "\"the 'big' cat, dog\". Report", id="quotes inside"),
        pytest.param("the person on the left", "Locate the person on the left in", id="phrase"),
        pytest.param("person with a hat.", "Locate person with a hat in the image. Rep", id="long"),
    ],
)
def test_grounding_prompts(find: str, question: str) -> None:
    prompt = ground(find).prompt
    assert prompt.startswith("Locate ") and question in prompt
    assert prompt.endswith(" Report bbox coordinates in JSON format.")
    assert "\n" not in prompt
    assert ground(find, "points").prompt.endswith("Output the point coordinates in JSON format.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"find": ""}, "Nothing to find"),
        ({"find": " ,\n ; "}, "Nothing to find"),
        ({"find": "cat", "kind": "masks"}, "'masks'.*boxes, points"),
        ({"find": "cat", "max_count": -1}, "-1"),
    ],
)
def test_bad_options_of_ground(options: dict, message: str) -> None:
    with pytest.raises(BadOption, match=message):
        ground(**options)


REPLY = """```json
[
    {"bbox_2d": [100, 200, 300, 400], "label": "cat", "color": "black"},
    {"bbox_2d": [500, 0, 1003, 999], "label": "dog"},
    {"bbox_2d": [500, 0, 1003, 999], "label": "dog"},
    {"bbox_2d": [7, 7, 7, 90], "label": "line"}
]
```"""
CAT, DOG = Box(200, 100, 600, 200, "cat"), Box(1000, 0, 2000, 499.5, "dog")


def test_boxes_are_in_pixels_without_duplicates_or_empty_ones() -> None:
    result = ground("cat, dog").parse(REPLY, CONTEXT)
    assert result.boxes == (CAT, DOG) and result.points == ()
    told = [
        {"bbox_2d": [200, 100, 600, 200], "label": "cat"},
        {"bbox_2d": [1000, 0, 2000, 500], "label": "dog"},
    ]
    assert json.loads(result.text) == told
    assert result.data == [{"color": "black", **told[0]}, told[1]]


def test_boxes_of_a_family_with_absolute_coordinates() -> None:
    result = ground("cat").parse(
        '[{"bbox_2d": [504, 770, 1008, 1540], "label": "cat"}]', CONTEXT_25
    )
    assert result.boxes == (Box(253.5, 383, 507, 766, "cat"),)


def test_the_same_box_in_every_familys_coordinates() -> None:
    for family in FAMILIES.values():
        context = ReplyContext(family, (500, 2000), (250, 1000))
        values = "100,200,300,400" if family.coordinates == "relative" else "100,50,300,100"
        x1, y1, x2, y2 = values.split(",")
        for reply in (
            f'[{{"bbox_2d": [{values}], "label": "cat"}}]',
            f"<ref>cat</ref><box>({x1},{y1}),({x2},{y2})</box>",
        ):
            assert ground("cat, dog").parse(reply, context).boxes == (CAT,), family.model_type


def test_max_count_keeps_the_first() -> None:
    assert ground("cat, dog", max_count=1).parse(REPLY, CONTEXT).boxes == (CAT,)
    assert len(ground("cat, dog", max_count=0).parse(REPLY, CONTEXT).boxes) == 2
    assert len(ground("cat, dog", max_count=9).parse(REPLY, CONTEXT).boxes) == 2


def test_a_single_name_labels_items_without_a_label() -> None:
    reply = "[100, 200, 300, 400]"
    assert ground("red cat").parse(reply, CONTEXT).boxes[0].label == "red cat"
    assert ground("cat, dog").parse(reply, CONTEXT).boxes[0].label == ""
    assert grounding.read(reply, CONTEXT).boxes[0].label == ""


def test_points() -> None:
    task = ground("nose", "points")
    result = task.parse('[{"point_2d": [500, 1000], "label": "nose"}]', CONTEXT)
    assert result.points == (Point(1000, 500, "nose"),) and result.boxes == ()
    assert json.loads(result.text) == [{"point_2d": [1000, 499], "label": "nose"}]


def test_boxes_become_their_centres_when_points_are_asked_for() -> None:
    result = ground("cat, dog", "points").parse(REPLY, CONTEXT)
    assert result.points == (
        Point(400, 150, "cat"),
        Point(1500, 249.75, "dog"),
        Point(14, 24.25, "line"),  # without area, it still says where
    )
    assert result.boxes == ()


def test_points_are_no_boxes() -> None:
    with pytest.raises(UnreadableReply, match="points where boxes"):
        ground("nose").parse('[{"point_2d": [500, 1000], "label": "nose"}]', CONTEXT)


@pytest.mark.parametrize("kind", ["boxes", "points"])
def test_nothing_found(kind: str) -> None:
    task = ground("cat", kind)
    for reply in ("[]", "None found.", "There are no cats, but there is a dog."):
        result = task.parse(reply, CONTEXT)
        assert (result.text, result.boxes, result.points, result.data) == ("[]", (), (), [])
    for reply in ("A cat sits there.", "", "There are no dogs. The cat is on the left."):
        with pytest.raises(UnreadableReply):
            task.parse(reply, CONTEXT)


def test_a_score_written_by_the_model_is_data_only() -> None:
    result = ground("cat").parse(
        '[{"bbox_2d": [100, 200, 300, 400, 0.9], "label": "cat"}]', CONTEXT
    )
    assert result.boxes == (CAT,) and result.boxes[0].score is None
    assert result.data == [{"bbox_2d": [200, 100, 600, 200], "label": "cat", "score": 0.9}]


@pytest.mark.parametrize("kind", ["boxes", "points"])
@pytest.mark.parametrize(
    "reply",
    [
        '[{"bbox_2d": [0, 0, 0, 0], "label": "none"}]',
        '[{"bbox_2d": [0, 0, 0, 0], "label": "cat"}]',
        '[{"bbox_2d": [728, 0, 864, 0], "label": "none"}]',
        '[{"bbox_2d": [-1, -1, -1, -1], "label": "cat"}]',
    ],
)
def test_placeholder_coordinates_are_nothing_found(reply: str, kind: str) -> None:
    result = ground("cat", kind).parse(reply, CONTEXT)
    assert (result.text, result.boxes, result.points, result.notes) == ("[]", (), (), ())


OUTSIDE = '{"bbox_2d": [1920, 100, 2400, 300], "label": "far"}'
OVER = '{"bbox_2d": [500, 500, 1500, 1010], "label": "over"}'
NEAR = '{"bbox_2d": [500, 500, 1015, 990], "label": "near"}'


def test_a_box_beyond_the_edge_is_clamped_with_a_note() -> None:
    result = ground("it").parse(f"[{OVER}, {NEAR}]", CONTEXT)
    assert result.boxes == (Box(1000, 250, 2000, 500, "over"), Box(1000, 250, 2000, 495, "near"))
    assert [entry.get("outside") for entry in result.data] == [0.5, None]
    (note,) = result.notes
    assert "1 of 2 boxes" in note and "50%" in note and "scale" in note
    assert ground("it").parse(f"[{NEAR}]", CONTEXT).notes == ()


def test_a_box_outside_is_reported_and_the_others_are_kept() -> None:
    result = ground("it").parse(f"[{OUTSIDE}, {NEAR}]", CONTEXT)
    assert [box.label for box in result.boxes] == ["near"]
    assert any("far [1920, 100, 2400, 300]" in note for note in result.notes)
    points = '[{"point_2d": [1050, 5], "label": "far"}, {"point_2d": [1015, 5], "label": "near"}]'
    result = ground("it", "points").parse(points, CONTEXT)
    assert result.points == (Point(2000, 2.5, "near"),)
    assert any("far [1050, 5]" in note for note in result.notes)


@pytest.mark.parametrize(
    ("kind", "reply", "reason"),
    [
        ("boxes", f"[{OUTSIDE}]", "0-1000 along each side"),
        ("points", f"[{OUTSIDE}]", "scale"),
        ("points", '[{"point_2d": [1500, 900], "label": "dots"}]', "dots .1500, 900.*scale"),
        ("points", "(5, -30)", "scale"),
        ("boxes", '[{"bbox_2d": [5, 5, 5, 90], "label": "line"}]', "width and a height"),
        ("boxes", "[1000, 5, 1200, 90]", "scale"),
        ("boxes", '{"bbox_2d": [-90, 5, -1, 90]}', "scale"),
    ],
)
def test_coordinates_that_cannot_be_mapped_are_unreadable_rather_than_empty(
    kind: str, reply: str, reason: str
) -> None:
    with pytest.raises(UnreadableReply, match=reason) as caught:
        ground("it", kind).parse(reply, CONTEXT)
    assert caught.value.raw == reply


def test_pixels_outside_the_models_input_are_unreadable() -> None:
    with pytest.raises(UnreadableReply, match="pixels of 1008x1540"):
        ground("it").parse('[{"bbox_2d": [1100, 5, 1200, 90]}]', CONTEXT_25)


def test_lines_outside_are_unreadable_but_a_document_keeps_its_text() -> None:
    outside = '[{"bbox_2d": [1920, 100, 2400, 300], "text_content": "TOTAL"}]'
    with pytest.raises(UnreadableReply, match=r"TOTAL .1920"):
        ocr("lines").parse(outside, CONTEXT)
    both = f'{outside[:-1]}, {{"bbox_2d": [100, 200, 300, 400], "text_content": "5,00"}}]'
    result = ocr("lines").parse(both, CONTEXT)
    assert (result.text, [box.label for box in result.boxes]) == ("TOTAL\n5,00", ["5,00"])
    assert "TOTAL [1920" in result.notes[0]
    page = '<p data-bbox="1920 100 2400 300">TOTAL</p><p data-bbox="500 500 1500 900">b</p>'
    result = ocr("html").parse(page, CONTEXT)
    assert result.text == '<p>TOTAL</p><p data-bbox="1000 250 2000 450">b</p>'
    assert [entry["outside"] for entry in result.data] == [0.5] and len(result.notes) == 2
    marked = ocr("markdown").parse("A\n<!-- Image (500, 500, 1500, 900) -->", CONTEXT)
    assert marked.text == "A\n<!-- Image (1000, 250, 2000, 450) -->" and len(marked.notes) == 1


def test_non_finite_numbers_become_null() -> None:
    reply = '[{"bbox_2d": [1, 2, 3, 4], "a": 1e999, "b": [NaN, -1e999], "c": 1.5,}]'
    data = ground("it").parse(reply, CONTEXT).data
    assert json.loads(json.dumps(data, allow_nan=False))[0] | {"a": None} == data[0]
    assert data[0]["b"] == [None, None] and data[0]["c"] == 1.5


# OCR


def test_ocr_prompts_are_the_model_makers() -> None:
    assert {name: ocr(name).prompt for name in OUTPUTS} == {
        "plain": "Read all the text in the image.",
        "markdown": "qwenvl markdown",
        "html": "QwenVL HTML",
        "lines": "Spotting all the text in the image with line-level, and output in JSON format.",
    }
    assert all(ocr(name).greedy for name in OUTPUTS)


def test_language() -> None:
    assert LANGUAGES[0] == "auto"
    assert ocr("plain", "auto").prompt == ocr("plain", " ").prompt == OUTPUTS["plain"]
    prompt = ocr("lines", "Old\nNorse ").prompt
    assert prompt == f"{OUTPUTS['lines']} The text in the image is in Old Norse."


def test_bad_output() -> None:
    with pytest.raises(BadOption, match=r"'word'.*plain, markdown, html, lines"):
        ocr("word")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        pytest.param("TOTAL\n 5,00\n", "TOTAL\n 5,00", id="lines stay"),
        pytest.param("```\nTOTAL\n```", "TOTAL", id="a fence"),
        pytest.param("", "", id="nothing"),
        pytest.param("No text found.", "", id="none"),
        pytest.param("There is no text in the image. It shows a cat.", "", id="none, and more"),
        pytest.param("The image doesn’t contain any readable text.", "", id="none in other words"),
        pytest.param("图片中没有文字。", "", id="none in Chinese"),
        pytest.param("NO PARKING", "NO PARKING", id="a sign that says no"),
        pytest.param("No text or calls while driving", "No text or calls while driving", id="sign"),
        pytest.param("The image contains text: STOP", "The image contains text: STOP", id="some"),
        pytest.param("None found.", "", id="none found"),
        pytest.param("There is no text.", "", id="none, and no more words"),
        pytest.param("No text or writing is visible in this picture.", "", id="none of two"),
        pytest.param("I can't see any text to read.", "", id="nothing to read"),
        pytest.param("图中没有可见的文字，只有一只猫。", "", id="none in Chinese, and more"),
        *(
            pytest.param(read, read, id=f"read: {read[:12]}")
            for read in (
                "NONE",
                "No text",
                "NO WORDS PRESENT",
                "NO TEXT FOUND.",
                "There is no text messaging while driving.\nFINE $200",
                "There is no text messaging while driving.",
                "The document contains no letters of credit.\nTotal 500",
                "No text found.\nTotal 500",
                "没有文字的书",
            )
        ),
    ],
)
def test_plain_and_markdown(reply: str, text: str) -> None:
    for output in ("plain", "markdown"):
        result = ocr(output).parse(reply, CONTEXT)
        assert (result.text, result.boxes) == (text, ())


LINES = """[
    {"bbox_2d": [100, 200, 300, 400], "text_content": "TOTAL",},
    {"bbox_2d": [500, 0, 500, 999], "text_content": "5,00",},
    {"bbox_2d": [100, 200, 300, 400], "text_content": "TOTAL",},
]"""


def test_lines() -> None:
    result = ocr("lines").parse(LINES, CONTEXT)
    assert result.text == "TOTAL\n5,00"
    assert result.boxes == (Box(200, 100, 600, 200, "TOTAL"),)
    assert [entry["bbox_2d"] for entry in result.data] == [[200, 100, 600, 200]]
    tagged = ocr("lines").parse("<ref>TOTAL</ref><box>(100,200),(300,400)</box>", CONTEXT)
    assert tagged.boxes == result.boxes


def test_lines_without_a_box_keep_their_text() -> None:
    reply = """[{"bbox_2d": null, "text_content": "A"}, {"text_content": "B"},
        {"bbox_2d": [100, 200, 300, 400], "text_content": "TOTAL"}]"""
    result = ocr("lines").parse(reply, CONTEXT)
    assert (result.text, [box.label for box in result.boxes]) == ("A\nB\nTOTAL", ["TOTAL"])
    assert ocr("lines").parse('[{"bbox_2d": [], "label": "A"}]', CONTEXT).text == "A"


@pytest.mark.parametrize(
    "reply",
    ['[{"bbox_2d": [562, 0, 8', "There is no text messaging while driving.\nFINE $200", "NO TURNS"],
)
def test_unreadable_lines_are_no_empty_page(reply: str) -> None:
    with pytest.raises(UnreadableReply, match="no lines"):
        ocr("lines").parse(reply, CONTEXT)


@pytest.mark.parametrize("reply", ["[]", "No text found.", "None found.", "None", "", "没有文字"])
def test_a_picture_without_text_has_no_lines(reply: str) -> None:
    result = ocr("lines").parse(reply, CONTEXT)
    assert (result.text, result.boxes, result.data) == ("", (), [])


def test_lines_without_boxes_are_unreadable() -> None:
    with pytest.raises(UnreadableReply):
        ocr("lines").parse("TOTAL\n5,00", CONTEXT)


HTML = """<html><body>
<h2 data-bbox="100 200 300 400">Report &amp; more</h2>
<div class="image" data-bbox="500 0 1003 999"><img data-bbox="500 0 1003 999"/></div>
<p data-bbox="5 5 5 5">no place</p>
</body></html>"""


def test_html() -> None:
    result = ocr("html").parse(f"Here it is:\n```html\n{HTML}\n```", CONTEXT)
    assert result.boxes == (
        Box(200, 100, 600, 200, "Report & more"),
        Box(1000, 0, 2000, 499.5, "image"),
    )
    assert result.text == HTML.replace("100 200 300 400", "200 100 600 200").replace(
        "500 0 1003 999", "1000 0 2000 500"
    ).replace(' data-bbox="5 5 5 5"', "")
    assert result.data[0] == {
        "bbox_2d": [200, 100, 600, 200],
        "kind": "h2",
        "text": "Report & more",
        "html": "Report &amp; more",
    }


@pytest.mark.parametrize("length", range(1, 46))
def test_a_cut_off_tag_leaves_no_coordinates_in_the_models_space(length: int) -> None:
    cut = '\n<div class="text" data-bbox="100 200 300 400">'[:length]
    result = ocr("html").parse(f'<p data-bbox="5 5 50 50">a</p>{cut}', CUT)
    assert result.text == '<p data-bbox="10 2 100 25">a</p>'
    assert len(result.boxes) == 1
    for end in range(1, 20):
        assert ocr("markdown").parse("a\n<!-- Image (100, 2"[: 1 + end], CUT).text == "a"


def test_a_document_may_contain_code_fences() -> None:
    page = '<p data-bbox="5 5 50 50">use ```x``` here</p>\n<p data-bbox="5 5 50 60">b</p>'
    assert [b.label for b in ocr("html").parse(f"```html\n{page}\n```", CONTEXT).boxes] == [
        "use ```x``` here",
        "b",
    ]


def test_lines_may_follow_a_sentence() -> None:
    for reply in (f"Here they are:\n```json\n{LINES}\n```", f"{LINES}<|im_end|>"):
        assert read_any(reply, CONTEXT).text == "TOTAL\n5,00"


def test_html_in_its_declared_size() -> None:
    # The size in the reply, not that of the request, is what its boxes are in.
    context = ReplyContext(CONTEXT_25.family, CONTEXT_25.image_size, (28, 28))
    reply = '1540 1008\n```html\n<p data-bbox="504 770 1008 1540">a</p>\n```'
    for task in (ocr("html"), ocr("markdown")):
        assert "1540" not in task.parse(reply, context).text
    assert ocr("html").parse(reply, context).boxes == (Box(253.5, 383, 507, 766, "a"),)
    assert ocr("lines").parse(reply, context).boxes == (Box(253.5, 383, 507, 766, "a"),)


@pytest.mark.parametrize(
    "words",
    [
        "Condition: x<y",
        "if d<dmax then\nstop\nelse\ngo",
        "From: Ann Lee <ann@example.com>",
        "List<String> and Map<K, V>",
        "vector<int> a <b and c",
        "a <b",
        "#include <stdio.h>",
        "1 < 2 > 0 << 3 <- x <= y",
        "<|file|> <T> <3 </ <",
        "see <https://example.com/a?b=c>",
        "List<I> x; Vec<Label> and Iterator<Path>",
        "cp <source> <dest> --label <label> -t <time>",
        "<title> by <author>, <address>",
    ],
)
def test_angle_brackets_that_are_no_tags_are_text(words: str) -> None:
    for output in ("plain", "markdown"):
        assert ocr(output).parse(words, CONTEXT).text == words
    page = f'<div class="text" data-bbox="5 5 50 50">{words}</div>'
    result = ocr("html").parse(page, CONTEXT)
    told = " ".join(words.split())
    assert (result.data[0]["html"], result.boxes[0].label) == (words, told)
    open_end = ocr("html").parse(page.removesuffix("</div>"), CONTEXT)
    assert (open_end.data[0]["html"], open_end.boxes[0].label) == (words, told)
    (block,) = ocr("html").parse(f"{page}<p>after</p>", CONTEXT).data
    assert block["html"] == words


@pytest.mark.parametrize("tail", ["x<y", "a <b and the rest of the page", "vec<int", "List<String"])
def test_a_cut_reply_loses_only_its_unfinished_tag(tail: str) -> None:
    assert ocr("markdown").parse(f"one\n{tail}", CUT).text == f"one\n{tail}"
    for tag in ("<", "<t", "<td", "</td", '<td class="a', "<td cla", "<!-- Image", "<br/"):
        assert ocr("markdown").parse(f"one\n{tag}", CUT).text == "one"


def test_prose_is_no_html() -> None:
    with pytest.raises(UnreadableReply, match="output plain"):
        ocr("html").parse("TOTAL 5,00", CONTEXT)
    assert ocr("html").parse("No text found.", CONTEXT).text == ""
    assert ocr("html").parse("None", CONTEXT).text == ""
    assert ocr("html").parse("<html><body></body></html>", CONTEXT).boxes == ()


def test_markdown_with_pictures_and_their_boxes() -> None:
    reply = "```markdown\n# A\n<!-- Image (100, 200, 300, 400) -->\n<!-- note -->\n| a |\n```"
    result = ocr("markdown").parse(reply, CONTEXT)
    assert result.text == "# A\n<!-- Image (200, 100, 600, 200) -->\n<!-- note -->\n| a |"
    assert result.boxes == (Box(200, 100, 600, 200, "image"),)


@pytest.mark.parametrize("output", OUTPUTS)
def test_thinking_that_never_ends_is_no_empty_page(output: str) -> None:
    with pytest.raises(UnreadableReply, match="thinking"):
        ocr(output).parse("<think>Let me read", CONTEXT)


@pytest.mark.parametrize(
    ("reply", "text", "labels"),
    [
        pytest.param(LINES, "TOTAL\n5,00", ["TOTAL"], id="lines"),
        pytest.param(f"```json\n{LINES}\n```", "TOTAL\n5,00", ["TOTAL"], id="fenced lines"),
        pytest.param('<p data-bbox="5 5 6 6">a</p>', None, ["a"], id="HTML"),
        pytest.param("# A", "# A", [], id="Markdown"),
        pytest.param("No text found.", "", [], id="none"),
        pytest.param("[]", "", [], id="an empty list"),
        pytest.param("```json\n[]\n```", "", [], id="a fenced empty list"),
        pytest.param("[Chorus]\nHello", "[Chorus]\nHello", [], id="words in brackets"),
        pytest.param("[1] first\n[2] second", "[1] first\n[2] second", [], id="footnotes"),
        pytest.param("[ ] milk\n[ ] eggs", "[ ] milk\n[ ] eggs", [], id="boxes to tick"),
        pytest.param('{"total": "5,00"}', '{"total": "5,00"}', [], id="JSON of something else"),
        pytest.param(
            '{"primary_language": "en", "natural_text": "A\\nB"}', "A\nB", [], id="olmOCR"
        ),
        pytest.param('{"natural_text": null}', "", [], id="olmOCR of an empty page"),
        pytest.param(
            '{"is_table":false,"natural_text":"cost \\(a\\) of \\frac{a}{b}\\nC:\\temp"}',
            "cost \\(a\\) of \\frac{a}{b}\nC:\\temp",
            [],
            id="olmOCR with formulas",
        ),
        pytest.param('{"natural_text": "A\\nB, cut', "A\nB, cut", [], id="olmOCR, cut off"),
        pytest.param(
            "---\nprimary_language: en\nis_table: False\nrotation_correction: 0\n---\nA\n\nB",
            "A\n\nB",
            [],
            id="olmOCR with a head",
        ),
        pytest.param("---\nprimary_language: null\n---\n", "", [], id="a head, an empty page"),
        pytest.param(
            "---\ntitle: A\n---\nB", "---\ntitle: A\n---\nB", [], id="the page's own head"
        ),
        pytest.param("TOTAL<|im_end|>\n<|im_start|>user\nVAT?", "TOTAL", [], id="runs on"),
        pytest.param("TOTAL<|endoftext|>Human: VAT?", "TOTAL", [], id="runs on otherwise"),
        pytest.param("<|im_start|>assistant\nTOTAL", "TOTAL", [], id="begins with its turn"),
        pytest.param("A\nthe </think> tag\nB", "A\nthe </think> tag\nB", [], id="words of tags"),
        pytest.param("the <think> tag", "the <think> tag", [], id="words of an opening tag"),
        pytest.param("<|im_end|>", "", [], id="nothing but the end"),
        *(
            pytest.param(page, page, [], id=f"page: {page[:20]}")
            for page in (
                "[12] Smith, J. et al. (2001) [1, 2, 3, 4]",
                "[INFO] box (10, 20), (30, 40)",
                "[Note] Top-left: (1, 2), bottom-right: (3, 4)",
                "{\n  int a[4] = {1, 2, 3, 4};\n}",
                '{"a": [10, 20, 30, 40], "b": "text that matters"}',
                "<answer>42</answer> is xml",
                "The template uses <|im_start|> and <|im_end|> tokens.\nMore text.",
                'tokenizer.eos_token = "<|endoftext|>"\nprint(1)',
                "code: <!-- TODO (fix this) -->",
                "<!-- v1 (2, 3) -->",
                "640 480\n\n<Enter>",
                "12 30\n```\ncode\n```",
            )
        ),
    ],
)
def test_read_any_recognises_every_output(reply: str, text: str | None, labels: list[str]) -> None:
    result = read_any(reply, CONTEXT)
    assert text is None or result.text == text
    assert [box.label for box in result.boxes] == labels


def test_front_matter_is_data() -> None:
    head = "---\nprimary_language: en\nis_table: False\nrotation_correction: 90\n---\nA"
    for output in ("plain", "markdown"):
        result = ocr(output).parse(head, CONTEXT)
        assert result.data == {
            "primary_language": "en",
            "is_table": False,
            "rotation_correction": 90,
        }
        assert result.text == "A"


def test_a_task_is_frozen() -> None:
    for task in (describe(), ocr(), ground("cat")):
        with pytest.raises(AttributeError):
            task.prompt = "other"  # type: ignore[misc]

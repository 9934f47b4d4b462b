"""Reply reader: every form of reply, intact, with prose around it, broken and cut off."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl import replies
from qwen_vl_suite.qwenvl.errors import UnreadableReply
from qwen_vl_suite.qwenvl.replies import Item, loose_json, markup, read_items
from qwen_vl_suite.qwenvl.replies.trace import trace

CAT, DOG, OWL = (10, 20, 300, 400), (500, 600, 700, 845), (1, 2, 3, 4)
BOTH = [(CAT, "cat"), (DOG, "dog")]


def boxes(text: str) -> list[tuple]:
    return [(item.box, item.label) for item in read_items(text)]


def points(text: str) -> list[tuple]:
    return [(item.point, item.label) for item in read_items(text, "points")]


ONE = '{"bbox_2d": [10, 20, 300, 400], "label": "cat"}'
TWO = '{"bbox_2d": [500, 600, 700, 845], "label": "dog"}'
LIST = f"[{ONE}, {TWO}]"
SPREAD = LIST.replace("{", "\n\t{\n\t\t").replace("}", "\n\t}")

WHOLE = {
    "a list": (LIST, BOTH),
    "a fenced list": (f"```json\n{LIST}\n```", BOTH),
    "a fence without a language": (f"```\n{LIST}\n```", BOTH),
    "a fence that is never closed": (f"```json\n{LIST}", BOTH),
    "tabs and lines": (f"```json\n{SPREAD}\n```", BOTH),
    "one object": (ONE, [(CAT, "cat")]),
    "objects line by line": (f"{ONE}\n{ONE.replace('cat', 'owl')}", [(CAT, "cat"), (CAT, "owl")]),
    "several fences": (
        f"One:\n```json\n{ONE}\n```\nTwo:\n```json\n[{TWO}]\n```",
        BOTH,
    ),
    "said twice": (f"Draft: {ONE}\nFinal: {ONE}", [(CAT, "cat")]),
    "prose around": (f"Sure! I looked [twice] at it:\n{LIST}\nAnything else (x, y)?", BOTH),
    "a stray bracket in prose": (f"Values lie in [0, 1000). {LIST}", BOTH),
    "a stray brace in prose": (f"The set {{cat, dog: {LIST}", BOTH),
    "a denial beside boxes": (f"There are no birds, but here is a cat: {ONE}", [(CAT, "cat")]),
    "under a name": (f'{{"objects": {LIST}, "count": 2}}', BOTH),
    "under names in names": (f'{{"result": {{"detections": {LIST}}}}}', BOTH),
    "a tool call": (
        f'<tool_call>\n{{"name": "zoom", "arguments": {ONE}}}\n</tool_call>',
        [(CAT, "cat")],
    ),
    "bbox": (ONE.replace("bbox_2d", "bbox"), [(CAT, "cat")]),
    "box": (ONE.replace("bbox_2d", "box"), [(CAT, "cat")]),
    "bounding_box": (ONE.replace("bbox_2d", "bounding_box"), [(CAT, "cat")]),
    "Bounding Box spelt otherwise": (ONE.replace("bbox_2d", "BoundingBox"), [(CAT, "cat")]),
    "coordinates": (ONE.replace("bbox_2d", "coordinates"), [(CAT, "cat")]),
    "numbers as strings": (
        '{"bbox_2d": ["10", "20", "300", "400"], "label": "cat"}',
        [(CAT, "cat")],
    ),
    "numbers in one string": ('{"bbox_2d": "10, 20, 300, 400", "label": "cat"}', [(CAT, "cat")]),
    "corners in one string": ('{"box": "(10,20),(300,400)", "label": "cat"}', [(CAT, "cat")]),
    "corner pairs": ('{"bbox_2d": [[10, 20], [300, 400]], "label": "cat"}', [(CAT, "cat")]),
    "four corners": (
        '{"quad": [10, 20, 300, 20, 300, 400, 10, 400], "label": "cat"}',
        [(CAT, "cat")],
    ),
    "named corners": ('{"x1": 10, "y1": 20, "x2": 300, "y2": 400, "label": "cat"}', [(CAT, "cat")]),
    "named sides": (
        '{"bbox": {"xmin": 10, "ymin": 20, "xmax": 300, "ymax": 400}, "label": "cat"}',
        [(CAT, "cat")],
    ),
    "width and height": (
        '{"x": 10, "y": 20, "width": 290, "height": 380, "label": "cat"}',
        [(CAT, "cat")],
    ),
    "two of its corners": (
        '{"top_left": [10, 20], "bottom_right": [300, 400], "label": "cat"}',
        [(CAT, "cat")],
    ),
    "two corners in the wrong order": (
        '{"bottom_right": "300, 400", "top_left": "10, 20", "label": "cat"}',
        [(CAT, "cat")],
    ),
    "a score as the fifth number": (
        '[{"bbox_2d": [10, 20, 300, 400, 0.9], "label": "cat"}]',
        [(CAT, "cat")],
    ),
    "several boxes in one object": (
        '{"label": "cat", "bbox_2d": [[10, 20, 300, 400], [500, 600, 700, 845]]}',
        [(CAT, "cat"), (DOG, "cat")],
    ),
    "parallel lists": (
        '{"bboxes": [[10, 20, 300, 400], [500, 600, 700, 845]], "labels": ["cat", "dog"]}',
        BOTH,
    ),
    "labels as keys": (
        '{"cat": [10, 20, 300, 400], "dog": [[500, 600, 700, 845]]}',
        BOTH,
    ),
    "labels as keys of objects": (
        '{"cat": {"bbox_2d": [10, 20, 300, 400]}, "dog": {"bbox_2d": [500, 600, 700, 845]}}',
        BOTH,
    ),
    "labels as keys, one list empty": ('{"cat": [[10, 20, 300, 400]], "dog": []}', [(CAT, "cat")]),
    "labels as keys, one null": ('{"cat": [10, 20, 300, 400], "dog": null}', [(CAT, "cat")]),
    "labels as keys, one none": ('{"cat": [10, 20, 300, 400], "dog": "none"}', [(CAT, "cat")]),
    "labels as keys and a count": ('{"cat": [10, 20, 300, 400], "count": 1}', [(CAT, "cat")]),
    "labels as keys, zeros inside": (
        '{"cat": [[0, 0, 303, 4]], "dog": []}',
        [((0, 0, 303, 4), "cat")],
    ),
    "members repeated in one object": (
        f"{ONE[:-1]}, {TWO[1:]}",
        BOTH,
    ),
    "parts inside an object": (
        f'{TWO[:-1]}, "parts": [{{"bbox_2d": [1, 2, 3, 4], "label": "ear"}}]}}',
        [(DOG, "dog"), (OWL, "ear")],
    ),
    "a colour beside the box": (
        '{"bbox_2d": [10, 20, 300, 400], "label": "cat", "color": [255, 0, 0, 255]}',
        [(CAT, "cat")],
    ),
    "a 3-D box beside the box": (
        '{"bbox_3d": [1, 2, 3, 4, 5, 6, 7, 8, 9], "bbox_2d": [10, 20, 300, 400], "label": "cat"}',
        [(CAT, "cat")],
    ),
    "a bare list": ("[10, 20, 300, 400]", [(CAT, "")]),
    "bare lists": ("[[10, 20, 300, 400], [500, 600, 700, 845]]", [(CAT, ""), (DOG, "")]),
    "bare lists with names": ("1. **cat**: [10, 20, 300, 400]\n2. dog: [500, 600, 700, 845]", BOTH),
    "a box in a sentence": ("The cat is at (10, 20, 300, 400).", [(CAT, "")]),
    "a denial, then a box": ("Not found: dog. Cat: (10,20,300,400)", [(CAT, "Cat")]),
    "Python tuples": ("[(10, 20, 300, 400), (500, 600, 700, 845)]", [(CAT, ""), (DOG, "")]),
    "a sentence about a box": ("The bounding box is: [10, 20, 300, 400]", [(CAT, "")]),
    "values over 1000 and below 0": (
        '{"bbox_2d": [-3, 0, 1003, 1000.5], "label": "cat"}',
        [((-3, 0, 1003, 1000.5), "cat")],
    ),
    "fractions stay fractions": (
        '{"bbox_2d": [0.0, 0.5, 1.0, 1.0], "label": "cat"}',
        [((0.0, 0.5, 1.0, 1.0), "cat")],
    ),
}

LABELS = {
    "English before Chinese": ('"name_zh": "猫", "name_en": "Cat"', "Cat"),
    "nested names": ('"names": {"zh": "猫", "en": "cat"}', "cat"),
    "only Chinese": ('"names": {"zh": "猫"}', "猫"),
    "text_content": ('"text_content": "TOTAL 5,00"', "TOTAL 5,00"),
    "label before text": ('"text": "5", "label": "price"', "price"),
    "sub_label alone": ('"sub_label": "tabby"', "tabby"),
    "a number": ('"label": 7', "7"),
    "an unknown name": ('"食物名称": "米饭"', "米饭"),
    "no label": ('"score": 0.5', ""),
    "half a surrogate pair": ('"label": "a\\ud83d \\ude00"', "a\ufffd \ufffd"),
    "a whole surrogate pair": ('"label": "\\ud83d\\ude00"', "😀"),
    "brackets in it": ('"label": "a [b} c"', "a [b} c"),
    "punctuation in it": ('"label": "你好，世界：【1】"', "你好，世界：【1】"),
}

BROKEN = {
    "trailing commas": ('[{"bbox_2d": [10, 20, 300, 400,], "label": "cat",},]', [(CAT, "cat")]),
    "Python literals": (
        "[{'bbox_2d': [10, 20, 300, 400], 'label': 'cat', 'seen': True, 'note': None}]",
        [(CAT, "cat")],
    ),
    "an apostrophe": ("""[{'bbox_2d': [10, 20, 300, 400], 'label': "cat's"}]""", [(CAT, "cat's")]),
    "doubled braces": (
        f"[{{{ONE}, {TWO}]",
        BOTH,
    ),
    "doubled braces on both sides": (f"{{{ONE}}}", [(CAT, "cat")]),
    "comments": (
        '[ // all of them\n{"bbox_2d": [10, 20, 300, 400], /* left */ "label": "cat"} # one\n]',
        [(CAT, "cat")],
    ),
    "a line break in a string": (
        '{"bbox_2d": [10, 20, 300, 400], "label": "big\ncat"}',
        [(CAT, "big\ncat")],
    ),
    "quotes in a string": (
        LIST.replace("cat", 'a 12" cat'),
        [(CAT, 'a 12" cat'), (DOG, "dog")],
    ),
    "unquoted": ("[{bbox_2d: [10, 20, 300, 400], label: cat}]", [(CAT, "cat")]),
    "a missing comma": (ONE.replace("400], ", "400] "), [(CAT, "cat")]),
    "a missing comma between objects": (LIST.replace("}, {", "} {"), BOTH),
    "NaN in one of two": (f'[{{"bbox_2d": [NaN, 1, 2, 3], "label": "x"}}, {ONE}]', [(CAT, "cat")]),
    "infinity in one of two": (f'[{{"bbox_2d": [0, 1, 2, 1e999]}}, {ONE}]', [(CAT, "cat")]),
    "three numbers in one of two": (
        f'[{{"bbox_2d": [1, 2, 3], "label": "x"}}, {ONE}]',
        [(CAT, "cat")],
    ),
    "Chinese punctuation": (
        "【｛“bbox_2d”：【10，20，300，400】，“label”：“猫，猫”｝】",
        [(CAT, "猫，猫")],
    ),
    "full-width digits": (
        '{"bbox_2d": [１０, ２０, ３００, ４００], "label": "cat"}',
        [(CAT, "cat")],
    ),
    "full-width tags": (
        "<ref>猫</ref><box>（１０，２０），（３００，４００）</box>",
        [(CAT, "猫")],
    ),
}

TAGS = {
    "ref and box": ("<ref>cat</ref><box>(10,20),(300,400)</box>", [(CAT, "cat")]),
    "several boxes of one ref": (
        "<ref>cat</ref><box>(10,20),(300,400)</box><box>(500,600),(700,845)</box>",
        [(CAT, "cat"), (DOG, "cat")],
    ),
    "refs in prose": (
        "I see <ref>cat</ref><box>(10,20),(300,400)</box> and "
        "<ref> dog </ref><box>(500,600),(700,845)</box>.",
        BOTH,
    ),
    "box alone": ("<box>(10, 20), (300, 400)</box>", [(CAT, "")]),
    "special tokens": (
        "<|object_ref_start|>cat<|object_ref_end|>"
        "<|box_start|>(10,20),(300,400)<|box_end|><|im_end|>",
        [(CAT, "cat")],
    ),
    "special tokens dropped by a decoder": ("cat(10,20),(300,400)dog(500,600),(700,845)", BOTH),
    "quad": ("<ref>cat</ref><quad>(10,20),(300,25),(290,400),(12,390)</quad>", [(CAT, "cat")]),
    "four numbers in box tokens": (
        "<|object_ref_start|>cat<|object_ref_end|><|box_start|>10,20,300,400<|box_end|>",
        [(CAT, "cat")],
    ),
    "a tuple between tags": ("<ref>cat</ref><box>(10, 20, 300, 400)</box>", [(CAT, "cat")]),
    "JSON in box tokens": (f"<|box_start|>{ONE}<|box_end|>", [(CAT, "cat")]),
    "HTML": ('<p data-bbox="10 20 300 400">big<br>cat</p>', [(CAT, "big cat")]),
    "HTML with a class": ('<div class="table" data-bbox="10 20 300 400"></div>', [(CAT, "table")]),
    "HTML with single quotes": ("<p data-bbox='10 20 300 400'>", [(CAT, "p")]),
    "HTML with commas": ('<p data-bbox="10, 20, 300, 400">', [(CAT, "p")]),
    "a picture in its frame": (
        '<div class="image" data-bbox="10 20 300 400"><img data-bbox="10 20 300 400"/></div>',
        [(CAT, "image")],
    ),
}

# What stands before the last item, and the last item.
CUT = {
    "a list": (f"[{ONE}", f", {TWO}"),
    "a fenced list": (f"```json\n[{ONE}", f",\n{TWO}"),
    "a list under a name": (f'{{"objects": [{ONE}', f", {TWO}"),
    "labels first": (
        '[{"label": "cat", "bbox_2d": [10, 20, 300, 400]}',
        ', {"label": "dog", "bbox_2d": [500, 600, 700, 845]}',
    ),
    "Python literals": (f"[{ONE}".replace('"', "'"), f", {TWO}".replace('"', "'")),
    "objects line by line": (ONE, f"\n{TWO}"),
    "labels as keys": (
        '{"cat": [[10, 20, 300, 400]]',
        ', "dog": [[500, 600, 700, 845]',
    ),
    "labels as keys of objects": (
        '{"cat": [{"bbox_2d": [10, 20, 300, 400]}]',
        ', "dog": [{"bbox_2d": [500, 600, 700, 845]}',
    ),
    "HTML": ('<p data-bbox="10 20 300 400">cat</p>', '<p class="dog" data-bbox="500 600 700 845">'),
    "tags": (
        "<ref>cat</ref><box>(10,20),(300,400)</box>",
        "<ref>dog</ref><box>(500,600),(700,845)",
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(*case, id=name)
        for cases in (WHOLE, BROKEN, TAGS)
        for name, case in cases.items()
    ],
)
def test_boxes(text: str, expected: list) -> None:
    assert boxes(text) == expected


@pytest.mark.parametrize(
    ("members", "label"), [pytest.param(*case, id=name) for name, case in LABELS.items()]
)
def test_labels(members: str, label: str) -> None:
    assert boxes(f'[{{"bbox_2d": [10, 20, 300, 400], {members}}}]') == [(CAT, label)]


@pytest.mark.parametrize(("whole", "last"), [pytest.param(*c, id=name) for name, c in CUT.items()])
def test_complete_items_of_a_cut_reply_are_kept_and_the_cut_one_is_not(
    whole: str, last: str
) -> None:
    for end in range(len(last)):
        assert boxes(whole + last[:end]) == [(CAT, "cat")], last[:end]
    assert boxes(whole + last) == BOTH


@pytest.mark.parametrize("cut", range(1, len(ONE)))
def test_a_single_cut_off_box_is_no_box(cut: int) -> None:
    for one in (ONE, ONE.replace("20", "0").replace("cat", "none, n/a")):
        for start in ("", "[", '{"objects": [', "```json\n[\n"):
            with pytest.raises(UnreadableReply):
                boxes(start + one[: cut - len(one)])


SOMETHING = {
    "zeros in JSON": '```json\n[\n\t{"bbox_2d": [728, 0, 864, 0], "label": "none"}\n]\n```',
    "zeros in bare lists": "[[10, 0, 30, 0], [0, 0, 30, 40]]",
    "zeros in tuples": "[(10, 0, 30, 0), (0, 0, 30, 40)]",
    "zeros in tags": "<ref>no cat</ref><box>(10, 0),(30, 40)</box>",
    "zeros in tokens": "<|box_start|>10, 0, 30, 40<|box_end|>",
    "zeros in HTML": '<p data-bbox="0 0 30 40">none</p>',
    "nothing before something": '[{"label": "dog", "bbox_2d": []}, {"bbox_2d": [0, 0, 1, 2]}]',
    "an empty list before a full one": "[[], [0, 0, 1, 2]]",
    "a key without boxes before one with": '{"dog": [], "cat": [[0, 0, 1, 2]], "n/a": "none"}',
    "no JSON": "cat: 10, 0, 300, 400",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in SOMETHING.items()])
def test_a_cut_reply_is_never_empty_unless_the_full_one_is(text: str) -> None:
    for end in range(1, len(text) + 1):
        for expected in ("boxes", "points", "lines"):
            try:
                found = read_items(text[:end], expected, ("cat",))
            except UnreadableReply:
                continue
            assert found, text[:end]


FORMS_OF_A_BOX = {
    "x, y, w, h": '{"x": 10, "y": 20, "w": 290, "h": 380, "label": "cat"}',
    "x, y, w, h inside": '{"bbox": {"x": 10, "y": 20, "w": 290, "h": 380}, "label": "cat"}',
    "corners from 0": '{"bbox": {"x0": 10, "y0": 20, "x1": 300, "y1": 400}, "label": "cat"}',
    "left, top, width, height": '{"left":10,"top":20,"width":290,"height":380,"label":"cat"}',
    "left, top, right, bottom": '{"left":10,"top":20,"right":300,"bottom":400,"label":"cat"}',
    "x_min": '{"x_min": 10, "y_min": 20, "x_max": 300, "y_max": 400, "label": "cat"}',
    "start and end": '{"start": [10, 20], "end": [300, 400], "label": "cat"}',
    "start and end as objects": (
        '{"start": {"x": 10, "y": 20}, "end": {"x": 300, "y": 400}, "label": "cat"}'
    ),
    "corners as lists, inside": (
        '{"bbox": {"top_left": [10, 20], "bottom_right": [300, 400]}, "label": "cat"}'
    ),
    "corners as objects": (
        '{"topLeft": {"x": 10, "y": 20}, "bottomRight": {"x": 300, "y": 400}, "label": "cat"}'
    ),
    "the other two corners": '{"bottom_left":[10,400],"top_right":[300,20],"label":"cat"}',
    "two points in a box": '{"bbox": [{"x": 10, "y": 20}, {"x": 300, "y": 400}], "label": "cat"}',
    "vertices": (
        '{"vertices": [{"x":10,"y":20},{"x":300,"y":20},{"x":300,"y":400},{"x":10,"y":400}],'
        ' "label": "cat"}'
    ),
    "a polygon": '{"polygon": [[10,20],[300,25],[290,400],[12,390]], "label": "cat"}',
    "the middle and a size": '{"cx": 155, "cy": 210, "w": 290, "h": 380, "label": "cat"}',
    "a centre and a size": '{"center": [155, 210], "size": [290, 380], "label": "cat"}',
    "a position and a size": (
        '{"position": {"x": 10, "y": 20}, "size": {"width": 290, "height": 380}, "label": "cat"}'
    ),
    "a key that says sizes": '{"xywh": [10, 20, 290, 380], "label": "cat"}',
    "a wrong bracket at the end": '{"bbox_2d": [10, 20, 300, 400), "label": "cat"}',
    "pairs in square brackets between tags": "<ref>cat</ref><box>[10,20],[300,400]</box>",
    "a list between tags": "<ref>cat</ref><box>[10, 20, 300, 400]</box>",
    "a list in a list between tags": "<ref>cat</ref><box>[[10, 20, 300, 400]]</box>",
    "a list between tokens": (
        "<|object_ref_start|>cat<|object_ref_end|><|box_start|>[10,20,300,400]<|box_end|>"
    ),
    "blanks between tags": "<ref>cat</ref><box>10 20 300 400</box>",
    "a bullet in a ref": "<ref>- cat</ref><box>(10,20),(300,400)</box>",
    "corners in words": "cat: Top-left: (10, 20), bottom-right: (300, 400)",
    "corners in words, line by line": "cat\nTop-left: (10, 20)\nBottom-right: (300, 400)",
    "corners in a list item": "- **cat**: top left (10, 20), bottom right (300, 400)",
    "sides in words": "cat: x1=10, y1=20, x2=300, y2=400.",
    "sides in words with units": "cat: left: 10px, top: 20px, width: 290px, height: 380px;",
    "a table": "| Label | Bounding box |\n|---|---|\n| cat | [10, 20, 300, 400] |",
    "a table with a column a side": (
        "| # | Object | x1 | y1 | x2 | y2 |\n|--:|---|:-:|---|---|---|\n"
        "| 1 | cat | 10 | 20 | 300 | 400 |"
    ),
    "a table with a hint in its head": (
        "| Object | Bounding Box (x1, y1, x2, y2) |\n|:--|:--|\n| **cat** | (10, 20, 300, 400) |"
    ),
    "a table of HTML": (
        "<table><tr><th>Label</th><th>Box</th></tr>"
        "<tr><td>cat</td><td>[10, 20, 300, 400]</td></tr></table>"
    ),
    "an answer in tags": f"Let me see [1, 2].\n<answer>{ONE}</answer>",
    "an answer in JSON": '{"answer": "<ref>cat</ref><box>(10,20),(300,400)</box>"}',
    "a numbered list with dashes": "1. **cat** - [10, 20, 300, 400]",
    "another bullet": "• cat: [10, 20, 300, 400]",
    "a bullet in a label": ONE.replace('"cat"', '"- cat"'),
    "bold in a label": ONE.replace('"cat"', '"**cat**"'),
    "a label in a label": ONE.replace('"cat"', '{"label": {"label": {"name": "cat"}}}'),
    "a number that is none beside it": ONE.replace("}", ', "score": 1e999}'),
    "a corner and a size": ('{"label":"cat","top_left":{"x":10,"y":20},"width":290,"height":380}'),
    "a position and sides": '{"label":"cat","position":[10,20],"width":290,"height":380}',
    "x, y and a size": '{"x":10,"y":20,"size":[290,380],"label":"cat"}',
    "units of pixels": '{"x":10,"y":20,"width":"290px","height":"380px","label":"cat"}',
    "sides of a named box": '{"x":10,"y":20,"bbox_width":290,"bbox_height":380,"label":"cat"}',
    "x, y, right, bottom": '{"x":10,"y":20,"right":300,"bottom":400,"label":"cat"}',
    "corners by long names": (
        '{"top_left_corner":{"x":10,"y":20},"bottom_right_corner":{"x":300,"y":400},"label":"cat"}'
    ),
    "points of a box": '{"bbox":{"points":[[10,20],[300,400]]},"label":"cat"}',
    "bounds": '{"bounds":"[10,20][300,400]","text":"cat"}',
    "a key of four names": '{"x1y1x2y2":[10,20,300,400],"label":"cat"}',
    "a range": "cat: (10,20)-(300,400)",
    "corners in assignments": "cat: top-left: x=10, y=20; bottom-right: x=300, y=400.",
    "a size in words": "cat: Position: x=10, y=20. Size: 290x380.",
    "the last number of a whole reply": "cat: x1=10, y1=20, x2=300, y2=400<|im_end|>",
    "a name and a blank": "- cat [10, 20, 300, 400]",
    "bold with its colon": "**cat:** [10, 20, 300, 400]",
    "quotes of code": "cat: `[10, 20, 300, 400]`",
    "a ref before a list": "<ref>cat</ref>[10, 20, 300, 400]",
    "Chinese keys": '{"类别": "cat", "坐标": [10, 20, 300, 400]}',
    "a format that says sizes": '{"format": "xywh", "bbox": [10, 20, 290, 380], "label": "cat"}',
    "somebody's next turn": f"[{ONE}]\nHuman: more?\nAssistant: [1, 2, 3, 4]",
    "another end token": f"[{ONE}]</s>",
    "an answer of words behind it": f"[{ONE}]\n<answer>cat</answer>",
    "a thought that began untold": f"Maybe [1, 2, 3, 4].\n</think>\n\n{ONE}",
    "another turn after it": f"{ONE}<|im_end|>\n<|im_start|>user\n[1, 2, 3, 4]",
}


@pytest.mark.parametrize(
    "text", [pytest.param(text, id=name) for name, text in FORMS_OF_A_BOX.items()]
)
def test_every_form_of_a_box_is_read_as_that_box_and_never_as_points(text: str) -> None:
    assert boxes(text) == [(CAT, "cat")]
    found = read_items(text, "points")
    assert [(item.box, item.label) for item in found] == [(CAT, "cat")]


@pytest.mark.parametrize(
    "text",
    [
        "Top-left: (10, 20), bottom-right: (300, 4",
        "Top-left: (10, 20)",
        "x=10, y=20, width=290, height=38",
        "x=10, y=20, w",
        "x=10, y=20,",
        "x=10, y=2",
        '{"x": 10, "y": 20, "w": 290}',
        '{"label": "cat", "top_left": {"x": 10, "y": 20}}',
        "(10, 20), width 290, height 380",
        "Corner: (10, 20), width: 290, height: 38",
    ],
)
def test_a_corner_in_prose_is_no_point(text: str) -> None:
    with pytest.raises(UnreadableReply):
        read_items(text, "points")


@pytest.mark.parametrize(
    ("members", "label"),
    [
        ('"label": 3, "class_name": "cat"', "cat"),
        ('"label": "3", "class_name": "cat"', "cat"),
        ('"class": 0, "category_name": "cat"', "cat"),
        ('"label": "1", "object_name": "cat"', "cat"),
        ('"id": "obj_1", "caption": "cat"', "cat"),
        ('"label": "obj_1", "text": "cat"', "cat"),
        ('"label": 1, "text": "cat"', "cat"),
        ('"label": 1, "ref": "cat"', "cat"),
        ('"name": 1, "type": "cat"', "cat"),
        ('"id": "a1", "type": "cat"', "cat"),
        ('"label": "2024", "type": "text"', "2024"),
        ('"label": "12", "color": "red"', "12"),
        ('"id": 7, "食物名称": "米饭"', "米饭"),
        ('"uuid": "00ff00ff", "thing": "cat"', "cat"),
        ('"label": ["black", "cat"]', "black, cat"),
        ('"label": "(5,6),(7,8)"', "(5,6),(7,8)"),
        ('"label": [["cat"]]', "cat"),
        ('"label": [{"name": "cat"}]', "cat"),
        ('"labels": [{"en": "cat"}]', "cat"),
        ('"label": "__init__"', "__init__"),
        ('"label": "*args"', "*args"),
        ('"label": "- 5"', "- 5"),
        ('"label": "# of cars"', "# of cars"),
        ('"label": "deadbeef", "type": "x"', "deadbeef"),
        ('"label": "<box>1 2 3 4</box>"', "<box>1 2 3 4</box>"),
        ('"label": "[1, 2, 3, 4)"', "[1, 2, 3, 4)"),
        ('"label": "<|im_end|>"', "<|im_end|>"),
        ('"label": "<answer>"', "<answer>"),
        ('"label": "12", 14", 16" pipes"', '12", 14", 16" pipes'),
        ('"label": "a 12", "b" and c", "color": "red"', 'a 12", "b" and c'),
    ],
)
def test_a_label_is_preferred_to_an_id(members: str, label: str) -> None:
    for text in (
        f'[{{"bbox_2d": [10, 20, 300, 400], {members}}}]',
        f'[{{{members}, "bbox_2d": [10, 20, 300, 400]}}]',
    ):
        assert boxes(text) == [(CAT, label)]


@pytest.mark.parametrize(
    "text",
    [
        "founded in [1990, 1991, 1992, 1993]",
        "The company was founded in (1990, 1991, 1992, 1993).",
        '{"founded_in": [1990, 1991, 1992, 1993]}',
        "see pages [12, 13, 14, 15]",
        "a list of sizes [36, 38, 40, 42]",
        "scores: [10, 20, 30, 40]",
        '{"scores": [10, 20, 30, 40]}',
        '{"color": [255, 0, 0, 255]}',
        "The numbers are (1, 2, 3, 4)",
        "IP (192, 168, 0, 1)",
        "phone: [555, 123, 456, 789]",
        "I count [3, 4, 5, 6] apples",
        '[{"label": "(5,6),(7,8)"}]',
        '{"note": "at (5,6),(7,8)", "label": "cat"}',
    ],
)
def test_numbers_that_are_no_coordinates_are_no_box(text: str) -> None:
    with pytest.raises(UnreadableReply):
        read_items(text)


@pytest.mark.parametrize("numbers", ['[100, 200, 300, "x"]', "[100, 200, NaN, 400]"])
def test_broken_numbers_are_told_as_such(numbers: str) -> None:
    with pytest.raises(UnreadableReply, match="boxes whose numbers are broken"):
        read_items(f'[{{"bbox_2d": {numbers}, "label": "cat"}}]')


def test_eight_numbers_are_two_boxes_or_none() -> None:
    flat = "[10, 20, 300, 400, 500, 600, 700, 845]"
    assert boxes(flat) == [(CAT, ""), (DOG, "")]
    assert boxes(f'{{"bbox_2d": {flat}, "label": "cat"}}') == [(CAT, "cat"), (DOG, "cat")]
    for text in ("[10, 20, 300, 20, 300, 400, 10, 400]", '{"bbox": [300,400,10,20,1,2,3,4]}'):
        with pytest.raises(UnreadableReply):
            read_items(text)
    assert boxes('{"quad": [10, 20, 300, 20, 300, 400, 10, 400]}') == [(CAT, "")]


BACKSLASHES = {
    r"\frac{a}{b} \times \beta": r"\frac{a}{b} \times \beta",
    r"\(a\) and \alpha": r"\(a\) and \alpha",
    r"\[x \neq y\] \theta \rho": r"\[x \neq y\] \theta \rho",
    r"$a \to b$, \nu": r"$a \to b$, \nu",
    r"C:\temp\new": r"C:\temp\new",
    r"C:\Program Files\tools\readme": r"C:\Program Files\tools\readme",
    r"in D:\notes\bin\run and": r"in D:\notes\bin\run and",
    r"C:\\temp\\new": r"C:\temp\new",
    r"\\frac{a}{b}": r"\frac{a}{b}",
    r"one\ntwo\tthree": "one\ntwo\tthree",
    r"one\nneq is a word": "one\nneq is a word",
    r"5\n\nTotal": "5\n\nTotal",
    r"50\% \& more \$5": r"50\% \& more \$5",
    r"it\'s \"it\"": 'it\'s "it"',
    r"\u00e9\ud83d\ude00": "é😀",
    r"\ud83d alone": "\ufffd alone",
    r"C:\users\bob": r"C:\users\bob",
    r"C:\new\file": r"C:\new\file",
    r"A:\nyes": "A:\nyes",
    r"Vitamin C:\n60 mg\nVitamin D:\n5 ug": "Vitamin C:\n60 mg\nVitamin D:\n5 ug",
    r"Teil A:\nfoo\nbar": "Teil A:\nfoo\nbar",
    r"X:\t5\tY:\t6": "X:\t5\tY:\t6",
    r"\bword\b, \newcommand{x}, \tag{1}": r"\bword\b, \newcommand{x}, \tag{1}",
    r"\nu = 5": r"\nu = 5",
    r"\\ud83d": r"\ud83d",
    r"1\/2": "1/2",
}


@pytest.mark.parametrize(("written", "meant"), BACKSLASHES.items())
@pytest.mark.parametrize("end", ["}", ", }", ",, }"], ids=["sound", "mended", "repaired"])
def test_single_backslashes_are_kept(written: str, meant: str, end: str) -> None:
    text = f'[{{"bbox_2d": [10, 20, 300, 400], "label": "{written}", "note": "{written}"{end}]'
    (item,) = read_items(text)
    assert (item.label, item.data["note"]) == (meant, meant)


@given(st.text())
def test_valid_json_round_trips(text: str) -> None:
    told = json.dumps([{"bbox_2d": [1, 2, 3, 4], "note": text}])
    meant = json.loads(told, object_pairs_hook=dict)[0]["note"]
    meant = meant.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    (value,) = loose_json.values(told)
    # Form feeds and the like are no text: before a letter they are half of a command.
    if not any(character in text for character in "\b\f\r\n\t"):
        assert value.value[0]["note"] == meant


def test_complete_boxes_of_a_cut_list_are_kept() -> None:
    assert boxes("[[10, 20, 300, 400], [500, 600, 700, 84") == [(CAT, "")]
    assert boxes('{"bbox_2d": [[10, 20, 300, 400], [500, 600, 700, 84') == [(CAT, "")]


def test_a_broken_item_does_not_affect_its_neighbours() -> None:
    items = [f'{{"bbox_2d": [1, 2, 3, {k}], "label": "{k}"}}' for k in range(10, 20)]
    items[4] = '{"bbox_2d": [1, 2, 3, "label": }'
    found = boxes(f"[{', '.join(items)}]")
    assert found == [((1, 2, 3, k), str(k)) for k in range(10, 20) if k != 14]


POINTS = {
    "point_2d": ('[{"point_2d": [447, 81], "label": "nose"}]', [((447, 81), "nose")]),
    "a tool call": (
        '<tool_call>{"name": "phone", "arguments": {"action": "tap", "coordinate": [447, 81]}}',
        [((447, 81), "phone")],
    ),
    "x and y": ('[{"x": 447, "y": 81, "label": "nose"}]', [((447, 81), "nose")]),
    "points under a name": ('{"points": [{"x": 447, "y": 81}]}', [((447, 81), "")]),
    "many points of one label": (
        '{"label": "eye", "points": [[447, 81], [500, 80]]}',
        [((447, 81), "eye"), ((500, 80), "eye")],
    ),
    "XML with one point": ('<point x="447" y="81" alt="nose">nose</point>', [((447, 81), "nose")]),
    "XML with many": (
        '<points x1="447" y1="81" x2="500" y2="80">eyes</points>',
        [((447, 81), "eyes"), ((500, 80), "eyes")],
    ),
    "a flat list of pairs": (
        '{"label": "eye", "points": [447, 81, 500, 80]}',
        [((447, 81), "eye"), ((500, 80), "eye")],
    ),
    "many in a flat list of pairs": (
        json.dumps({"points": [*range(10)], "label": "eye"}),
        [((x, x + 1), "eye") for x in range(0, 10, 2)],
    ),
    "a list of one label that is cut off": (
        '{"eye": [[447, 81], [500, 80], [5',
        [((447, 81), "eye"), ((500, 80), "eye")],
    ),
    "XML that is cut off": (
        '<points x1="447" y1="81" x2="500" y2="80" x3="300" y3="4',
        [((447, 81), ""), ((500, 80), "")],
    ),
    "brackets": ("[447, 81]", [((447, 81), "")]),
    "a tag": ("<point>447 81</point>", [((447, 81), "")]),
    "a tag with a list": ("<point>[447, 81]</point>", [((447, 81), "")]),
    "a tag behind a ref": ("<ref>nose</ref><point>(447,81)</point>", [((447, 81), "nose")]),
    "a tag in a call": ("click(point='<point>447 81</point>')", [((447, 81), "")]),
    "two tags": (
        "<point>447 81</point><point>500 80</point>",
        [((447, 81), ""), ((500, 80), "")],
    ),
    "tokens": ("<|point_start|>(447,81)<|point_end|>", [((447, 81), "")]),
    "a call": ("click(x=447, y=81)", [((447, 81), "")]),
    "a call of a module": ("pyautogui.click(x=447, y=81)", [((447, 81), "")]),
    "x and y in words": ("nose: x: 447, y: 81.", [((447, 81), "nose")]),
    "x and y of an object in it": ('{"point": {"x": 447, "y": 81}}', [((447, 81), "")]),
    "pairs are points where points were asked for": (
        "(447, 81), (500, 80)",
        [((447, 81), ""), ((500, 80), "")],
    ),
    "one in box tokens": ("click(start_box='<|box_start|>(447,81)<|box_end|>')", [((447, 81), "")]),
    "two in box tokens are a box": ("<|box_start|>(10,20),(300,400)<|box_end|>", [(None, "")]),
    "four numbers in a sentence are a box": ("It is at (10, 20, 300, 400).", [(None, "")]),
    "a cut list": (
        '[{"point_2d": [447, 81], "label": "nose"}, {"point_2d": [5',
        [((447, 81), "nose")],
    ),
}


@pytest.mark.parametrize(
    ("text", "expected"), [pytest.param(*case, id=name) for name, case in POINTS.items()]
)
def test_points(text: str, expected: list) -> None:
    assert points(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(100,200),(300,400)",
        "<ref>cat</ref><box>(100,200),(300,400)",
        '[{"bbox_2d": [[100, 200], [300, 400]',
        "<box>100,200,300,400",
    ],
)
def test_a_corner_of_a_cut_box_is_no_point(text: str) -> None:
    for end in range(1, len(text) + 1):
        try:
            found = read_items(text[:end], "points")
        except UnreadableReply:
            continue
        assert [(item.box, item.point) for item in found] == [((100, 200, 300, 400), None)]


def test_a_fifth_number_is_the_score() -> None:
    text = '{"cat": [[10, 20, 300, 400, 0.9], [500, 600, 700, 845, 0.5]]}'
    assert read_items(text) == [
        Item(CAT, None, "cat", {"score": 0.9}),
        Item(DOG, None, "cat", {"score": 0.5}),
    ]
    with pytest.raises(UnreadableReply):
        read_items("[10, 20, 300, 400, 500]")


def test_text_lines_without_a_box_are_kept() -> None:
    text = """{"lines": [{"bbox_2d": null, "text_content": "A"}, {"text": "B", "font": {"size": 9}},
        {"bbox_2d": [1, 2, 3, 4], "label": "C"}, {"bbox_2d": [], "label": "D"}], "text": "A B"}"""
    found = read_items(text, "lines")
    assert [(item.box, item.text) for item in found] == [
        (None, "A"), (None, "B"), (OWL, "C"), (None, "D")
    ]  # fmt: skip
    assert [item.box for item in read_items(text)] == [OWL]
    assert read_items('[{"bbox_2d": null}]', "lines") == []


def test_a_point_and_a_box_of_one_object_are_one_item() -> None:
    text = '{"bbox_2d": [10, 20, 300, 400], "point_2d": [100, 200], "label": "cat", "age": 3}'
    assert read_items(text) == [Item(CAT, (100, 200), "cat", {"label": "cat", "age": 3})]


NONE = [
    "[]", "```json\n[]\n```", "{}", "null", '{"objects": []}', '{"bbox_2d": [], "label": "cat"}',
    '[{"bbox_2d": null, "label": "cat"}]', '{"cat": [], "dog": []}', '{"label": "none"}',
    '{"found": false, "boxes": []}', "None", "none.", "None found.", "Nothing found", "**None**",
    "N/A", "No", "No.", "No cats.", "No cats found.", "Not found.", "not present",
    "cat: not found", "There are no cats in the image.", "There is no cat.", "There's no cat here.",
    "There isn't a cat.", "There aren’t any cats.", "The image does not contain any cats.",
    "The image doesn't show a cat.", "No objects matching the categories are visible in the image.",
    "I don't see any cats.", "I could not find any cats in this picture.",
    "Sorry, I was unable to locate a cat.", "The cat is not present in the image.",
    "The requested object is absent.", "None of the listed objects are visible.",
    "There are no cats, dogs, or birds in the image.",
    "There are no cats in the image. The image shows a quiet street with a red car.",
    "No, there is no cat.", "cat: none", "- cat: none\n- dog: not found", "cat: None.\ndog: N/A",
    "Neither cats nor dogs are in the picture", "Values lie in [0, 1000). []",
    "<answer>None</answer>", "<answer>\nnull\n</answer>", "<answer>[]</answer>",
    "<answer>没有</answer>", "```json\nnull\n```", "```\nNone\n```", "`null`",
    "```json\n[]\n```\nNo cats found.", "(0 found)", "0 found", "Found 0 cats.", "0 matches",
    "There are 0 cats in the image.", "Zero cats detected.", "No cats (0 found).", "Total: 0",
    "Number of cats: 0", "Result: no cats", "**Result:** no cats", "Answer: none",
    "### Result\nNo cats found.", "The answer is: none.", '{"result": "No cats found."}',
    "\\boxed{None}", "结果：没有猫", "检测结果：无", "找到0个", "共找到 0 个目标。", "0个",
    "图中有0只猫。",
    '{"thought": "There is none.", "bbox_2d": [-1, -1, -1, -1]}', '[{"bbox_2d": [0, 0, 0, 0]}]',
    "没有", "没有找到猫。", "图中没有猫。", "未找到相关目标",
    "图像中不存在该物体。",
    "图片中找不到猫", "无", "<think>Let me look [1, 2, 3, 4].</think>None found.",
]  # fmt: skip

UNREADABLE = [
    "", "   ", "The cat is on the sofa.", "There is a cat.", "Yes.", "yes, two cats",
    "A cat and a dog sit in the grass.", "[1]", "[1, 2, 3]", "{", "[", "cat", "1. cat\n2. dog",
    '[{"bbox_2d": [1, 2, 3], "label": "cat"}]', '[{"bbox_2d": [NaN, 1, 2, 3], "label": "cat"}]',
    '[{"bbox_2d": ["a", "b", "c", "d"]}]', '{"bbox_2d": [x1, y1, x2, y2]}', '{"label": "cat"}',
    '{"company": "ACME", "date": "2018-06-01"}', "I cannot see the image.",
    "No image was provided.", "I'm sorry, I can't help with that.",
    "There are no dogs, but there is a cat on the left.", "图中没有狗，但有一只猫。",
    "图中有一只猫。",
    "The cat is on the left. There are no dogs.", "There is no doubt that this is a cat.",
    "The cat has no collar.", "<think>I see a cat at [1, 2, 3, 4]", "(x1, y1), (x2, y2)",
    '[{"bbox_3d": [0.1, 0.2, 2.2, 0.7, 0.8, 1.8, 0.8, 0.1, 0.9], "label": "table"}]',
    '[{"point_2d": [447, 81], "label": "nose"}]', "(447, 81)",
    "There are no cats (10, 20, 30", "cat: none\ndog: 10, 0, 30, 40", "0, 10, 20, 30",
    '[{"label": "cat", "boxes": [], "note": "cut', "[(x, 0), (none, 0)]", "[" * 20 + "]" * 20,
    '[{"start": "00:01.00", "text": "a cat"}]', "Result: two cats", "cat: 0, 10, 20", "(10 found)",
    "I found no dogs. I found one cat.",
    "No cats on the left. One cat on the right.", "None of the cats is sleeping; all are at left.",
    "no longer on the sofa; the cat is on the floor", "No fewer than three cats.", "No 5",
    "There are 0.5 cats", "No parking sign", "猫没有尾巴。", "猫没有被遮挡。", "没有图片",
    "Found 10 cats.", "I found 0 dogs but 2 cats at the left.", "找到10个", "There are 10 cats",
]  # fmt: skip


@pytest.mark.parametrize("text", NONE)
def test_nothing_found_is_an_empty_list(text: str) -> None:
    assert read_items(text) == []


@pytest.mark.parametrize("text", UNREADABLE)
def test_anything_else_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableReply) as caught:
        read_items(text)
    assert caught.value.raw == text


@pytest.mark.parametrize(
    ("text", "names", "none"),
    [
        ("There are no cats, but there is a dog.", ("cat",), True),
        ("There are no cats, but there is a dog.", ("cat", "dog"), False),
        ("There are no cats. A dog is on the left.", ("cats", "dogs"), False),
        ("The image shows a street. There are no cats.", ("cat",), True),
        ("The cat is on the left. There are no dogs.", ("the cat", "dog"), False),
        ("There is a cat on the sofa, no dogs are visible.", ("cat", "dog"), False),
        ("There are no cats. There are no other animals.", ("cat",), True),
        ("There are no cats in the image. It shows a street.", ("cat",), True),
        ("There are no cats in the image. It was taken at night.", ("cat",), True),
        ("There is no cat on the sofa, it is hidden behind it.", ("cat",), False),
        ("There are no animals except a dog.", ("cat",), True),
        ("There are no animals except a cat.", ("cat",), False),
        ("There are no cats except the one on the sofa.", ("cat",), False),
        ("There are no other cats besides the one at the left.", ("cat",), False),
        ("No other cats are visible apart from the one on the mat", ("cat",), False),
        ("There is no cat on the left; it is on the right.", ("cat",), False),
        ("There is no cat on the left; it's on the right.", (), False),
        ("There is no cat on the left, but there's one on the right.", ("cat",), False),
        (
            "There is no clear view of the cat, it is behind the box on the left",
            ("cat",),
            False,
        ),
        ("The cat is not visible in full, only its tail at the lower left.", ("cat",), False),
        ("The cat is not fully visible.", ("cat",), False),
        ("图中没有猫，只有一只狗。", ("猫",), True),
        ("图中没有其他猫。", ("猫",), False),
        ("左边没有猫，它在右边。", ("猫",), False),
        ("图中没有猫，只有一只狗。", ("猫", "狗"), False),
    ],
)
def test_absence_depends_on_the_names_asked_for(
    text: str, names: tuple[str, ...], none: bool
) -> None:
    assert replies.says_none(text, names) is none


@pytest.mark.parametrize(
    ("text", "expected", "message"),
    [
        pytest.param('{"point_2d": [4, 8]}', "boxes", "points", id="points for boxes"),
        pytest.param('{"bbox_3d": [1, 2, 3, 4, 5, 6, 7, 8, 9]}', "boxes", "3-D", id="3-D"),
        pytest.param("<think>hm", "boxes", "thinking", id="still thinking"),
        pytest.param("", "boxes", "nothing", id="nothing"),
        pytest.param("a cat " * 200, "points", "holds no points", id="prose"),
    ],
)
def test_the_error_says_what_the_reply_holds_instead(
    text: str, expected: replies.Expected, message: str
) -> None:
    with pytest.raises(UnreadableReply, match=message) as caught:
        read_items(text, expected)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "inside", "thinking", "answer"),
    [
        pytest.param("a cat", False, "", "a cat", id="no thought"),
        pytest.param("<think>\nhm\n</think>\n\na cat", False, "hm", "a cat", id="a thought before"),
        pytest.param(
            "The tag </think> ends it.", False, "", "The tag </think> ends it.", id="only told of"
        ),
        pytest.param("hm</think>a </think> b", True, "hm", "a </think> b", id="split once"),
        pytest.param("hm</think>a cat", True, "hm", "a cat", id="begins inside"),
        pytest.param("<think>hm</think>a cat", True, "hm", "a cat", id="opened twice"),
        pytest.param("hm, a cat", True, "hm, a cat", "", id="never ends"),
        pytest.param("<think>hm", False, "hm", "", id="opened and never ends"),
        pytest.param("<think>\n\n</think>\n\na cat", False, "", "a cat", id="an empty thought"),
        pytest.param(
            "<think>\n\n</think>\n<think>hm</think>a cat", False, "hm", "a cat", id="two thoughts"
        ),
    ],
)
def test_split_thinking(text: str, inside: bool, thinking: str, answer: str) -> None:
    assert replies.split_thinking(text, inside) == (thinking, answer)


def test_thinking_tags_in_a_label_are_text() -> None:
    label = "The tag </think> ends <think>"
    text = json.dumps([{"bbox_2d": CAT, "label": label}, {"bbox_2d": DOG, "label": "dog"}])
    assert boxes(text) == [(CAT, label), (DOG, "dog")]


@pytest.mark.parametrize(
    "first",
    [
        '"bbox_2d": [10, 20, 300, 1e999]',
        '"bbox_2d": [10, 20, 300]',
        '"bbox_2d": [10, 20, 300, 400, 500]',
        '"bbox_2d": [10, 20]',
        '"point_2d": [10, 20]',
    ],
)
def test_broken_items_beside_a_box_are_reported(first: str) -> None:
    unusable: list[str] = []
    text = f'[{{{first}, "label": "cat"}}, {TWO}]'
    assert [item.box for item in read_items(text, unusable=unusable)] == [DOG]
    assert unusable == ["cat"]


def test_function_calls_are_no_labels() -> None:
    for text in ("pyautogui.click(155, 210)", "click(x=155, y=210)", "click(155, 210)"):
        assert points(text) == [((155, 210), "")]


def test_a_stated_coordinate_order_is_followed() -> None:
    for text in (
        "[x, y, w, h]: [10, 20, 290, 380]",
        "[ymin, xmin, ymax, xmax]: [20, 10, 400, 300]",
    ):
        assert boxes(text) == [(CAT, "")]


def test_minus_one_is_a_placeholder_for_none() -> None:
    for text in ('{"thought": "no", "result": [-1, -1]}', "(-1, -1)", "<point>-1 -1</point>"):
        assert read_items(text, "points") == []
    text = '[{"point_2d": [-1, -1], "label": "a"}, {"point_2d": [5, 6], "label": "b"}]'
    assert points(text) == [((5, 6), "b")]


def test_boxes_in_the_thinking_do_not_count() -> None:
    thought = '<think>Perhaps [{"bbox_2d": [1, 2, 3, 4], "label": "owl"}]?</think>'
    assert boxes(f"{thought}\n{ONE}") == [(CAT, "cat")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("```\nplain\n```", "plain"),
        ("```markdown\n# A\n\ntext\n```\n", "# A\n\ntext"),
        ("```markdown\n# A", "# A"),
        ("```md\n# A\n```python\nx\n```\n```", "# A\n```python\nx\n```"),
        ("```a\nx\n```\nand\n```b\ny\n```", "```a\nx\n```\nand\n```b\ny\n```"),
        ("``` `a` ```", "``` `a` ```"),
        ("see:\n```\nx\n```", "see:\n```\nx\n```"),
    ],
)
def test_strip_fence(text: str, expected: str) -> None:
    assert replies.strip_fence(text) == expected


DOCUMENT = """<html><body>
<h1 data-bbox="1 2 3 4">A &amp; B</h1>
<div class="text" data-bbox="5 6 7 8">one<br/>two <b>three</b></div>
<ul data-bbox="9 9 20 20"><li data-bbox="9 9 20 12">first</li><li data-bbox="9 13 20 20">second</ul>
<div class="table" data-bbox="1 1 9 9"><table><tr><td>a</td><td>b</td></tr><tr><td>c</table></div>
<div class="text" data-bbox="2 2 4 4">cut of"""


def test_blocks_of_a_document() -> None:
    found = [(block.kind, block.box, block.text) for block in markup.blocks(DOCUMENT)]
    assert found == [
        ("h1", (1, 2, 3, 4), "A & B"),
        ("text", (5, 6, 7, 8), "one\ntwo three"),
        ("ul", (9, 9, 20, 20), ""),
        ("li", (9, 9, 20, 12), "first"),
        ("li", (9, 13, 20, 20), "second"),
        ("table", (1, 1, 9, 9), "a\tb\nc"),
        ("text", (2, 2, 4, 4), "cut of"),
    ]
    assert markup.blocks(DOCUMENT)[1].html == "one<br/>two <b>three</b>"


def test_the_declared_size_of_a_document() -> None:
    assert markup.declared_size("1540 1008\n```html\n<p>") == ((1540, 1008), "```html\n<p>")
    for text in ("1540 1008", "1540 1008\nTotal", "0 0\n<p>", "<p>1 2\n<b>"):
        assert markup.declared_size(text) == (None, text)


# Hostile and unlucky texts: built from what the readers look for.
SCRAPS = st.sampled_from(
    [
        *"[]{}(),:\"'\\\n <>/=1-.#１“”【】，",
        "3.5", "NaN", "null", "cat", "bbox_2d", '"bbox_2d": ', '"label": ', "[1,2,3,4]", "(1,2)",
        "<box>", "</box>", "<ref>", "</ref>", "<think>", "</think>", '<p data-bbox="1 2 3 4">',
        "</p>", "<points x1=1 ", "```", "```json\n", "//", "/*", " no ", " not ", "none",
        "There is ", "没有", "\\ud800",
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    st.text() | st.lists(SCRAPS, max_size=40).map("".join),
    st.sampled_from(["boxes", "points", "lines"]),
)
def test_any_text_is_parsed_or_unreadable(text: str, expected: replies.Expected) -> None:
    try:
        items = read_items(text, expected, ("cat",))
    except UnreadableReply as error:
        assert error.raw == text
        return
    for item in items:
        place = item.box or item.point or ()
        assert len(place) in (2, 4) or (expected == "lines" and item.text)
        assert all(abs(number) < 10**9 for number in place)
        item.label.encode()


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(*[st.integers(0, 1000)] * 4, st.text(max_size=20)), min_size=1, max_size=6),
    st.data(),
)
def test_a_cut_reply_gives_only_boxes_of_the_full_one(
    rows: list[tuple], data: st.DataObject
) -> None:
    told = [{"bbox_2d": list(row[:4]), "label": row[4]} for row in rows]
    text = json.dumps(told, ensure_ascii=data.draw(st.booleans()))
    cut = text[: data.draw(st.integers(0, len(text)))]
    found = [item.box for item in replies.find_items(cut)]
    assert set(found) <= {row[:4] for row in rows}
    assert [item.box for item in replies.find_items(text)] == [row[:4] for row in rows]


SIZE = 200_000
HOSTILE = {
    "open lists": "[" * SIZE,
    "open objects": "{" * SIZE,
    "open objects with names": '{"a":' * (SIZE // 5),
    "nested and closed": '{"a":' * 40_000 + "}" * 40_000,
    "mismatched": '{"a": [}]' * (SIZE // 9),
    "quotes": '"' * SIZE,
    "quotes in a string": '{"label": "' + 'x"y ' * (SIZE // 4) + '"}',
    "backslashes": '["' + "\\" * SIZE,
    "escaped quotes": '{"a": "' + '\\"' * (SIZE // 2),
    "digits": "[" + "1" * SIZE + "]",
    "spaces": "[" + " " * SIZE + "x",
    "spaces before an end token": " \n" * (SIZE // 2) + "<|im_end|",
    "places": "(1,2)" * (SIZE // 5),
    "gaps": "(1,2)" + ", " * (SIZE // 2) + "x",
    "tags": "<a " * (SIZE // 3),
    "one long tag": "<" + "a" * SIZE,
    "blocks in blocks": '<p data-bbox="1 1 2 2"><p data-bbox="1 2 3 4">' * (SIZE // 46),
    "refs": "<ref>" * (SIZE // 5),
    "points": "<points x1=" * (SIZE // 11),
    "thoughts": "<think>" * (SIZE // 7),
    "curly quotes": "“" * SIZE,
    "members cut off": "{a:[]" * (SIZE // 5),
    "denials": "no, " * (SIZE // 4),
    "boxes in brackets": "(1,2,3,4)" * (SIZE // 9),
    "four numbers that do not end": "<box>1,2,3," + "4" * SIZE,
    "members and lists cut off": '{"a":[' * (SIZE // 6) + "[1, 2]",
    "a long list of pairs": '{"points": [' + "1, 2, " * (SIZE // 6) + "3]}",
    "names for boxes": '{"a": [1, 2, 3, 4], "b": ' * 300 + "[]" + "}" * 300,
    "nothing in nothing": "[" * 900 + "]" * 900,
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in HOSTILE.items()])
def test_long_hostile_texts_are_parsed_or_unreadable_quickly(text: str) -> None:
    # Quadratic time in any reader would be minutes here, and too deep a recursion an error.
    try:
        found = len(read_items(text))
    except UnreadableReply:
        found = 0
    assert found in (0, 1, 2)


def test_a_long_reply_is_read_to_its_end() -> None:
    items = ",\n".join(
        f'{{"bbox_2d": [1, 2, 3, {k}], "text_content": "line {k}",}}' for k in range(2000)
    )
    found = read_items(f"```json\n[{items}]\n```")
    assert [item.label for item in found] == [f"line {k}" for k in range(2000)]


def test_values_know_the_key_they_were_under() -> None:
    found = loose_json.values('x [1] {"a": 2} {"k": [3], "cut": "')
    assert [(value.value, value.start, value.key) for value in found] == [
        ([1], 2, None),
        ({"a": 2}, 6, None),
        ([3], 21, "k"),
    ]


UNTRACED = {"a size in words"}
"""Forms whose items are read, but not traced to their characters: they have no scores."""


def test_items_are_traced_to_their_characters_in_every_form() -> None:
    tables = (WHOLE, FORMS_OF_A_BOX, TAGS, POINTS, BROKEN, CUT, LABELS)
    forms = [(name, row) for table in tables for name, row in table.items()]
    untraced, count = set(), 0
    for name, row in forms:
        text = row[0] if isinstance(row, tuple) else row
        try:
            read = [(i.point or i.box or (), i.label) for i in read_items(text, "points")]
        except UnreadableReply:
            continue
        for (values, label), traced in zip(read, trace(text, read), strict=True):
            count += 1
            if traced is None:
                untraced.add(name)
                continue
            written = [text[start:end] for start, end in traced.numbers]
            assert len(written) >= len(values) and all(any(c.isdigit() for c in n) for n in written)
            said = "".join(text[start:end] for start, end in traced.words)
            assert set(filter(str.isalpha, label)) <= set(said), name
    assert untraced == UNTRACED and count > 150

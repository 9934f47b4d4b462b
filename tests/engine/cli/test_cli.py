from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disk import files, write
from hub import COMMIT, Hub
from qwen_vl_suite.qwenvl.backends.scripted import Reply
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.cli import main, portions
from qwen_vl_suite.qwenvl.errors import BadImage, NumericalError, OutOfMemory
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.media import images

ROOT = Path(__file__).resolve().parents[3]
BOXES = '```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]\n```'


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    paths = []
    for number, size in enumerate([(200, 100), (50, 80)]):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", size, (number, 0, 0)).save(paths[-1])
    return paths


def parse(family, task, *more):
    return ("parse", "--family", family, "--image-size", "2000x1000", "--task", task, *more)


def box(x, y, width, height, label):
    expected = {"x": x, "y": y, "width": width, "height": height}
    return {k: pytest.approx(v, abs=1) for k, v in expected.items()} | {
        "label": label,
        "score": None,
    }


ABSOLUTE = '[{"bbox_2d": [280, 140, 560, 280], "label": "cat"}]'
PARSED = {
    "relative": (
        parse("qwen3_vl", "boxes"), BOXES, [box(200, 200, 400, 200, "cat")], [],
    ),
    "relative, the input size does not matter": (
        parse("qwen3_vl", "boxes", "--input-size", "320x320"),
        BOXES, [box(200, 200, 400, 200, "cat")], [],
    ),
    "absolute, at the size given": (
        parse("qwen2_5_vl", "boxes", "--input-size", "1400x700"),
        ABSOLUTE, [box(400, 200, 400, 200, "cat")], [],
    ),
    "absolute, at the size the processor makes (1988x1008)": (
        parse("qwen2_5_vl", "boxes"),
        '[{"bbox_2d": [994, 504, 1988, 1008], "label": "cat"}]',
        [box(1000, 500, 1000, 500, "cat")], [],
    ),
    "points": (
        parse("qwen3_vl", "points"),
        '[{"point_2d": [500, 250], "label": "eye"}]',
        [],
        [{"x": pytest.approx(1000), "y": pytest.approx(250), "label": "eye", "score": None}],
    ),
    "a thought before": (
        parse("qwen3_vl", "boxes"), "so, [1, 2, 3]...</think>\n\n" + BOXES,
        [box(200, 200, 400, 200, "cat")], [],
    ),
    "tags of the first generation": (
        parse("qwen", "boxes"), "<ref>cat</ref><box>(100,200),(300,400)</box>",
        [box(200, 200, 400, 200, "cat")], [],
    ),
    "none": (parse("qwen3_vl", "boxes"), "[]", [], []),
    "a family by its title": (
        parse("Qwen2.5-VL", "boxes", "--input-size", "1400x700"),
        ABSOLUTE, [box(400, 200, 400, 200, "cat")], [],
    ),
    "Chinese, whatever the console's encoding": (
        parse("qwen3_vl", "boxes"), BOXES.replace("cat", "猫"),
        [box(200, 200, 400, 200, "猫")], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("argv", "reply", "boxes", "points"), PARSED.values(), ids=PARSED)
def test_parse(run, argv, reply, boxes, points):
    status, rows, err = run(*argv, stdin=reply)
    assert (status, err) == (0, "")
    assert len(rows) == 1 and list(rows[0]) == ["boxes", "points", "text", "data", "notes"]
    assert (rows[0]["boxes"], rows[0]["points"]) == (boxes, points)


def test_parse_ocr_gives_text_and_where_it_stands(run):
    reply = '[{"bbox_2d": [0, 0, 500, 100], "text_content": "Hello"}]'
    status, rows, _ = run(*parse("qwen3_vl", "ocr"), stdin=reply)
    assert status == 0
    assert rows[0]["text"] == "Hello"
    assert rows[0]["boxes"] == [box(0, 0, 1000, 100, "Hello")]


@pytest.mark.parametrize("task", ["boxes", "points"])
def test_an_unreadable_reply_exits_with_3(run, task):
    status, out, err = run(*parse("qwen3_vl", task), stdin="I like the picture, it is blue.")
    assert (status, out) == (3, "")
    assert err.startswith("error: ") and "Traceback" not in err


BAD = {
    "family": (*parse("gpt", "boxes"),),
    "task": (*parse("qwen3_vl", "masks"),),
    "size": ("parse", "--family", "qwen3_vl", "--image-size", "12", "--task", "boxes"),
    "zero": ("parse", "--family", "qwen3_vl", "--image-size", "0x9", "--task", "boxes"),
    "no command": (),
}


@pytest.mark.parametrize("argv", BAD.values(), ids=BAD)
def test_bad_options_exit_with_2_and_say_what_is_possible(run, argv):
    status, out, err = run(*argv, stdin="[]")
    assert (status, out) == (2, "")
    assert "error: " in err and "Traceback" not in err


def test_each_image_gets_one_json_object(run, model, pictures):
    backend = model(Reply("a", thinking="hm"), "b")
    status, rows, _ = run("describe", *pictures, "--json", "--style", "short")
    assert status == 0
    assert [(row["image"], row["text"]) for row in rows] == list(zip(pictures, "ab", strict=True))
    assert {"boxes", "points", "data", "notes", "thinking", "finish_reason"} <= set(rows[0])
    assert [row["thinking"] for row in rows] == ["hm", ""]
    assert "error" not in rows[0]
    assert [tuple(r.images[0].shape) for r in backend.requests] == [(3, 100, 200), (3, 80, 50)]


def test_without_json_text_is_printed(run, model, pictures):
    model("a cat")
    assert run("describe", pictures[0])[1] == "a cat\n"
    assert run("describe", *pictures)[1] == f"{pictures[0]}:\na cat\n\n{pictures[1]}:\na cat\n\n"


def test_boxes_are_in_pixels_of_the_picture(run, model, pictures):
    model(BOXES)
    _, rows, _ = run("ground", pictures[0], "--find", "cat", "--json")
    assert rows[0]["boxes"] == [box(20, 20, 40, 20, "cat")]


def test_points_can_be_requested(run, model, pictures):
    backend = model('[{"point_2d": [500, 500], "label": "cat"}]')
    _, rows, _ = run("ground", pictures[0], "--find", "cat", "--kind", "points", "--json")
    assert rows[0]["points"] == [{"x": 100.0, "y": 50.0, "label": "cat", "score": None}]
    assert "cat" in backend.requests[0].prompt


def test_several_queries_are_counted_apart(run, model, pictures):
    backend = model(BOXES, "None found.", "nonsense, I am afraid", "None found.")
    status, rows, _ = run(
        "ground", *pictures, "--find", "cat, dog", "--find", "the cat on the left", "--json"
    )
    assert backend.batches == [4] and status == 0
    assert rows[0]["counts"] == {"cat, dog": 1, "the cat on the left": 0}
    assert rows[0]["data"][0]["query"] == "cat, dog" and rows[0]["finish_reason"] == "stop"
    assert rows[1]["counts"] == {"the cat on the left": 0}, "a query that fails costs only itself"
    assert "1 of 2 replies about this picture are missing" in rows[1]["notes"][-1]
    model("nonsense, I am afraid")
    status, (row,), _ = run("ground", pictures[0], "--find", "cat", "--find", "dog", "--json")
    assert status == 3 and row["error"] and row["counts"] == {}
    backend = model(BOXES)
    _, rows, _ = run("ground", pictures[0], "--find", "cat, dog", "--json")
    assert rows[0]["counts"] == {"cat, dog": 1} and "query" not in rows[0]["data"][0]


ACTION = (
    "Thought: A gear.\nAction: Tap it.\n<tool_call>\n"
    '{"name": "mobile_use", "arguments": {"action": "click", "coordinate": [500, 500]}}'
    "\n</tool_call>"
)


def test_an_action_is_told_with_its_place(run, model, pictures):
    backend = model(ACTION)
    goal = "open the settings,\nthen the Wi-Fi"
    _, (row,), _ = run(
        "ground", pictures[0], "--kind", "action", "--find", goal, "--screen", "mobile", "--json"
    )
    (point,) = row["points"]
    assert (point["x"], point["y"], point["label"], row["boxes"]) == (100.0, 50.0, "click", [])
    assert row["data"]["step"] == "Tap it." and row["data"]["point_2d"] == [100, 50]
    (request,) = backend.requests
    assert goal in request.prompt and '"name": "mobile_use"' in request.system


def test_an_action_can_be_parsed(run):
    _, (row,), _ = run(*parse("qwen3_vl", "action"), stdin=ACTION)
    assert row["data"]["arguments"] == {"action": "click", "coordinate": [1000, 500]}


def test_regions_tiles_and_a_second_look(run, model, pictures):
    backend = model(BOXES)
    _, (row,), _ = run("ground", pictures[0], "--find", "cat", "--inside", "20,10,100,50", "--json")
    assert tuple(backend.requests[0].images[0].shape[-2:]) == (70, 120)
    assert row["boxes"] == [box(10 + 12, 0 + 14, 24, 14, "cat")] and row["counts"] == {"cat": 1}
    backend = model(BOXES)
    run("ground", pictures[0], "--find", "cat", "--tile", "100", "--look-again", "--json")
    assert backend.batches == [4, 3] and backend.requests[0].logprobs
    for wrong in ("1,2,3", "a", "1,2,0,4", "-1,2,3,4"):
        status, _, err = run("ground", pictures[0], "--find", "cat", f"--inside={wrong}")
        assert status == 2 and "X,Y,WIDTH,HEIGHT" in err


def test_readable_replies_are_shown_beside_unreadable_ones(run, model, pictures):
    model("nonsense, I am afraid", BOXES)
    status, rows, err = run("ground", *pictures, "--find", "cat", "--json")
    assert status == 3
    assert rows[0]["error"] and rows[0]["text"] == "nonsense, I am afraid"
    assert "error" not in rows[1] and len(rows[1]["boxes"]) == 1
    assert pictures[0] in err and pictures[1] not in err


def test_a_truncated_reply_gets_a_note(run, model, pictures):
    model("a cat and a dog")
    _, rows, err = run("describe", pictures[0], "--json", "--max-new-tokens", "3")
    assert rows[0]["text"] == "a cat and"
    assert rows[0]["finish_reason"] == "length"
    assert len(rows[0]["notes"]) == 1 and "max_new_tokens" in rows[0]["notes"][0]
    assert err == f"note: {pictures[0]}: {rows[0]['notes'][0]}\n"


def test_ocr_options_reach_the_task(run, model, pictures):
    backend = model("Hello")
    run("ocr", pictures[0], "--output", "markdown")
    run("ocr", pictures[0], "--output", "plain", "--language", "Finnish")
    assert len({r.prompt for r in backend.requests}) == 2
    assert "Finnish" in backend.requests[1].prompt


def test_ocr_asks_a_fine_tune_as_it_was_trained(run, model, pictures, tmp_path):
    folder = write(tmp_path / "R1-Onevision-7B", files())
    backend = model("Hello")
    chosen = ("--preset", "RolmOCR")
    for more in ((), chosen, (*chosen, "--max-pixels", "99999"), ("--preset", "none")):
        run("ocr", wide(tmp_path), "--model", folder, *more)
    usual = backend.requests[0].prompt
    asked = [(request.prompt == usual, request.max_pixels) for request in backend.requests]
    assert asked == [(True, 518 * 259), (False, None), (False, 99999), (True, None)]


def wide(folder):
    from PIL import Image

    Image.new("RGB", (1036, 518)).save(folder / "wide.png")
    return folder / "wide.png"


def test_sampling_options_override_single_fields(run, model, pictures):
    backend = model("a cat")
    run("describe", pictures[0], "--temperature", "0.1", "--seed", "7", "--max-new-tokens", "9")
    run("describe", pictures[0])
    changed, own = (request.sampling for request in backend.requests)
    assert (changed.temperature, changed.seed, changed.max_new_tokens) == (0.1, 7, 9)
    assert changed.top_p == own.top_p == FAMILIES["qwen3_vl"].sampling.top_p
    assert own.temperature == FAMILIES["qwen3_vl"].sampling.temperature


def test_the_other_options_reach_the_request(run, model, pictures):
    backend = model("a cat")
    run(
        "describe", pictures[0], "--prompt", "What now?", "--system", "Be kind.",
        "--max-pixels", "4096", "--no-thinking",
    )  # fmt: skip
    request = backend.requests[0]
    assert (request.prompt, request.system, request.max_pixels, request.thinking) == (
        "What now?", "Be kind.", 4096, False,
    )  # fmt: skip


def test_options_of_the_model_reach_its_spec(run, model, pictures):
    backend = model("a cat")
    run("describe", pictures[0], "--optimize", "off", "--precision", "fp32", "--device", "cpu")
    (spec,) = backend.specs
    assert (spec.optimize, spec.precision, spec.device) == ("off", "fp32", "cpu")


def test_extract_gives_json_of_the_form_asked_for(run, model, pictures, tmp_path):
    backend = model('{"title": "A", "price": null}')
    _, (row,), _ = run("extract", pictures[0], "--keys", "title, price", "--json")
    assert (row["data"], row["complete"]) == ({"title": "A", "price": None}, True)
    assert "title, price" in backend.requests[0].prompt
    schema = json.loads(backend.requests[0].constraint.source)
    assert schema["required"] == ["title", "price"]
    (tmp_path / "form.json").write_text('{"title": "a", "tags": ["b"]}', encoding="utf-8")
    run("extract", pictures[0], "--example", tmp_path / "form.json", "--prompt", "What is sold?")
    asked = backend.requests[1]
    assert asked.prompt.startswith("What is sold?") and '"tags"' in asked.prompt
    (tmp_path / "schema.json").write_text('{"type": "integer"}', encoding="utf-8")
    run("extract", pictures[0], "--schema", tmp_path / "schema.json")
    assert json.loads(backend.requests[2].constraint.source) == {"type": "integer"}


def test_layout_gives_the_form_asked_for(run, model, pictures):
    element = {"type": "text", "bbox_2d": [0, 0, 500, 500], "text": "HI", "desc": "Letters."}
    style = {"medium": "painting", "look": "oil", "aesthetics": "soft", "lighting": "dim"}
    found = {"caption": "A sign.", "style": style, "background": "A wall.", "elements": [element]}
    backend = model(json.dumps(found))
    _, (row,), _ = run("layout", pictures[0], "--json", "--max-elements", "3")
    assert row["data"]["high_level_description"] == "A sign." and row["complete"] is True
    assert [box["label"] for box in row["boxes"]] == ["HI"] and "counts" not in row
    assert "at most 3" in backend.requests[0].prompt
    argv = ("layout", pictures[0], "--form", "plain", "--instructions", "In German.", "--json")
    _, (row,), _ = run(*argv)
    assert row["data"]["elements"][0]["text"] == "HI" and row["data"]["palette"]
    assert backend.requests[1].prompt.endswith("In German.")


def test_extract_leaves_strings_as_they_are(run, model, pictures):
    value = {"name": "</think> ```json", "price": None}
    model(json.dumps(value), "```json\n" + json.dumps(value) + "\n```")
    _, rows, _ = run("extract", *pictures, "--keys", "name,price", "--json")
    assert [row["data"] for row in rows] == [value, value]


def test_extract_keeps_what_is_whole_of_an_answer_that_was_cut(run, model, pictures):
    model('[{"name": "one"}, {"name": "two"}]')
    argv = ("extract", pictures[0], "--keys", "name", "--json", "--max-new-tokens", "12")
    status, (row,), _ = run(*argv)
    assert status == 0, row
    assert row["data"] == [{"name": "one"}] and row["complete"] is False
    assert any("cut" in note for note in row["notes"])


@pytest.mark.parametrize(
    ("given", "text", "words"),
    [
        ("--schema", "{'a': 1}", "not valid JSON"),
        ("--example", "{", "not valid JSON"),
        ("--schema", None, "cannot be read"),
    ],
)
def test_a_form_that_is_none_is_refused(run, model, pictures, tmp_path, given, text, words):
    model("{}")
    if text is not None:
        (tmp_path / "form.json").write_text(text, encoding="utf-8")
    status, _, err = run("extract", pictures[0], given, tmp_path / "form.json")
    assert status == 2 and words in err


def test_log_probabilities_are_printed_where_they_are_asked_for(run, model, pictures):
    model(Reply(BOXES, logprobs=-0.25), BOXES)
    _, (row,), _ = run("ground", pictures[0], "--find", "cat", "--json", "--logprobs")
    assert row["reply"] == BOXES and row["boxes"]
    assert "".join(row["reply"][start:end] for start, end, _ in row["tokens"]) == BOXES
    assert {logprob for _, _, logprob in row["tokens"]} == {-0.25}
    _, (row,), _ = run("ground", pictures[0], "--find", "cat", "--json")
    assert "tokens" not in row and "reply" not in row


def test_scores_are_printed_and_a_threshold_leaves_out(run, model, pictures):
    backend = model(Reply(BOXES, logprobs=-0.25))
    for command in (("ground", "--find", "cat"), ("ocr", "--output", "lines")):
        name, *given = command
        _, (row,), _ = run(name, pictures[0], *given, "--json", "--scores")
        assert [box["score"] for box in row["boxes"]] == [pytest.approx(0.7788, abs=1e-4)]
        _, (row,), _ = run(name, pictures[0], *given, "--json", "--min-score", "0.8")
        assert row["boxes"] == [] and row["data"] == []
    _, (row,), _ = run("ground", pictures[0], "--find", "cat", "--json")
    assert row["boxes"][0]["score"] is None and not backend.requests[-1].logprobs
    status, _, err = run("ground", pictures[0], "--find", "cat", "--min-score", "7")
    assert status == 2 and "min_score is 7" in err


def test_the_model_is_the_bundled_one_or_a_folder(run, model, pictures, tmp_path, monkeypatch):
    backend = model("a cat")
    monkeypatch.chdir(ROOT)  # which holds a folder of the bundled model's name
    run("describe", pictures[0])
    run("describe", pictures[0], "--model", "demo")
    run("describe", pictures[0], "--model", "nano")
    run("describe", pictures[0], "--model", tmp_path, "--quantization", "4bit", "--device", "cpu")
    bundled, other = backend.specs
    assert bundled.checkpoint == str(library.BUNDLED)
    assert (other.checkpoint, other.quantization, other.device) == (str(tmp_path), "4bit", "cpu")


NAMED = {
    "on the hub": "Qwen/Qwen3-VL-2B-Instruct",
    "on the hub, of any owner": "somebody/Qwen3-VL-2B-Instruct",
    "as the list has it": "Qwen-VL/Qwen3-VL-2B-Instruct",
    "as the Loader's list has it": "Qwen/Qwen3-VL-2B-Instruct (download, 4.3 GB)",
    "its own name": "Qwen3-VL-2B-Instruct",
    "in other capitals": "qwen3-vl-2b-instruct",
}


@pytest.mark.parametrize("name", NAMED.values(), ids=NAMED)
def test_the_model_is_found_below_the_roots_by_name(run, model, pictures, tmp_path, name):
    backend = model("a cat")
    folder = write(tmp_path / "two" / "Qwen-VL" / "Qwen3-VL-2B-Instruct", files())
    roots = ("--root", tmp_path / "one", "--root", tmp_path / "two")
    status, _, err = run("describe", pictures[0], "--model", name, *roots)
    assert (status, err) == (0, "")
    assert backend.specs[0].checkpoint == str(folder)


def test_every_name_that_models_lists_is_a_model(run, model, pictures, tmp_path):
    backend = model("a cat")
    write(tmp_path / "group" / "one", files())
    write(tmp_path / "two", files())
    _, rows, _ = run("models", "--root", tmp_path, "--json")
    for row in rows:
        status, _, err = run("describe", pictures[0], "--model", row["name"], "--root", tmp_path)
        assert (status, err) == (0, "")
    assert [spec.checkpoint for spec in backend.specs] == [row["path"] for row in rows]


def test_the_default_root_is_looked_up_too(run, model, pictures, tmp_path, monkeypatch):
    backend = model("a cat")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "models" / "LLM" / "mine", files())
    assert run("describe", pictures[0], "--model", "mine")[0] == 0
    assert Path(backend.specs[0].checkpoint).resolve() == tmp_path / "models" / "LLM" / "mine"


NOT_THERE = {
    "mine": "There is no model 'mine' in ROOT. Those here: nano, Qwen-VL/other. Others can be "
    "downloaded (python -m qwenvl download <owner>/<name>).",
    "Qwen-VL/othr": "There is no model 'Qwen-VL/othr' in ROOT. Did you mean Qwen-VL/other?",
    "Qwen/Qwen3-VL-2B-Instrukt": "Did you mean Qwen/Qwen3-VL-2B-Instruct?",
    "Qwen/Qwen3-VL-2B-Instruct": "Qwen/Qwen3-VL-2B-Instruct is not in ROOT. Download it first: "
    "python -m qwenvl download Qwen/Qwen3-VL-2B-Instruct --root ROOT",
    "somebody/Tiny-VL": "somebody/Tiny-VL is not in ROOT/somebody. Download it first: "
    "python -m qwenvl download somebody/Tiny-VL --root ROOT/somebody",
    "https://www.modelscope.cn/models/somebody/Tiny-VL": "python -m qwenvl download "
    "somebody/Tiny-VL --root ROOT/somebody@modelscope --source modelscope",
    "/no/such/folder": "There is no model folder at '/no/such/folder'.",
    "./other": "There is no model folder at './other'.",
    "": "There is no model '' in ROOT.",
}


@pytest.mark.parametrize("name", NOT_THERE)
def test_a_model_that_is_not_there_is_an_error_that_says_what_is(run, pictures, tmp_path, name):
    write(tmp_path / "Qwen-VL" / "other", files())
    status, out, err = run("describe", pictures[0], "--model", name, "--root", tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert NOT_THERE[name].replace("ROOT", str(tmp_path)) in err


def test_an_incomplete_model_says_what_it_lacks(run, pictures, tmp_path):
    whole = files()
    name = "Qwen3-VL-2B-Instruct"
    write(tmp_path / name, {k: v for k, v in whole.items() if k != "tokenizer.json"})
    status, _, err = run("describe", pictures[0], "--model", f"Qwen/{name}", "--root", tmp_path)
    assert status == 2 and "tokenizer.json is missing" in err and "Download it again" in err


FAILURES = {
    "no such picture": ("describe", "absent.png"),
    "no such model": ("describe", "PICTURE", "--model", "absent"),
    "a wish that cannot be met": ("describe", "PICTURE", "--thinking"),
    "no such repository": ("download", "nonsense"),
}


@pytest.mark.parametrize("argv", FAILURES.values(), ids=FAILURES)
def test_errors_are_one_line_on_stderr(run, model, pictures, monkeypatch, argv):
    if "absent" not in argv:
        model("a cat")
    status, out, err = run(*(pictures[0] if word == "PICTURE" else word for word in argv))
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1


def tiff_of_nan():
    from PIL import Image

    file = io.BytesIO()
    Image.new("F", (4, 3), float("nan")).save(file, "TIFF")
    return file.getvalue()


@pytest.fixture
def files_of(tmp_path, pictures):
    """``files_of("good cut good")``: paths of files of these kinds."""
    content = Path(pictures[0]).read_bytes()
    kinds = {"good": content, "cut": content[:-40], "text": b"no picture", "nan": tiff_of_nan()}

    def make(words):
        paths = []
        for number, word in enumerate(words.split()):
            paths.append(str(tmp_path / f"{number}-{word}.png"))
            if word in kinds:
                Path(paths[-1]).write_bytes(kinds[word])
            elif word == "folder":
                Path(paths[-1]).mkdir()
        return paths

    return make


NONSENSE = "I like the picture, it is blue."
OUTCOMES = {
    "all are found": ("good good good", [BOXES], 0),
    "a damaged picture": ("good cut good", [BOXES], 1),
    "no file": ("absent good", [BOXES], 1),
    "a folder": ("good folder", [BOXES], 1),
    "a picture of NaN": ("good nan good", [BOXES], 1),
    "the numbers of one overflowed": ("good good good", [BOXES, NumericalError("NaN"), BOXES], 1),
    "one cannot be shown to a model": ("good good", [BOXES, BadImage("too long")], 1),
    "memory did not suffice for one": ("good good", [BOXES, OutOfMemory("too large")], 1),
    "a reply that cannot be read": ("good good", [BOXES, NONSENSE], 3),
    "no reply can be read": ("good good", [NONSENSE], 3),
    "one damaged, one unreadable": ("cut good", [NONSENSE], 1),
    "all damaged": ("cut text absent", [BOXES], 2),
    "memory sufficed for none": ("good good", [OutOfMemory("too large")], 2),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_every_input_gives_a_line_and_the_status_says_how_it_went(run, model, files_of, case):
    words, replies, expected = OUTCOMES[case]
    model(*replies)
    paths = files_of(words)
    status, rows, err = run("ground", *paths, "--find", "cat", "--json")
    assert status == expected
    assert [row["image"] for row in rows] == paths
    failed = [row for row in rows if "error" in row]
    assert bool(failed) == bool(expected)
    assert all(len(row["boxes"]) == 1 for row in rows if "error" not in row)
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [
        f"error: {row['error']}" if row["image"] in row["error"]
        else f"error: {row['image']}: {row['error']}"
        for row in failed
    ]  # fmt: skip


@pytest.mark.parametrize("case", OUTCOMES)
def test_the_outcome_is_the_same_without_json(run, model, files_of, case):
    words, replies, expected = OUTCOMES[case]
    model(*replies)
    paths = files_of(words)
    status, out, err = run("ground", *paths, "--find", "cat")
    assert status == expected
    shown = [path for path in paths if f"{path}:\n" in out]
    assert [path for path in paths if path not in shown] == [
        path for path in paths if f"error: {path}" in err
    ]


def test_at_most_two_portions_are_held(run, model, pictures, monkeypatch):
    monkeypatch.setattr(portions, "MAX_IMAGES", 3)
    read = []
    real = images.read
    monkeypatch.setattr(images, "read", lambda path: read.append(path) or real(path))
    ahead = []

    def reply(request):
        ahead.append(len(read) - len(ahead))
        return "a cat"

    backend = model(reply)
    paths = [pictures[0]] * 10
    status, rows, _ = run("describe", *paths, "--json")
    assert (status, len(rows), backend.batches) == (0, 10, [3, 3, 3, 1])
    assert max(ahead) <= 6, "the portion being answered, and the next"


def test_a_portion_is_bounded_in_bytes(run, model, pictures, monkeypatch):
    monkeypatch.setattr(portions, "MAX_BYTES", 2 * 3 * 200 * 100)
    backend = model("a cat")
    assert run("describe", *[pictures[0]] * 5, "--json")[0] == 0
    assert backend.batches == [2, 2, 1]


def test_results_are_printed_in_order_as_soon_as_they_can_be(
    run, model, pictures, monkeypatch, capsys
):
    monkeypatch.setattr(portions, "MAX_IMAGES", 2)
    shown = []

    def before_answer(number):
        shown.append((number, capsys.readouterr().out))

    model("a long answer", "a short", before_answer=before_answer)
    run("describe", *[pictures[0]] * 4, "--json")
    # The shorter one of each call is answered first, and is held back for the other.
    assert [(number, out.count("\n")) for number, out in shown] == [(1, 0), (0, 0), (3, 2), (2, 0)]


STOPS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.mark.parametrize("name", [name for name in STOPS if hasattr(signal, name)])
@pytest.mark.parametrize("how", [("--json",), ()], ids=["JSON", "text"])
def test_a_signal_leaves_whole_results_and_says_how_far_it_came(
    run, model, pictures, monkeypatch, name, how
):
    monkeypatch.setattr(portions, "MAX_IMAGES", 2)
    number = getattr(signal, name)
    own = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    before = signal.signal(number, own)  # whoever runs the tests may have it ignored
    try:
        backend = model(
            "a cat there",
            "a cat",  # answered first
            before_answer=lambda at: os.kill(os.getpid(), number) if at == 4 else None,
        )
        status, out, err = run("describe", *[pictures[0]] * 10, *how)
        assert signal.getsignal(number) == own
    finally:
        signal.signal(number, before)
    assert status == STOPS[name]
    assert err == "stopped after 4 of 10\n"
    assert (len(out) if how else out.count("a cat")) == 4
    assert backend.batches == [2, 2, 2]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_an_ignored_signal_stays_ignored(run, model, pictures, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        model("a cat", before_answer=lambda at: os.kill(os.getpid(), signal.SIGHUP))
        assert run("describe", pictures[0])[:2] == (0, "a cat\n")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_pipe_stops(run, model, pictures, monkeypatch):
    monkeypatch.setattr(portions, "MAX_IMAGES", 1)
    reads, writes = os.pipe()
    asked = []

    def before_answer(number):
        asked.append(number)
        if number == 1:
            assert os.read(reads, 1000).endswith(b"\n"), (
                "a result is written as soon as it is answered"
            )
            os.close(reads)

    model("a cat", before_answer=before_answer)
    with os.fdopen(writes, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        status, _, err = run("describe", *[pictures[0]] * 10, "--json")
    assert status == 141
    assert err == "stopped after 1 of 10\n"
    assert asked == [0, 1]


def test_an_error_of_the_backend_leaves_the_results_so_far(run, model, pictures, monkeypatch):
    monkeypatch.setattr(portions, "MAX_IMAGES", 2)

    asked = []

    def reply(request):
        asked.append(request)
        if len(asked) == 4:
            raise NumericalError("NaN")
        return "a cat"

    model(reply)
    status, rows, err = run("describe", *[pictures[0]] * 5, "--json")
    assert (status, len(rows)) == (1, 2)
    assert err == "error: NaN\nstopped after 2 of 5\n"


def test_options_that_allow_no_request_end_the_run(run, model, pictures, monkeypatch):
    monkeypatch.setattr(portions, "MAX_IMAGES", 2)
    model("a cat")
    status, rows, err = run("describe", *[pictures[0]] * 6, "--json", "--max-pixels", "5")
    assert status == 2
    assert [row["error"].partition(",")[0] for row in rows] == ["max_pixels is 5"] * 2
    assert err.endswith("stopped after 2 of 6\n")


def test_a_bug_is_shown_with_its_traceback(run, model, pictures):
    def reply(request):
        raise ZeroDivisionError("a fault")

    model(reply)
    status, out, err = run("describe", pictures[0])
    assert (status, out) == (2, "")
    assert "Traceback" in err and "ZeroDivisionError: a fault" in err


def test_names_that_are_not_utf8_are_printed_well_formed(run, model, pictures, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / name).write_bytes(Path(pictures[0]).read_bytes())
    except OSError:
        pytest.skip("this file system has only names in UTF-8")
    backend = model("half \ud83d of one")
    prompt = os.fsdecode(b"na\xefve?")
    status, rows, err = run("describe", tmp_path / name, "gone\udce9", "--json", "--prompt", prompt)
    assert status == 1, err
    assert [row["image"] for row in rows] == [str(tmp_path / "caf\ufffd.png"), "gone\ufffd"]
    assert rows[0]["text"] == "half \ufffd of one"
    assert "gone\ufffd cannot be read" in err
    assert backend.requests[0].prompt == prompt


ODD_NUMBERS = {
    "more pixels than any model can take": (("--min-pixels", "1e12"), "min_pixels"),
    "fewer than a token": (("--max-pixels", "5"), "max_pixels"),
    "less than none": (("--min-pixels", "-1"), "min_pixels"),
    "half a pixel": (("--min-pixels", "0.5"), "whole number"),
    "infinite": (("--min-pixels", "1e999"), "whole number"),
    "no number": (("--max-pixels", "many"), "whole number"),
    "thousands of digits": (("--max-pixels", "9" * 5000), "whole number"),
    "no tokens": (("--max-new-tokens", "0"), "max_new_tokens"),
    "too many tokens": (("--max-new-tokens", "1e30"), "max_new_tokens"),
    "a thought of less than nothing": (("--max-thinking-tokens", "-1"), "max_thinking_tokens"),
    "NaN": (("--temperature", "nan"), "temperature"),
    "a cold one": (("--temperature", "-1"), "temperature"),
    "top_p": (("--top-p", "inf"), "top_p"),
    "a seed": (("--seed", "x"), "whole number"),
}


@pytest.mark.parametrize("case", ODD_NUMBERS)
def test_odd_numbers_are_reported(run, pictures, case):
    argv, said = ODD_NUMBERS[case]
    status, out, err = run("describe", pictures[0], *argv)
    assert (status, out) == (2, "")
    assert "error: " in err and said in err and "Traceback" not in err


@pytest.mark.parametrize("text", ["1e400x5", "5x99999999999", "9" * 5000 + "x1", "-5x5", "x", "5"])
def test_odd_sizes_are_reported(run, text):
    status, out, err = run(
        "parse", "--family", "qwen2_5_vl", "--task", "boxes", f"--image-size={text}", stdin="[]"
    )
    assert (status, out) == (2, "") and "is no size" in err


@pytest.mark.parametrize("number", ["4096", "4.096e3"])
def test_large_numbers_may_be_in_exponent_notation(run, model, pictures, number):
    backend = model("a cat")
    run("describe", pictures[0], "--max-pixels", number)
    assert backend.requests[0].max_pixels == 4096


@pytest.mark.parametrize(
    "command", [None, "describe", "ocr", "ground", "parse", "models", "download"]
)
def test_help_explains_the_exit_status(run, command):
    status, out, _ = run(*filter(None, [command]), "--help")
    assert status == 0
    for code in (0, 1, 2, 3, 129, 130, 143, 141):
        assert re.search(rf"^  .*\b{code}\b", out, re.MULTILINE)


def test_a_wrong_option_is_said_in_a_line_with_where_all_stand(run, capsys):
    for words, wrong, command in (
        (("caption", "x", "--trainer", "foo"), "--trainer: invalid choice: 'foo'", " caption"),
        (("caption",), "required: FOLDER", " caption"),
        (("ocr", "a.png", "--colour", "red"), "--colour", ""),
        (("paint",), "invalid choice: 'paint'", ""),
    ):
        with pytest.raises(SystemExit) as stopped:
            main.main(list(words))
        out, err = capsys.readouterr()
        first, second = err.splitlines()
        assert (stopped.value.code, out) == (2, "")
        assert first.startswith("error: ") and wrong in first
        assert second == f"All options: python -m qwenvl{command} --help"


def test_parse_gives_notes_and_data(run):
    reply = '[{"bbox_2d": [100, 200, 1500, 400], "label": "cat", "colour": "red", "odd": 1e999}]'
    status, rows, _ = run(*parse("qwen3_vl", "boxes"), stdin=reply)
    assert status == 0
    assert len(rows[0]["notes"]) == 1 and "outside" in rows[0]["notes"][0]
    assert rows[0]["data"][0]["colour"] == "red" and rows[0]["data"][0]["odd"] is None


def test_parse_reports_a_closed_stdin(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert main.main(parse("qwen3_vl", "boxes")) == 2
    assert "stdin" in capsys.readouterr().err


def test_a_closed_pipe_ends_the_process_quietly():
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "qwenvl", "models", "--catalogue"],
            cwd=ROOT,
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_models_lists_the_models_on_disk(run, tmp_path):
    whole = files()
    write(tmp_path / "Qwen-VL" / "whole", whole)
    write(tmp_path / "half", {k: v for k, v in whole.items() if "00001" not in k})
    status, rows, _ = run("models", "--root", tmp_path, "--json")
    assert status == 0
    found = {row["name"]: row for row in rows}
    assert set(found) == {"nano", "half", "Qwen-VL/whole"}
    assert found["Qwen-VL/whole"]["problem"] == ""
    assert found["Qwen-VL/whole"]["family"] == "qwen3_vl"
    assert found["half"]["missing"] == ["model-00001-of-00002.safetensors"]
    _, text, _ = run("models", "--root", tmp_path)
    assert "half  qwen3_vl" in text and "is missing" in text


def test_models_can_list_the_catalogue(run, tmp_path):
    _, rows, _ = run("models", "--root", tmp_path, "--catalogue", "--json")
    assert {row.get("repo_id") for row in rows} >= set(library.CATALOGUE)


def test_download(run, tmp_path):
    with Hub({"Qwen/Tiny": files()}) as hub:
        argv = ("download", "Qwen/Tiny", "--root", tmp_path, "--endpoint", hub.url)
        status, out, err = run(*argv)
        assert (status, out) == (0, f"{tmp_path / 'Tiny'}\n")
        size = sum(map(len, files().values()))
        assert err.splitlines()[-1].startswith(f"{size} B of {size} B  model-0000")
        (row,) = run(*argv, "--source", "modelscope", "--json")[1]
        assert row == {"path": f"{tmp_path}/Tiny", "revision": "master"}
        pinned = ("download", "https://hf.co/Qwen/Tiny/tree/v1", *argv[2:], "--json")
        assert run(*pinned)[1] == [{"path": f"{tmp_path}/Tiny@v1", "revision": COMMIT}]
        status, _, err = run("download", "Qwen/Tiny@v1", *argv[2:], "--revision", "v2")
        assert status == 2 and "--revision another" in err


def test_parse_imports_no_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "qwenvl", *parse("qwen3_vl", "boxes")],
        cwd=ROOT,
        input=BOXES.replace("cat", "猫").encode(),
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["boxes"][0]["label"] == "猫"
    imported = {line.split(b"|")[-1].strip() for line in done.stderr.splitlines()}
    assert b"json" in imported
    assert not imported & {b"torch", b"transformers", b"PIL.Image", b"numpy"}


def test_score_gives_a_line_a_picture_and_the_best(run, model, pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    model("", scores=[[1, 0, 3, 0], [3, 0, 1, 0]])
    named = [pictures[0], str(broken), pictures[1]]
    status, rows, err = run("score", *named, "--text", "a cat", "--json")
    assert status == 1 and str(broken) in err
    assert [row["image"] for row in rows] == named
    assert [row["score"] for row in rows] == [0.25, None, 0.75]
    assert "error" in rows[1] and "error" not in rows[0]
    status, rows, _ = run("score", *named, "--text", "a cat", "--top", "1", "--json")
    assert (status, rows) == (1, [{"image": pictures[1], "score": 0.75, "rank": 1}])
    status, out, _ = run("score", *pictures, "--text", "a cat")
    assert (status, out) == (0, f"0.2500  {pictures[0]}\n0.7500  {pictures[1]}\n")


def test_score_refuses_what_cannot_be_asked(run, model, pictures):
    backend = model("", scores=[[1, 0, 0, 0]])
    assert run("score", *pictures, "--text", " ")[0] == 2
    assert run("score", *pictures, "--text", "x", "--top", "0")[0] == 2
    status, _, err = run("score", *pictures, "--text", "x", "--instruction", "Is it?")
    assert status == 2 and "[text]" in err
    assert not backend.requests

"""Describe, OCR and Grounding with a scripted model: B pictures in, B answers out, in order."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.host import page
from qwen_vl_suite.qwenvl.backends.scripted import Reply
from qwen_vl_suite.qwenvl.errors import (
    BadImage,
    BadOption,
    NumericalError,
    OutOfMemory,
    UnreadableReply,
)
from qwen_vl_suite.qwenvl.types import Response

BOXES = '```json\n[{{"bbox_2d": [100, 100, 500, 500], "label": "{}"}}]\n```'
Run = Callable[..., tuple[Any, ...]]


def labelled(name: str) -> dict[str, Any]:
    """What a box says of its content, for us and for core's nodes."""
    said = {"type": "obj", "text": "", "desc": name, "palette": []}
    return {"label": name, "metadata": said}


def test_describe_gives_one_text_a_picture_in_order(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("a cat", "a dog", Response("a bird", thinking="it has wings"))
    texts, thoughts = run_node("QVL_Describe", model=model, images=pictures)
    assert texts == ["a cat", "a dog", "a bird"]
    assert thoughts == ["", "", "it has wings"]
    assert len(backend.requests) == 3
    for request, picture in zip(backend.requests, pictures, strict=True):
        expected = picture.mul(255).round().to(torch.uint8).movedim(-1, 0)
        assert torch.equal(request.images[0], expected)


def test_pictures_asked_about_together_are_one_question(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    """A batch and pages of other sizes in a list; each prompt is a question of its own."""
    model, backend = scripted("all of them", "the last")
    pages = [pictures, pictures[:1, :20], pictures[:1, :30]]
    mask = [torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.ones(1, 1, 1)]
    lists = {"images": pages, "mask": mask, "prompt": ["one", "one", "two"]}
    texts, _ = run_node("QVL_Describe", model=model, together=True, lists=lists)
    assert texts == ["all of them", "the last"]
    first, second = backend.requests
    assert [image.shape[-2] for image in first.images] == [*[pictures.shape[1]] * 3, 20]
    assert [image.shape[-2] for image in second.images] == [30]
    assert second.images[0].min() == 255, "hidden"
    (text,), _ = run_node("QVL_Describe", model=model, images=pictures, together=True)
    assert text and len(backend.requests[-1].images) == len(pictures)


def test_a_prompt_takes_the_place_of_the_style(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("x")
    run_node("QVL_Describe", model=model, images=pictures[:1], style="short")
    run_node("QVL_Describe", model=model, images=pictures[:1], prompt="How many?")
    styled, own = backend.requests
    assert own.prompt == "How many?"
    assert styled.prompt and styled.prompt != own.prompt


def test_choices_are_what_describe_answers_with(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("No", "yes", "yes")
    asked = {"images": pictures, "prompt": "Is it red?", "choices": "yes, no"}
    assert run_node("QVL_Describe", model=model, **asked)[0] == ["no", "yes", "yes"]
    constraint = backend.requests[0].constraint
    assert constraint.source == 'start: "yes" | "no"'
    assert "Is it red?" in backend.requests[0].prompt


def test_every_describe_widget_changes_the_request(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("x")

    def asked(**widgets: Any) -> Any:
        run_node("QVL_Describe", model=model, images=pictures[:1], **widgets)
        return backend.requests[-1]

    assert asked(system_prompt="Be brief.").system == "Be brief."
    assert asked(max_new_tokens=7).sampling.max_new_tokens == 7
    assert [asked(thinking=wish).thinking for wish in ("model default", "on", "off")] == [
        None,
        True,
        False,
    ]
    own = asked(sampling={"sampling": "model default"}, seed=5).sampling
    assert (own.seed, own.temperature) == (5, backend.family.sampling.temperature)
    greedy = asked(sampling={"sampling": "greedy"}).sampling
    assert (greedy.temperature, greedy.presence_penalty) == (0.0, 0.0)
    values = {
        "temperature": 0.3,
        "top_p": 0.4,
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
    }
    custom = asked(sampling={"sampling": "custom", **values}).sampling
    assert {name: getattr(custom, name) for name in values} == values


def test_the_custom_sampling_widgets_are_fields_of_sampling(nodes: Any) -> None:
    from qwen_vl_suite.qwenvl.types import Sampling

    known = {field.name for field in fields(Sampling)}
    schema = nodes["QVL_Describe"].define_schema()
    (combo,) = (item for item in schema.inputs if item.id == "sampling")
    for option in combo.options:
        assert {item.id for item in option.inputs} <= known


def test_ocr_gives_text_boxes_and_the_drawn_picture(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    line = '[{{"bbox_2d": [0, 0, 500, 1000], "text_content": "{}"}}]'
    model, _ = scripted(*(line.format(word) for word in ("one", "two", "three")))
    texts, (boxes,), (drawn,), _ = run_node("QVL_OCR", model=model, images=pictures, output="lines")
    assert [text.strip() for text in texts] == ["one", "two", "three"]
    assert [[box["label"] for box in frame] for frame in boxes] == [["one"], ["two"], ["three"]]
    assert {name: boxes[0][0][name] for name in ("x", "y", "width", "height")} == {
        "x": 0,
        "y": 0,
        "width": 100,
        "height": 100,
    }
    assert drawn.shape == (3, 100, 200, 3)


def test_ocr_page_size_bounds_what_the_model_sees_and_nothing_else(
    run_node: Run, scripted: Any
) -> None:
    page = torch.rand(1, 3508, 248, 3)
    model, backend = scripted("text")
    for size, bound in (
        ("as it is", None),
        ("longest side 1288 px (olmOCR)", 1288 * 1288 * 248 / 3508),
        ("longest side 2048 px", 2048 * 2048 * 248 / 3508),
    ):
        _, _, (drawn,), _ = run_node("QVL_OCR", model=model, images=page, page_size=size)
        assert drawn.shape == (1, 3508, 248, 3)
        seen = backend.requests[-1].max_pixels
        assert seen is None if bound is None else seen == pytest.approx(bound, abs=1)
    run_node("QVL_OCR", model=model, images=page[:, :500], page_size="longest side 1024 px")
    assert backend.requests[-1].max_pixels is None


def test_ocr_asks_a_fine_tune_as_it_was_trained(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    page = torch.rand(1, 4000, 248, 3)

    def asked(named: str, **widgets: Any) -> tuple[str, float]:
        model, backend = scripted("text", named=named)
        run_node("QVL_OCR", model=model, images=page, **widgets)
        seen = backend.requests[-1].max_pixels
        return backend.requests[-1].prompt, round((seen * 4000 / 248) ** 0.5)

    usual = asked("-vl")
    assert usual[1] == 1288
    assert asked("-chandra-ocr-2")[0].startswith("OCR this image to HTML")
    assert asked("-chandra-ocr-2")[1] == 3072
    assert asked("-chandra-ocr-2", page_size="longest side 2048 px")[1] == 2048
    assert asked("-chandra-ocr-2", preset="none") == usual
    assert asked("-vl", preset="Chandra") == asked("-chandra-ocr-2")
    assert asked("-chandra-ocr-2", output="markdown")[0] != asked("-chandra-ocr-2")[0]


def test_ocr_page_size_never_lifts_a_bound(run_node: Run, scripted: Any) -> None:
    page = torch.rand(1, 2000, 2000, 3)
    model, backend = scripted("text")

    def bounds(most: int | None, **own: int) -> tuple[int | None, int | None]:
        backend.max_pixels = most
        size = "longest side 1024 px"
        run_node("QVL_OCR", model=replace(model, **own), images=page, page_size=size)
        return backend.requests[-1].min_pixels, backend.requests[-1].max_pixels

    assert bounds(most=10**7) == (None, 1024 * 1024)
    assert bounds(most=None) == (None, 1024 * 1024)
    assert bounds(most=50176) == (None, 50176)
    assert bounds(most=50176, max_pixels=65536) == (None, 65536)
    assert bounds(most=10**7, max_pixels=65536) == (None, 65536)
    assert bounds(most=10**7, min_pixels=4096) == (4096, 1024 * 1024)
    assert bounds(most=10**7, min_pixels=3_000_000) == (1024 * 1024, 1024 * 1024)


def test_ocr_language_reaches_the_question(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("text")

    def prompt(**language: str) -> str:
        run_node("QVL_OCR", model=model, images=pictures[:1], language=language)
        return backend.requests[-1].prompt

    auto = prompt(language="auto")
    assert "Old Norse" in prompt(language="other", other_language="Old Norse")
    assert prompt(language="other", other_language="Old Norse") != auto


def test_grounding_boxes(run_node: Run, scripted: Any, pictures: torch.Tensor) -> None:
    model, backend = scripted(BOXES.format("cat"), "None found.", BOXES.format("dog"))
    found, (boxes,), (drawn,), points, (mask,), *_ = run_node(
        "QVL_Grounding", model=model, images=pictures, find="cat, dog"
    )
    cat = {"x": 20, "y": 10, "width": 80, "height": 40, **labelled("cat")}
    assert boxes == [[cat], [], [{**cat, **labelled("dog")}]]
    place = {"bbox_2d": [20, 10, 100, 50]}
    assert [json.loads(text) for text in found] == [
        [{**place, "label": "cat"}],
        [],
        [{**place, "label": "dog"}],
    ]
    assert [json.loads(text) for text in points] == [[{"x": 60, "y": 30}], [], [{"x": 60, "y": 30}]]
    assert mask.shape == (3, 100, 200)
    assert mask.sum((1, 2)).tolist() == [3200, 0, 3200]
    assert drawn.shape == pictures.shape
    assert "cat" in backend.requests[0].prompt and "dog" in backend.requests[0].prompt
    assert backend.requests[0].sampling.temperature == 0


def test_each_line_of_find_is_asked_and_counted_by_itself(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted(*[BOXES.format("x"), "None found."] * 2)
    find = "the person in a hat\n\n cat, dog \ncat, dog"
    found, (boxes,), *_, count, counts, elements = run_node(
        "QVL_Grounding", model=model, images=pictures[:2], find=find
    )
    assert backend.batches == [4]
    assert [request.prompt.split(" Report")[0] for request in backend.requests[:2]] == [
        "Locate the person in a hat in the image.",
        'Locate every instance that belongs to the following categories: "cat, dog".',
    ]
    assert count == [1, 1]
    assert json.loads(counts[1]) == {"the person in a hat": 1, "cat, dog": 0}
    (told,) = json.loads(found[0])
    assert told == {"bbox_2d": [20, 10, 100, 50], "label": "x", "query": "the person in a hat"}
    assert [box["label"] for box in boxes[1]] == ["x"]
    assert elements == [[{"type": "obj", "bbox": [100, 100, 500, 500], "desc": "x"}]] * 2


def test_max_count_holds_for_each_line(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    two = '[{"bbox_2d": [0, 0, 500, 500]}, {"bbox_2d": [500, 500, 999, 999]}]'
    model, _ = scripted(two)
    *_, count, counts, _ = run_node(
        "QVL_Grounding", model=model, images=pictures[:1], find="cat\ndog", max_count=1
    )
    assert count == [2] and json.loads(counts[0]) == {"cat": 1, "dog": 1}


def test_a_line_that_cannot_be_read_is_no_line_without_a_find(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    replies = [BOXES.format("cat"), "The weather is fine today, is it?"]
    model, _ = scripted(*replies)
    with pytest.raises(UnreadableReply, match="picture 1 of 1"):
        run_node("QVL_Grounding", model=model, images=pictures[:1], find="cat\ndog")
    model, _ = scripted(*replies)
    found, *_, count, counts, _ = run_node(
        "QVL_Grounding", model=model, images=pictures[:1], find="cat\ndog",
        when_unreadable="keep going",
    )  # fmt: skip
    assert len(json.loads(found[0])) == 1 and count == [1]
    assert json.loads(counts[0]) == {"cat": 1}, "nothing is said of what was not answered"


def test_grounding_looks_only_inside_a_mask_or_boxes(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    def found(inside: Any, count: int = 1) -> tuple[list[tuple[int, ...]], Any]:
        model, backend = scripted(BOXES.format("cat"))
        _, (boxes,), *_ = run_node(
            "QVL_Grounding", model=model, images=pictures[:count], find="cat", inside=inside
        )
        shown = [tuple(request.images[0].shape[-2:]) for request in backend.requests]
        return shown, [[(box["x"], box["y"], box["width"]) for box in frame] for frame in boxes]

    mask = torch.zeros(1, 50, 100)  # half the pictures' size
    mask[:, 20:40, 10:30] = 1
    assert found(mask) == ([(48, 48)], [[(20, 40, 20)]])
    assert found(mask, 2)[1] == [[(20, 40, 20)]] * 2
    two = torch.cat([mask, mask.roll(40, 2)])
    assert found(two) == ([(48, 48)] * 2, [[(20, 40, 20), (100, 40, 20)]])
    assert found(two, 2) == ([(48, 48)] * 2, [[(20, 40, 20)], [(100, 40, 20)]])
    box = {"x": 20, "y": 40, "width": 40, "height": 40}
    assert found([[box], []], 2) == ([(48, 48)], [[(20, 40, 20)], []])
    assert found(torch.zeros(1, 64, 64)) == ([], [[]])
    for wrong in (torch.zeros(1, 2, 3, 4), torch.full((1, 8, 8), float("nan")), "here"):
        with pytest.raises(BadOption):
            found(wrong)


def test_grounding_in_tiles_and_once_more(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted(BOXES.format("cat"))
    run_node(
        "QVL_Grounding", model=model, images=pictures[:1], find="cat", tile_size=100,
        look_again=True,
    )  # fmt: skip
    assert backend.batches == [4, 4] and backend.requests[0].logprobs


def test_grounding_in_space(run_node: Run, scripted: Any, pictures: torch.Tensor) -> None:
    model, backend = scripted('[{"bbox_3d": [0, 0, 4, 2, 2, 2, 0, 0, 0], "label": "car"}]')

    def found(**widgets: Any) -> tuple[Any, ...]:
        return run_node(
            "QVL_Grounding", model=model, images=pictures[:1], find="car", kind="boxes_3d",
            **widgets,
        )  # fmt: skip

    text, (boxes,), (drawn,), _, (mask,), count, *_ = found(fov=90)
    assert json.loads(text[0])[0]["bbox_3d"][2] == 4 and count == [1]
    assert boxes[0][0]["width"] == 68 and mask.any() and not torch.equal(drawn, pictures[:1])
    assert found(fov=45)[1][0][0][0]["width"] > 68
    assert "bbox_3d" in backend.requests[0].prompt
    with pytest.raises(BadOption, match="whole picture"):
        found(inside=torch.ones(1, 8, 8))


def test_grounding_points(run_node: Run, scripted: Any, pictures: torch.Tensor) -> None:
    model, _ = scripted('[{"point_2d": [500, 250], "label": "nose"}]')
    found, (boxes,), _, points, (mask,), *_ = run_node(
        "QVL_Grounding", model=model, images=pictures[:1], find="nose", kind="points"
    )
    assert json.loads(found[0]) == [{"point_2d": [100, 25], "label": "nose"}]
    assert boxes == [[]]
    assert json.loads(points[0]) == [{"x": 100, "y": 25}]
    assert not mask.any()


def test_a_min_score_leaves_boxes_out_and_gives_the_others_scores(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    sure, unsure = (Reply(BOXES.format("cat"), logprobs=logprob) for logprob in (-0.1, -2.0))
    model, backend = scripted(sure, unsure, sure)
    given = {"model": model, "images": pictures[:2], "find": "cat"}
    found, (boxes,), *_ = run_node("QVL_Grounding", **given, min_score=0.5)
    assert [len(frame) for frame in boxes] == [1, 0] and found[1] == "[]"
    assert boxes[0][0]["score"] == pytest.approx(0.9048, abs=1e-4)
    assert json.loads(found[0])[0]["score"] == 0.9048
    (picked,), *_ = run_node(
        "QVL_PickBoxes", bboxes=boxes, labels="", order="best score first", max_count=0
    )
    assert picked[0][0]["score"] == boxes[0][0]["score"]
    _, (boxes,), *_ = run_node("QVL_Grounding", **given)
    assert "score" not in boxes[0][0] and not backend.requests[-1].logprobs


def test_an_unreadable_reply_names_its_picture(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, _ = scripted(BOXES.format("cat"), "The weather is fine today, is it?", "None found.")
    with pytest.raises(UnreadableReply, match="picture 2 of 3") as caught:
        run_node("QVL_Grounding", model=model, images=pictures, find="cat")
    assert caught.value.raw == "The weather is fine today, is it?"


def test_keep_going_keeps_what_was_read(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, _ = scripted(BOXES.format("cat"), "The weather is fine today, is it?", "None found.")
    found, (boxes,), *_ = run_node(
        "QVL_Grounding", model=model, images=pictures, find="cat", when_unreadable="keep going"
    )
    assert [len(frame) for frame in boxes] == [1, 0, 0]
    assert json.loads(found[1]) == {"unreadable": "The weather is fine today, is it?"}
    assert json.loads(found[2]) == []


def test_a_cut_reply_is_reported(
    run_node: Run, scripted: Any, pictures: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = scripted("a cat", Response("a d", finish_reason="length"))
    with caplog.at_level(logging.WARNING):
        run_node("QVL_Describe", model=model, images=pictures[:2])
    assert [record.getMessage() for record in caplog.records] == [
        "Picture 2 of 2: The reply was cut at 1024 tokens: raise max_new_tokens for the rest."
    ]


EVERY_NODE = [
    pytest.param("QVL_Describe", {}, id="describe"),
    pytest.param("QVL_OCR", {"output": "lines"}, id="ocr"),
    pytest.param("QVL_Grounding", {"find": "cat"}, id="grounding"),
]
FOUND = '[{"bbox_2d": [100, 100, 500, 500], "label": "cat", "text_content": "cat"}]'


def spoilt(pictures: torch.Tensor) -> torch.Tensor:
    """The second of three overflowed."""
    image = pictures.clone()
    image[1, 20:40] = float("nan")
    return image


def failing(kind: str, pictures: torch.Tensor) -> tuple[list[Any], torch.Tensor, type, str]:
    """The script, the pictures, and what is raised about the second picture."""
    if kind == "NaN":
        return [FOUND], spoilt(pictures), BadImage, "It holds NaN or infinite values"
    error = {"memory": OutOfMemory, "numbers": NumericalError}[kind]("It went wrong.")
    return [FOUND, error, FOUND], pictures, type(error), "It went wrong"


@pytest.mark.parametrize("kind", ["NaN", "memory", "numbers"])
@pytest.mark.parametrize(("node_id", "widgets"), EVERY_NODE)
def test_a_picture_that_fails_costs_only_its_own_answer(
    run_node: Run,
    scripted: Any,
    pictures: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    node_id: str,
    widgets: dict[str, Any],
    kind: str,
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(host, "send_results", lambda *given: shown.append(given))
    script, images, error, message = failing(kind, pictures)
    model, backend = scripted(*script)
    with pytest.raises(error, match=rf"^Picture 2 of 3: {message}.*when_unreadable to keep going"):
        run_node(node_id, model=model, images=images, **widgets)
    assert len(backend.requests) == (2 if kind == "NaN" else 3), "the others are answered"
    (((first, second, third), *_),) = shown
    assert first.text and third.text and not (first.error or third.error)
    assert message in second.error and second.finish_reason == "error"


@pytest.mark.parametrize("kind", ["NaN", "memory", "numbers"])
@pytest.mark.parametrize(("node_id", "widgets"), EVERY_NODE)
def test_keep_going_gives_what_the_other_pictures_gave(
    run_node: Run,
    scripted: Any,
    pictures: torch.Tensor,
    node_id: str,
    widgets: dict[str, Any],
    kind: str,
) -> None:
    script, images, _, message = failing(kind, pictures)
    model, _ = scripted(*script)
    going = {**widgets, "when_unreadable": "keep going"}
    texts, *outputs = run_node(node_id, model=model, images=images, **going)
    assert len(texts) == 3 and texts[0] == texts[2] != texts[1]
    if node_id == "QVL_Describe":
        assert texts[1] == ""
        return
    (boxes,), (drawn,), *more = outputs
    assert [len(frame) for frame in boxes] == [1, 0, 1]
    assert drawn.isfinite().all() and drawn.shape == images.shape
    untouched = images[1].nan_to_num(0)
    assert (drawn[1] - untouched).abs().max() <= 0.5 / 255 + 1e-6
    if node_id == "QVL_Grounding":
        assert message in json.loads(texts[1])["error"]
        assert [bool(plane.any()) for plane in more[1][0]] == [True, False, True]
        assert more[2] == [1, -1, 1] and more[3][1] == "{}"


def test_the_live_text_counts_pictures_that_are_not_asked_about(
    run_node: Run, scripted: Any, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(page, "send_live", lambda **fields: sent.append(fields))
    model, _ = scripted("a cat", "a dog")
    run_node("QVL_Describe", model=model, images=spoilt(pictures), when_unreadable="keep going")
    ends = [(item["index"], item["text"]) for item in sent if "finish_reason" in item]
    assert sorted(ends) == [(0, "a cat"), (1, ""), (2, "a dog")]
    assert {item["count"] for item in sent if "count" in item} == {3}


def test_one_picture_of_a_list_that_is_too_long_fails_alone(run_node: Run, scripted: Any) -> None:
    model, backend = scripted(BOXES.format("cat"))
    images = [picture(100, 200), picture(1, 300), picture(60, 40)]
    found, boxes, drawn, *_ = run_node(
        "QVL_Grounding",
        lists={"images": images},
        model=model,
        find="cat",
        when_unreadable="keep going",
    )
    assert [len(batch[0]) for batch in boxes] == [1, 0, 1]
    assert "200 times" in json.loads(found[1])["error"] and len(backend.requests) == 2
    assert [tuple(image.shape[1:3]) for image in drawn] == [(100, 200), (1, 300), (60, 40)]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        pytest.param(torch.zeros(0, 8, 8, 3), "empty", id="empty batch"),
        pytest.param(torch.full((1, 8, 8, 3), float("nan")), "NaN", id="NaN"),
        pytest.param(torch.zeros(1, 8, 8, 2), "channels", id="two channels"),
    ],
)
@pytest.mark.parametrize("node_id", ["QVL_Describe", "QVL_OCR", "QVL_Grounding"])
def test_a_picture_no_model_can_read_is_refused_by_name(
    run_node: Run, scripted: Any, node_id: str, image: torch.Tensor, message: str
) -> None:
    model, backend = scripted("x")
    extra = {"find": "cat"} if node_id == "QVL_Grounding" else {}
    with pytest.raises(BadImage, match=message):
        run_node(node_id, model=model, images=image, **extra)
    assert not backend.requests


def test_an_action_on_a_screen(run_node: Run, scripted: Any, pictures: torch.Tensor) -> None:
    call = '<tool_call>{{"name": "{}", "arguments": {}}}</tool_call>'
    place = '{"action": "swipe", "coordinate": [100, 100], "coordinate2": [500, 500]}'
    model, backend = scripted(
        call.format("mobile_use", place),
        call.format("mobile_use", '{"action": "type", "text": "a, b"}'),
    )
    goal = "look further down,\nthen write"
    found, bboxes, annotated, points, masks, count, *_ = run_node(
        "QVL_Grounding",
        model=model,
        images=pictures[:2],
        find=goal,
        kind="action",
        screen="mobile",
    )
    height, width = pictures.shape[1:3]
    swipe, typed = map(json.loads, found)
    assert swipe["point_2d"] == [width // 10, height // 10]
    assert json.loads(points[0]) == [
        {"x": width // 10, "y": height // 10},
        {"x": width // 2, "y": height // 2},
    ]
    assert (typed["arguments"]["text"], typed["point_2d"], json.loads(points[1])) == (
        "a, b",
        None,
        [],
    )
    assert bboxes == [[[], []]] and count == [2, 0] and not masks[0].any()
    assert not torch.equal(annotated[0][0], pictures[0])
    assert torch.equal(annotated[0][1], pictures[1].mul(255).round().div(255))
    assert len(backend.requests) == 2
    assert all(goal in request.prompt for request in backend.requests)
    assert '"name": "mobile_use"' in backend.requests[0].system


def test_the_screen_is_named_where_it_is_none(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, _ = scripted("x")
    with pytest.raises(BadOption, match=r"screen is 'tv'.*computer, mobile"):
        run_node("QVL_Grounding", model=model, images=pictures, find="cat", screen="tv")


def test_grounding_needs_something_to_find(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, _ = scripted("x")
    with pytest.raises(BadOption):
        run_node("QVL_Grounding", model=model, images=pictures, find="  ")


def picture(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.zeros(count, height, width, 3)


def test_pictures_of_a_list_are_answered_in_one_run(run_node: Run, scripted: Any) -> None:
    model, backend = scripted(BOXES.format("cat"), "None found.", BOXES.format("dog"))
    sizes = [(100, 200), (60, 40), (300, 100)]
    images = [picture(*size) for size in sizes]
    found, boxes, drawn, points, mask, *_ = run_node(
        "QVL_Grounding", lists={"images": images}, model=model, find="cat, dog"
    )
    assert len(backend.batches) == 1
    assert [len(json.loads(text)) for text in found] == [1, 0, 1]
    cat = {"x": 20, "y": 10, "width": 80, "height": 40, **labelled("cat")}
    dog = {"x": 10, "y": 30, "width": 40, "height": 120, **labelled("dog")}
    assert boxes == [[[cat]], [[]], [[dog]]]
    assert [tuple(image.shape) for image in drawn] == [(1, *size, 3) for size in sizes]
    assert [tuple(plane.shape) for plane in mask] == [(1, *size) for size in sizes]
    assert [json.loads(text) for text in points] == [[{"x": 60, "y": 30}], [], [{"x": 30, "y": 90}]]


def test_a_list_of_batches_keeps_its_batches(run_node: Run, scripted: Any) -> None:
    model, backend = scripted('[{"bbox_2d": [0, 0, 500, 1000], "text_content": "a word"}]')
    images = [picture(50, 80, 2), picture(20, 30)]
    texts, boxes, drawn, _ = run_node(
        "QVL_OCR", lists={"images": images}, model=model, output="lines"
    )
    assert len(backend.batches) == 1 and texts == ["a word"] * 3
    assert [len(batch) for batch in boxes] == [2, 1]
    assert [len(batch) for batch in drawn] == [2, 1]


@pytest.mark.parametrize(
    ("lists", "asked"),
    [
        pytest.param({"prompt": ["a", "b", "c"]}, "abc", id="a question each"),
        pytest.param({"prompt": ["a", "b"]}, "abb", id="the last one repeats"),
        pytest.param({"images": [picture(8, 8)], "prompt": ["a", "b"]}, "ab", id="one picture"),
        pytest.param(
            {"images": [picture(8, 8, 2), picture(9, 9)], "prompt": ["a", "b"]},
            "aab",
            id="a batch has one question",
        ),
        pytest.param({"images": []}, "", id="no picture"),
        pytest.param({"prompt": []}, "", id="no question"),
    ],
)
def test_lists_pair_as_comfyui_pairs_them(
    run_node: Run, scripted: Any, lists: dict[str, Any], asked: str
) -> None:
    model, backend = scripted("x")
    given = {"images": [picture(8, width) for width in (8, 9, 10)], **lists}
    texts, thoughts = run_node("QVL_Describe", lists=given, model=model)
    assert [request.prompt for request in backend.requests] == list(asked)
    assert len(texts) == len(thoughts) == len(asked)
    assert backend.batches == [len(asked)] * bool(asked)


def test_every_setting_may_differ_from_entry_to_entry(run_node: Run, scripted: Any) -> None:
    model, backend = scripted("x")
    run_node(
        "QVL_Describe",
        lists={
            "images": [picture(8, 8)],
            "seed": [1, 2],
            "max_new_tokens": [7, 0],
            "sampling": {"sampling": ["greedy", "model default"]},
            "thinking": ["on", "off"],
        },
        model=model,
    )
    assert len(backend.batches) == 1
    first, second = backend.requests
    assert (first.sampling.seed, second.sampling.seed) == (1, 2)
    assert (first.sampling.max_new_tokens, second.sampling.max_new_tokens) == (7, 1024)
    assert first.sampling.temperature == 0 < second.sampling.temperature
    assert (first.thinking, second.thinking) == (True, False)


def test_each_of_several_models_is_asked_once(run_node: Run, scripted: Any) -> None:
    one, first = scripted("one")
    two, second = scripted("two")
    texts, _ = run_node(
        "QVL_Describe", lists={"model": [one, two, one], "images": [picture(8, 8)]}, seed=0
    )
    assert texts == ["one", "two", "one"]
    assert (first.batches, second.batches) == ([2], [1])


def test_what_was_answered_is_shown_before_the_error(
    run_node: Run, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(host, "send_results", lambda *given: shown.append(given))
    model, _ = scripted(BOXES.format("cat"), "The weather is fine today, is it?", "None found.")
    images = [picture(100, 200), picture(60, 40), picture(300, 100)]
    with pytest.raises(UnreadableReply, match=r"picture 2 of 3.*when_unreadable to keep going"):
        run_node("QVL_Grounding", lists={"images": images}, model=model, find="cat")
    ((results, seen),) = shown
    assert [len(result.boxes) for result in results] == [1, 0, 0]
    assert [bool(result.error) for result in results] == [False, True, False]
    assert results[1].text == "The weather is fine today, is it?"
    assert [tuple(one.shape[:2]) for one in seen] == [(100, 200), (60, 40), (300, 100)]


def test_only_an_entry_that_is_to_stop_stops(run_node: Run, scripted: Any) -> None:
    model, _ = scripted("The weather is fine today, is it?", BOXES.format("cat"))
    lists = {
        "images": [picture(8, 8), picture(9, 9)],
        "when_unreadable": ["keep going", "stop"],
    }
    found, *_ = run_node("QVL_Grounding", lists=lists, model=model, find="cat")
    assert "unreadable" in json.loads(found[0]) and json.loads(found[1])


@pytest.mark.parametrize(
    ("node_id", "widgets"),
    [("QVL_Describe", {}), ("QVL_OCR", {}), ("QVL_Grounding", {"find": "cat"})],
)
def test_what_the_mask_hides_the_model_does_not_see(
    run_node: Run, scripted: Any, node_id: str, widgets: dict[str, Any]
) -> None:
    model, backend = scripted("None found.")
    mask = torch.zeros(1, 10, 20)
    mask[..., :10] = 1
    run_node(node_id, model=model, images=picture(10, 20, 2), mask=mask, **widgets)
    for request in backend.requests:
        assert (request.images[0][..., :10] == 255).all()
        assert (request.images[0][..., 10:] == 0).all()


@pytest.mark.parametrize(
    ("node_id", "widgets", "expected"),
    [
        pytest.param("QVL_Describe", {}, 1024, id="describe, untouched"),
        pytest.param("QVL_Describe", {"max_new_tokens": 0}, 1024, id="describe, the style's own"),
        pytest.param(
            "QVL_Describe",
            {"style": "html", "when_unreadable": "keep going"},
            8192,
            id="describe, code",
        ),
        pytest.param("QVL_OCR", {}, 4096, id="plain"),
        pytest.param("QVL_OCR", {"output": "markdown"}, 8192, id="markdown"),
        pytest.param("QVL_OCR", {"output": "html"}, 8192, id="html"),
        pytest.param("QVL_OCR", {"output": "lines"}, 8192, id="lines"),
        pytest.param("QVL_OCR", {"output": "html", "max_new_tokens": 4096}, 4096, id="as saved"),
        pytest.param("QVL_Grounding", {"find": "cat"}, 2048, id="grounding"),
    ],
)
def test_how_long_an_answer_may_get(
    run_node: Run, scripted: Any, node_id: str, widgets: dict[str, Any], expected: int
) -> None:
    model, backend = scripted("None found.")
    run_node(node_id, model=model, images=picture(8, 8), **widgets)
    assert backend.requests[0].sampling.max_new_tokens == expected


@pytest.mark.parametrize(
    ("node_id", "widgets"),
    [
        pytest.param("QVL_Describe", {"style": None}, id="style"),
        pytest.param("QVL_Describe", {"style": ["short"]}, id="style, a list"),
        pytest.param("QVL_Describe", {"thinking": None}, id="thinking"),
        pytest.param("QVL_Describe", {"sampling": {"sampling": None}}, id="sampling"),
        pytest.param("QVL_Describe", {"sampling": {"sampling": 5}}, id="sampling, a number"),
        pytest.param("QVL_Describe", {"sampling": {}}, id="sampling, empty"),
        pytest.param("QVL_Describe", {"sampling": None}, id="sampling, none"),
        pytest.param("QVL_OCR", {"language": None}, id="language, none"),
        pytest.param("QVL_OCR", {"output": 3}, id="output"),
        pytest.param("QVL_OCR", {"language": {"language": None}}, id="language"),
        pytest.param("QVL_OCR", {"language": {"language": 7}}, id="language, a number"),
        pytest.param("QVL_OCR", {"page_size": 1288}, id="page size"),
        pytest.param("QVL_Grounding", {"find": "cat", "kind": None}, id="kind"),
    ],
)
def test_a_widget_that_holds_no_choice_is_named(
    run_node: Run, scripted: Any, node_id: str, widgets: dict[str, Any]
) -> None:
    model, backend = scripted("x")
    (name,) = (name for name in widgets if name != "find")
    with pytest.raises(BadOption, match=name):
        run_node(node_id, model=model, images=picture(8, 8), **widgets)
    assert not backend.requests


def test_bounds_of_the_loader_reach_the_request(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("x")
    bounded = replace(model, min_pixels=4096, max_pixels=65536)
    run_node("QVL_Describe", model=bounded, images=pictures[:1])
    assert (backend.requests[-1].min_pixels, backend.requests[-1].max_pixels) == (4096, 65536)

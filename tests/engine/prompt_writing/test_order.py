"""Writing of prompts: what the model is told, how its reply is read, when it is asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption, OutOfMemory, UnreadableReply
from qwen_vl_suite.qwenvl.prompt_writing import Order, Wishes, read_targets

TARGETS = read_targets()
WIDE, TALL = (torch.zeros(3, *size, dtype=torch.uint8) for size in ((64, 128), (128, 64)))


def written(
    *replies: Any, pictures: tuple[Any, ...] = (), target: str = "flux2", **fields: Any
) -> tuple[Any, ScriptedBackend]:
    backend = ScriptedBackend(replies, thinking=fields.pop("thinks", "off"))
    order = Order(TARGETS[target], has_pictures=bool(pictures), **{"idea": "a cat", **fields})
    picture, *others = pictures or (None,)
    query = run.Query(order.task, picture, method=order.method, others=tuple(others))
    return run.answer_all(backend, [query])[0], backend


def test_an_idea_alone_is_asked_about_without_a_picture() -> None:
    result, backend = written("Sure, here is the prompt:\n\n**Prompt:** A cat,\non a mat.")
    assert result.text == "A cat, on a mat." and result.is_complete
    (request,) = backend.requests
    assert request.images == () and request.prompt.startswith("a cat\n\n")
    assert "prompts for FLUX.2" in request.system


def test_pictures_bring_words_of_their_own_and_may_do_without_an_idea() -> None:
    _, backend = written("A cat.", pictures=(WIDE, TALL))
    assert "edits" in backend.requests[0].system and len(backend.requests[0].images) == 2
    _, backend = written("A cat.", pictures=(WIDE,), idea=" ")
    assert backend.requests[0].prompt.startswith(TARGETS["flux2"].pictures.no_idea)
    with pytest.raises(BadOption, match="no idea"):
        written("A cat.", idea=" ")


def test_what_is_not_as_wished_is_asked_again_with_what_was_wrong() -> None:
    wishes = Wishes(("red hat",), ("dog",))
    result, backend = written("Two Dogs in hats.", "A cat in a\nRed  Hat.", wishes=wishes)
    assert result.text == "A cat in a Red Hat."
    assert (result.data["missing"], result.data["forbidden"], result.data["tries"]) == ([], [], 2)
    first, second = (request.prompt for request in backend.requests)
    assert '"red hat"' in first and '"dog"' in first and second.startswith(first)
    assert "Two Dogs in hats." in second
    assert 'Missing in the prompt: "red hat".' in second
    assert "As wished at try 2." in result.notes


def test_at_most_n_times_and_the_best_try_stays() -> None:
    wishes = Wishes(("hat", "mat"), ())
    result, backend = written("Cat.", "A hat.", "Cats.", "A mat, a hat.", wishes=wishes)
    assert (len(backend.requests), result.text) == (3, "A hat.")
    assert result.data["missing"] == ["mat"] and result.data["tries"] == 3
    assert 'Missing in the prompt: "mat".' in result.notes
    once, backend = written("Cat.", "A hat, a mat.", wishes=wishes, ask_again=0)
    assert (len(backend.requests), once.text) == (1, "Cat.")


def test_a_second_try_that_fails_leaves_the_first() -> None:
    query_error = OutOfMemory("No room.")
    order = Order(TARGETS["flux2"], "a cat", wishes=Wishes(("hat",)))
    backend = ScriptedBackend(["A cat.", query_error])
    query = run.Query(order.task, None, method=order.method, keep_unreadable=True)
    found: list[Any] = []
    run.answer_each(backend, [query], lambda _, result: found.append(result))
    assert found[0].text == "A cat." and found[0].data["missing"] == ["hat"]


def test_triggers_stand_first_as_they_are_and_once() -> None:
    result, _ = written("A cat.", triggers="ohwx Cat, ")
    assert result.text == "ohwx Cat, A cat."
    assert written("ohwx, A cat.", triggers="ohwx")[0].text == "ohwx, A cat."
    assert written("catalog of cats", triggers="cat")[0].text == "cat, catalog of cats"
    tags, _ = written("1girl, OHWX, smile", target="sdxl_tags", triggers="ohwx")
    assert tags.text == "ohwx, 1girl, smile"


def test_triggers_may_hold_what_the_reply_may_not() -> None:
    wishes = Wishes((), ("cat",))
    result, backend = written("A dog.", "A mouse.", triggers="ohwx cat,", wishes=wishes)
    assert result.text == "ohwx cat, A dog." and len(backend.requests) == 1
    assert any('trigger words hold "cat"' in note for note in result.notes)
    result, backend = written("A cat.", "A dog.", triggers="ohwx cat", wishes=wishes)
    assert result.text == "ohwx cat, A dog." and result.data["forbidden"] == []
    tags, _ = written("1girl, dog", triggers="cat", wishes=wishes, target="sdxl_tags")
    assert tags.text == "cat, 1girl, dog" and tags.data["tries"] == 1


def test_tags_are_listed_once_and_unwanted_ones_go_to_the_negative_prompt() -> None:
    result, _ = written(
        "1girl, smile,\n1girl, 猫", target="sdxl_tags", wishes=Wishes((), ("hat",)), ask_again=0
    )
    assert result.text == "1girl, smile, 猫"
    negative = result.data["negative"].split(", ")
    assert negative[0] == "worst quality" and negative[-1] == "hat"


def test_a_prompt_that_is_too_long_is_asked_again() -> None:
    tags = ", ".join(f"tag{letter}{number}" for letter in "abc" for number in range(40))
    result, backend = written(tags, "1girl, cat", target="sdxl_tags")
    assert result.text == "1girl, cat" and "too long" in backend.requests[1].prompt
    assert result.data["max_tokens"] == 75 and result.data["tokens_are_estimated"]
    assert "The prompt is about 4 CLIP tokens (estimated) of 75." in result.notes


def enhanced(ratio: str = "", follow: str = "", **more: Any) -> str:
    return json.dumps(
        {"rewritten_prompt": "A cat.\nA mat.", "wh_ratio": ratio, "ratio_follow": follow, **more}
    )


@pytest.mark.parametrize(
    ("ratio", "follow", "size"),
    [
        ("16:9", "", (1376, 768)),
        ("", "<image2>", (736, 1472)),
        ("1:1", "<image1>", (1024, 1024)),
        ("", "", (None, None)),
    ],
)
def test_enhancers_reply_with_a_ratio(ratio: str, follow: str, size: Any) -> None:
    reply = f"{{so}}</think>\n```json\n{enhanced(ratio, follow)}\n```"
    result, backend = written(
        reply, pictures=(WIDE, TALL), target="qwen_image_2_1", model="Qwen-Image-2.1-PE-I2I"
    )
    assert result.text == "A cat. A mat." and not result.notes
    assert (result.data["width"], result.data["height"]) == size
    (request,) = backend.requests
    assert request.thinking is True and request.sampling.presence_penalty == 0
    assert (request.sampling.temperature, request.sampling.max_thinking_tokens) == (1.0, 16384)


def test_a_ratio_that_is_none_is_told_and_a_reply_without_prompt_unreadable() -> None:
    result, backend = written(enhanced("very wide"), target="qwen_image_2_1", thinks="never")
    assert result.data["width"] is None and any("very wide" in note for note in result.notes)
    assert backend.requests[0].thinking is None
    assert any("cannot do" in note for note in result.notes)
    assert any("Qwen-Image-2.1-PE" in note for note in result.notes)
    with pytest.raises(UnreadableReply, match="rewritten_prompt"):
        written('{"prompt": "A cat."}', target="qwen_image_2_1")


@pytest.mark.parametrize(
    ("reply", "target", "complaint"),
    [
        ('""', "flux2", "answered nothing"),
        ("", "qwen_image_2_1", "answered nothing"),
        ("<think>A cat", "flux2", "still thinking"),
    ],
)
def test_a_reply_without_words_is_unreadable(reply: str, target: str, complaint: str) -> None:
    with pytest.raises(UnreadableReply, match=complaint):
        written(reply, target=target)


def test_a_checkpoint_brings_the_words_that_it_was_trained_on(tmp_path: Path) -> None:
    fields: Any = {"target": "qwen_image_2_1", "model": "qwen-image-2.1-pe-t2i"}
    result, _ = written(enhanced("1:1"), folder=tmp_path, **fields)
    assert any("system_prompt.txt" in note for note in result.notes)
    (tmp_path / "system_prompt.txt").write_text("Trained on 这.\n", encoding="utf-8")
    result, backend = written(enhanced("1:1"), folder=tmp_path, **fields)
    assert backend.requests[0].system == "Trained on 这." and not result.notes


def test_pictures_are_shown_as_large_as_the_writing_model_was_trained_on_them() -> None:
    order = Order(TARGETS["qwen_image_2_1"], "a cat", has_pictures=True)
    picture = torch.zeros(3, 40, 40, dtype=torch.uint8)
    for own, expected in ((None, 2**20), (900_000, 900_000), (4_000_000, 2**20)):
        backend = ScriptedBackend([enhanced("", "<image1>")])
        query = run.Query(order.task, picture, method=order.method, max_pixels=own)
        run.answer_all(backend, [query])
        assert backend.requests[0].max_pixels == expected


def test_one_batch_for_all_and_one_error_costs_only_its_own() -> None:
    order = Order(TARGETS["flux2"], "a cat", wishes=Wishes(("hat",)))
    backend = ScriptedBackend(["A hat.", "A cat.", OutOfMemory("No room."), "Cat in a hat."])
    queries = [
        run.Query(order.task, None, method=order.method, keep_unreadable=True) for _ in range(3)
    ]
    results = run.answer_all(backend, queries)
    assert [result.text for result in results] == ["A hat.", "Cat in a hat.", ""]
    assert backend.batches == [3, 1] and "No room." in results[2].error

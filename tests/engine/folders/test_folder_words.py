"""Words of captions: templates, wishes, what is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from caption_folders import kohya, picture, run
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.folders import Asking, Item, Template, trainer
from qwen_vl_suite.qwenvl.layouts import Wanted
from qwen_vl_suite.qwenvl.prompt_writing import Wishes
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.tasks.ocr import ocr


@pytest.fixture
def item(tmp_path):
    return Item(tmp_path, "10_red cat/IMG {text}.1.png")


@pytest.mark.parametrize(
    ("template", "caption"),
    [
        (Template(), "A cat {tags}"),
        (Template("{text}, {tags}"), "A cat {tags}, red, fur"),
        (Template("{{{name}}} of {folder}: {text}"), "{IMG {text}.1} of red cat: A cat {tags}"),
        (Template(trigger="ohwx, "), "ohwx, A cat {tags}"),
        (Template("{text} by {trigger}", "ohwx"), "A cat {tags} by ohwx"),
        (Template(trigger="A cat"), "A cat {tags}"),
        (Template(trigger="A ca"), "A ca, A cat {tags}"),
        (Template("{tags}", "ohwx", "<", ">"), "<ohwx, red, fur>"),
    ],
)
def test_templates(item, template, caption):
    assert template.filled(item, " A cat {tags}\n", "red, fur") == caption


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (("{text",), "single '{'"),
        (("}{text}",), "single '}'"),
        (("{txt}",), "has {txt}; there are only {text}"),
        (("{name}",), "neither {text} nor {tags}"),
        (("{trigger} {text}",), "no trigger words"),
        (("{text.__class__}",), "there are only"),
    ],
)
def test_templates_that_mean_nothing_are_refused(fields, said):
    with pytest.raises(BadOption) as error:
        Template(*fields)
    assert said in str(error.value)


@settings(max_examples=25)
@given(st.text(), st.text(), st.text())
def test_what_is_filled_in_stays_as_it_is(text, tags, around):
    pattern = around.replace("{", "{{").replace("}", "}}")
    found = Template(f"{pattern}{{text}}|{{tags}}{pattern}").filled(
        Item(Path("r"), "a.png"), text, tags
    )
    assert found == f"{around}{text.strip()}|{tags.strip()}{around}"


def test_tags_are_asked_for_in_the_same_batch(tmp_path):
    path = picture(tmp_path / "a.png")
    backend = ScriptedBackend(lambda request: "x, y" if "tags" in request.prompt else "A cat.")
    run(backend, tmp_path, template="{tags}. {text}", words={"tags": describe("tags")})
    assert kohya(path) == "x, y. A cat." and backend.batches == [2]


def test_tags_that_fail_fail_the_caption(tmp_path):
    picture(tmp_path / "a.png")
    backend = ScriptedBackend(
        lambda request: (
            Reply("x, x", finish_reason="length") if "tags" in request.prompt else "A cat."
        )
    )
    _, told = run(backend, tmp_path, template="{tags} {text}", words={"tags": describe("tags")})
    assert told.failures["a.png"].startswith("Tags: The reply was cut")


def test_words_that_are_wished_for_are_told_asked_for_again_and_else_a_failure(tmp_path):
    picture(tmp_path / "a.png", "red")
    picture(tmp_path / "b.png", "blue")
    replies = {True: iter(["A dog.", "A red cat and a man.", "A red cat."])}

    def reply(request):
        return next(replies[True]) if request.images[0][0, 0, 0] else "A cat in red."

    words = {"wishes": Wishes(("red",), ("man",))}
    backend = ScriptedBackend(reply)
    summary, told = run(backend, tmp_path, words=words)
    assert told.captions == {"a.png": "A red cat.", "b.png": "A cat in red."}
    assert backend.batches == [2, 1, 1] and not summary.failed
    assert '"red"' in backend.requests[0].prompt
    assert "A dog." in backend.requests[2].prompt and "Missing" in backend.requests[2].prompt
    (tmp_path / "a.txt").unlink()
    _, told = run(ScriptedBackend("A man."), tmp_path, words={**words, "ask_again": 1})
    assert "not as wished after 2 tries" in told.failures["a.png"]


def test_a_caption_that_is_there_is_shown_and_corrected(tmp_path):
    path = picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    path.with_suffix(".txt").write_text("\ufeff1girl, hat\n")
    backend = ScriptedBackend("1girl, cap")
    run(backend, tmp_path, existing="overwrite", words={"refine": True})
    assert "1girl, hat" in backend.requests[0].prompt and kohya(path) == "1girl, cap"
    assert "already" not in backend.requests[1].prompt
    with pytest.raises(BadOption, match="choose overwrite"):
        run(backend, tmp_path, words={"refine": True})


def test_what_is_read_off_a_page_may_be_anybodys_refusal(tmp_path):
    path = picture(tmp_path / "a.png", size=(64, 64))
    letter = "I'm sorry, but I cannot assist with your move."
    run(ScriptedBackend(letter), tmp_path, asking=Asking(ocr("plain")))
    assert kohya(path) == letter


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_layouts_are_told_what_is_wished_and_what_is_there(tmp_path, family):
    path = picture(tmp_path / "a.png", size=(64, 64))
    path.with_suffix(".txt").write_text('{"old": "layout"}')
    wanted = Wanted()
    asking = Asking(wanted.task, wanted.method, refine=True, wishes=Wishes((), ("hat",)))
    backend = ScriptedBackend("no JSON", family=family)
    _, told = run(
        backend, tmp_path, asking=asking, existing="overwrite", trainer=trainer("ideogram")
    )
    (request,) = backend.requests
    assert '"hat"' in request.prompt and '{"old": "layout"}' in request.prompt
    assert request.prompt.count("Write the layout of this image") == 1
    assert "not JSON" in told.failures["a.png"]


def test_wishes_are_told_with_tags_and_looked_for_in_the_whole_caption(tmp_path):
    path = picture(tmp_path / "a.png")
    tags = iter(["dog, hat", "hat"])
    backend = ScriptedBackend(lambda r: next(tags) if "tags" in r.prompt else "A cat.")
    words = {"tags": describe("tags"), "wishes": Wishes(("ohwx", "hat"), ("dog",))}
    run(backend, tmp_path, template=Template("{tags}. {text}", "ohwx"), words=words)
    assert kohya(path) == "ohwx, hat. A cat." and backend.batches == [2, 1]
    assert all('"dog"' in request.prompt for request in backend.requests)
    assert not any('"ohwx"' in request.prompt for request in backend.requests)


def test_a_template_of_tags_alone_asks_for_tags_alone(tmp_path):
    path = picture(tmp_path / "a.png")
    path.with_suffix(".txt").write_text("old tags")
    backend = ScriptedBackend("hat, cap")
    words = {"tags": describe("tags"), "refine": True}
    run(backend, tmp_path, template="{tags}", words=words, existing="overwrite")
    (request,) = backend.requests
    assert "List tags" in request.prompt and "old tags" in request.prompt
    assert kohya(path) == "hat, cap"


@pytest.mark.parametrize(
    ("template", "old", "bare"),
    [
        (Template(prefix="<pre> ", suffix=" <end>"), "<pre> a cat <end>", "a cat"),
        (Template(trigger="ohwx"), "ohwx, a cat", "a cat"),
        (Template(trigger="ohwx"), "ohwxes in a row", "ohwxes in a row"),
        (Template("{trigger} (1), {text} in {folder}", "o"), "o (1), a cat in red cat", "a cat"),
        (Template("{text}. {tags}", "ohwx"), "ohwx, A cat. fur", "A cat. fur"),
        (Template("a photo of {text}"), "1girl, hat", "1girl, hat"),
    ],
)  # fmt: skip
def test_what_the_template_adds_is_taken_off_before_a_caption_is_refined(item, template, old, bare):
    assert template.bare(item, old) == bare


def test_nothing_stands_twice_in_a_caption_that_is_refined_or_gone_on_with(tmp_path):
    path = picture(tmp_path / "a.png")
    template = Template(trigger="ohwx", prefix="[ ")
    path.with_suffix(".txt").write_text("[ ohwx, a cat")
    backend = ScriptedBackend("a grey cat")
    run(backend, tmp_path, existing="overwrite", template=template, words={"refine": True})
    assert "ohwx" not in backend.requests[0].prompt and kohya(path) == "[ ohwx, a grey cat"
    run(ScriptedBackend("it sits"), tmp_path, existing="append", template=template)
    assert kohya(path) == "[ ohwx, a grey cat, it sits"
    lines = {"existing": "append", "template": template, "trainer": "onetrainer"}
    run(ScriptedBackend("it sits"), tmp_path, **lines)
    assert path.with_suffix(".txt").read_text().splitlines()[1] == "[ ohwx, it sits"
    with pytest.raises(BadOption, match="leave out near_duplicates"):
        run(backend, tmp_path, existing="overwrite", near_duplicates=2, words={"refine": True})

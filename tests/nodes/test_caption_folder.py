"""Caption Folder node with a scripted model, over folders like ComfyUI's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.host import folder_progress, page
from qwen_vl_suite.qwenvl.backends.scripted import Reply
from qwen_vl_suite.qwenvl.errors import BadOption, QwenVLError
from qwen_vl_suite.qwenvl.folders import bundled_model

Run = Callable[..., tuple[Any, ...]]
DESCRIBE = {"task": "describe", "style": "training", "prompt": ""}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Input and output folders, and one that the user has listed; a dataset of three pictures."""
    for name in ("input", "output", "elsewhere", "user"):
        (tmp_path / name).mkdir()
    paths = SimpleNamespace(
        get_input_directory=lambda: str(tmp_path / "input"),
        get_output_directory=lambda: str(tmp_path / "output"),
        get_user_directory=lambda: str(tmp_path / "user"),
        folder_names_and_paths={},
    )
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    own = host.private_folder() / "folders.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(f"sets: {tmp_path / 'elsewhere'}\n")
    for place in ("input/cats/10_cat", "output/made", "elsewhere"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            Image.new("RGB", (64, 48), (80 * number, 40, 10)).save(
                tmp_path / place / f"{number}.png"
            )
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "where"),
    [
        ("cats", "input/cats/10_cat"),
        ("input/cats/10_cat", "input/cats/10_cat"),
        ("cats\\10_cat", "input/cats/10_cat"),
        ("output/made/", "output/made"),
        ("sets", "elsewhere"),
    ],
)
def test_captions_lie_beside_the_pictures(
    run_node: Run, scripted: Any, places: Path, folder: str, where: str
) -> None:
    model, backend = scripted("a cat", "a dog", "a cow")
    summary, captioned, failed = run_node(
        "QVL_CaptionFolder", model=model, folder=folder, task=DESCRIBE, trigger="ohwx"
    )
    texts = [(places / where / f"{number}.txt").read_text().strip() for number in range(3)]
    assert texts == ["ohwx, a cat", "ohwx, a dog", "ohwx, a cow"]
    assert (captioned, failed) == (3, 0) and summary == "3 captioned, 0 skipped, 0 failed"
    again = run_node("QVL_CaptionFolder", model=model, folder=folder, task=DESCRIBE)
    assert again == ("0 captioned, 3 skipped, 0 failed", 0, 0) and len(backend.requests) == 3


@pytest.mark.parametrize(
    "folder",
    ["..", "/", ".", "../elsewhere", "/etc", "cats/../..", "C:\\", "//host/share", "gone", "out"],
)
def test_no_folder_elsewhere_is_touched(
    run_node: Run, scripted: Any, places: Path, folder: str
) -> None:
    (places / "input/out").symlink_to(places / "user")
    model, backend = scripted("a cat")
    with pytest.raises(BadOption, match=r"no folder that may be used.*folders\.yaml"):
        run_node("QVL_CaptionFolder", model=model, folder=folder, task=DESCRIBE)
    assert not backend.requests


@pytest.mark.parametrize("folder", ["", "  "])
def test_a_folder_has_to_be_named(run_node: Run, scripted: Any, places: Path, folder: str) -> None:
    model, backend = scripted("a cat")
    with pytest.raises(BadOption, match="No folder is named"):
        run_node("QVL_CaptionFolder", model=model, folder=folder, task=DESCRIBE)
    assert not backend.requests


def test_the_example_is_a_copy(run_node: Run, scripted: Any, places: Path) -> None:
    model, backend = scripted("shapes")
    values = {"folder": "example (bundled)", "task": DESCRIBE}
    _, captioned, failed = run_node("QVL_CaptionFolder", model=model, **values)
    made = places / "output/qwen-vl-example"
    assert captioned == len(list(made.glob("*.png"))) == len(list(made.glob("*.txt"))) > 2
    assert failed == 0 and len(backend.requests) == captioned


def test_the_bundled_model_is_asked_only_what_it_knows(
    run_node: Run, scripted: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, backend = scripted("a cat")
    monkeypatch.setattr(bundled_model, "BUNDLED", Path(model.spec.checkpoint))
    short = {**DESCRIBE, "style": "short"}
    for task in (DESCRIBE, {"task": "tags"}, {"task": "layout"}):
        with pytest.raises(BadOption, match=r"nano, knows drawn shapes.*the style short"):
            run_node("QVL_CaptionFolder", model=model, folder="cats", task=task)
    assert not backend.requests and not list((places / "input").rglob("*.txt"))
    for task in (short, {**DESCRIBE, "prompt": "How many stars are there?"}):
        run_node("QVL_CaptionFolder", model=model, folder="cats", task=task, existing="overwrite")
    assert len(backend.requests) == 6


def test_links_out_of_the_folder_are_not_followed(
    run_node: Run, scripted: Any, places: Path
) -> None:
    (places / "input/cats/away").symlink_to(places / "elsewhere")
    (places / "input/cats/file.png").symlink_to(places / "elsewhere/0.png")
    model, backend = scripted("a cat")
    summary, captioned, failed = run_node(
        "QVL_CaptionFolder", model=model, folder="cats", task=DESCRIBE
    )
    assert (captioned, failed, len(backend.requests)) == (3, 2, 3)
    assert summary.count("leads out") == 2 and not list((places / "elsewhere").glob("*.txt"))


def test_refining_shows_what_is_there_and_keeps_it(
    run_node: Run, scripted: Any, places: Path
) -> None:
    folder = places / "input/cats/10_cat"
    (folder / "0.txt").write_text("an old cat")
    model, backend = scripted("a young cat")
    values = {"folder": "cats", "task": DESCRIBE, "existing": "refine", "shard": "1/1"}
    run_node("QVL_CaptionFolder", model=model, **values)
    assert "an old cat" in backend.requests[0].prompt
    assert (folder / "0.txt").read_text().strip() == "a young cat"
    kept = [path.read_text() for path in (places / "input").rglob("backup/**/0.txt.bak")]
    assert kept == ["an old cat"]


def test_a_dry_run_writes_nothing(run_node: Run, scripted: Any, places: Path) -> None:
    model, backend = scripted("a cat")
    found = run_node("QVL_CaptionFolder", model=model, folder="cats", task=DESCRIBE, dry_run=True)
    assert found == ("3 to caption, 0 skipped, 0 failed", 0, 0)
    assert not backend.requests and not list((places / "input").rglob("*.txt"))
    (places / "input/cats/away").symlink_to(places / "elsewhere")
    (places / "input/cats/IMG_1.HEIC").write_bytes(b"x")
    found = run_node("QVL_CaptionFolder", model=model, folder="cats", task=DESCRIBE, dry_run=True)
    assert found[0].startswith("3 to caption, 0 skipped, 1 failed")
    assert "Not read: 1 .heic. Convert" in found[0]


def test_what_failed_is_named_and_costs_the_rest_nothing(
    run_node: Run, scripted: Any, places: Path
) -> None:
    folder = places / "input/cats/10_cat"
    (folder / "1.png").write_bytes(b"no picture")
    model, _ = scripted("a cat", "I'm sorry, I can't help with that.")
    summary, captioned, failed = run_node(
        "QVL_CaptionFolder", model=model, folder="cats", task=DESCRIBE
    )
    assert (captioned, failed) == (1, 2) and (folder / "0.txt").exists()
    assert "10_cat/1.png: " in summary and "10_cat/2.png: The model refused" in summary
    (folder / "0.txt").unlink()
    (folder / "0.png").write_bytes(b"no picture")
    (folder / "2.png").unlink()
    with pytest.raises(QwenVLError, match="0 captioned, 0 skipped, 2 failed"):
        run_node("QVL_CaptionFolder", model=model, folder="cats", task=DESCRIBE)


@pytest.mark.parametrize(
    ("task", "reply", "caption"),
    [
        ({"task": "tags"}, "cat, grey, cat", "cat, grey"),
        ({"task": "read text", "output": "plain"}, "HELLO\nYOU", "HELLO YOU"),
        ({"task": "extract", "keys": "title"}, '{"title": "A"}', '{"title": "A"}'),
        ({**DESCRIBE, "prompt": "Which animal?"}, "A cat.", "A cat."),
        ({"task": "prompt", "target": "flux2"}, "A grey cat sits.", "A grey cat sits."),
    ],
)
def test_every_task_gives_captions(
    run_node: Run, scripted: Any, places: Path, task: Any, reply: str, caption: str
) -> None:
    model, _ = scripted(reply)
    run_node("QVL_CaptionFolder", model=model, folder="sets", task=task)
    assert (places / "elsewhere/0.txt").read_text().strip() == caption


def test_the_node_runs_anew_each_time(nodes: Any) -> None:
    fingerprint = nodes["QVL_CaptionFolder"].fingerprint_inputs
    assert fingerprint() != fingerprint()


def test_the_page_is_told_the_file_the_words_and_the_counts(
    run_node: Run, scripted: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(page, "send_live", lambda **fields: sent.append(fields))
    monkeypatch.setattr(folder_progress, "_INTERVAL", 0)
    model, _ = scripted("a grey cat sits here")
    run_node("QVL_CaptionFolder", model=model, folder="cats", task=DESCRIBE)
    shown = [one for one in sent if one.get("text")]
    assert shown[0]["status"].startswith("10_cat/0.png: 0 done, 0 failed")
    assert any(one["text"] == "a grey" for one in shown)
    assert shown[-1]["text"] == "a grey cat sits here"
    assert shown[-1]["status"].startswith("10_cat/2.png: 3 done, 0 failed")


def test_thinking_is_shown_as_such_from_its_first_word(
    run_node: Run, scripted: Any, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(page, "send_live", lambda **fields: sent.append(fields))
    monkeypatch.setattr(folder_progress, "_INTERVAL", 0)
    model, _ = scripted(Reply("a grey cat", thinking="Let me see."))
    run_node("QVL_CaptionFolder", model=model, folder="cats", task=DESCRIBE, thinking="on")
    assert any(one.get("thinking") for one in sent)
    assert not any("Let" in one.get("text", "") for one in sent)
    assert (places / "input/cats/10_cat/0.txt").read_text().strip() == "a grey cat"

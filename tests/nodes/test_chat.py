"""Chat with a scripted model: turns, histories, and where their pictures may lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from qwen_vl_suite.nodes import chat_files, host
from qwen_vl_suite.nodes.chat import _attachments
from qwen_vl_suite.qwenvl.backends import scripted_replies
from qwen_vl_suite.qwenvl.chat import Reply
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption, QwenVLError
from qwen_vl_suite.qwenvl.media import video
from qwen_vl_suite.qwenvl.types import Audio, Generated, Response

Run = Callable[..., tuple[Any, ...]]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's ``input`` and ``output``, in a folder of their own."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        getter = f"get_{name}_directory"
        monkeypatch.setattr(folder_paths, getter, lambda name=name: str(tmp_path / name))
    return tmp_path


def test_a_conversation_goes_on_by_its_history(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("A cat.", "A dog.", "The cat.")
    first = {"image_0": pictures[:1]}
    (answer,), (thought,), (history,), _ = run_node(
        "QVL_Chat", model=model, message="What is it?", images=first, system_prompt="Be brief."
    )
    assert (answer, thought) == ("A cat.", "")
    second = {"image_0": pictures[1:], "image_1": None}
    _, _, (history,), _ = run_node(
        "QVL_Chat", model=model, message="And these?", images=second, history=history
    )
    (answer,), _, (history,), _ = run_node(
        "QVL_Chat", model=model, message="Which came first?", history=history
    )
    assert answer == "The cat." and "Assistant: A dog." in repr(history)
    asked = backend.requests[-1]
    assert [message.role for message in asked.messages] == [
        *("system", "user", "assistant", "user", "assistant", "user"),
    ]
    assert [len(message.parts) for message in asked.messages] == [1, 2, 1, 3, 1, 1]
    assert all(isinstance(asked.messages[at].parts[0], Generated) for at in (2, 4))
    assert asked.continues and asked.system == "Be brief." and len(asked.images) == 3


def test_each_widget_changes_what_is_asked(run_node: Run, scripted: Any) -> None:
    model, backend = scripted(scripted_replies.Reply("yes", thinking="hm"))

    def asked(**widgets: Any) -> Any:
        run_node("QVL_Chat", model=model, **{"message": "Hi", **widgets})
        return backend.requests[-1]

    plain = asked()
    assert plain.prompt == "Hi" and not plain.images and plain.sampling.max_new_tokens == 1024
    sampling = {"sampling": {"sampling": "greedy"}, "max_new_tokens": 7, "seed": 3}
    changed = asked(**sampling, thinking="on", max_thinking_tokens=9).sampling
    assert (changed.temperature, changed.max_new_tokens, changed.seed) == (0, 7, 3)
    assert changed.max_thinking_tokens == 9 and backend.requests[-1].thinking is True
    assert asked(preserve_thinking=True).preserve_thinking
    assert asked(reasoning_effort=" low ").reasoning_effort == "low"
    with pytest.raises(BadOption, match="Nothing is asked"):
        asked(message=" ")


def test_thoughts_stay_out_of_the_history_unless_preserved(run_node: Run, scripted: Any) -> None:
    model, _ = scripted(scripted_replies.Reply("yes", thinking="hm"))
    for keep in (False, True):
        _, (thought,), _, (text,) = run_node(
            "QVL_Chat", model=model, message="?", thinking="on", preserve_thinking=keep
        )
        assert thought == "hm" and ("hm" in text) is keep


def test_lists_are_conversations_side_by_side(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("a", "b", "c")
    lists = {"message": ["1", "2", "3"], "images": {"image_0": [pictures[:1], pictures[1:]]}}
    answers, _, histories, _ = run_node("QVL_Chat", model=model, lists=lists)
    assert answers == ["a", "b", "c"] and backend.batches == [3]
    assert [len(request.images) for request in backend.requests] == [1, 2, 2]
    assert [len(history.turns) for history in histories] == [1, 1, 1]


def test_a_turn_that_fails_costs_only_itself(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    bad = pictures[:1].clone()
    bad[0, 0, 0, 0] = torch.nan
    model, backend = scripted("a", "b")
    lists = {"message": ["1", "2", "3"], "images": {"image_0": [pictures[:1], bad, pictures[:1]]}}
    answers, _, histories, _ = run_node(
        "QVL_Chat", model=model, lists=lists, when_unreadable="keep going"
    )
    assert answers == ["a", "", "b"] and backend.batches == [2]
    assert [len(history.turns) for history in histories] == [1, 0, 1]
    with pytest.raises(BadImage, match="Conversation 2 of 3: It holds NaN"):
        run_node("QVL_Chat", model=model, lists=lists)


def test_a_turn_that_cannot_be_asked_costs_only_itself(run_node: Run, scripted: Any) -> None:
    model, backend = scripted("a", "c")
    lists = {"message": ["1", "", "3", "4"], "thinking": ["model default"] * 3 + ["on"]}
    backend._thinking = "never"
    given = {"model": model, "lists": lists}
    answers, *_ = run_node("QVL_Chat", **given, when_unreadable="keep going")
    assert answers == ["a", "", "c", ""] and backend.batches == [2]
    with pytest.raises(BadOption, match="Conversation 2 of 4: Nothing is asked"):
        run_node("QVL_Chat", **given)


def test_a_history_as_json_holds_its_pictures_by_reference(
    run_node: Run, scripted: Any, pictures: torch.Tensor, folders: Path
) -> None:
    model, backend = scripted("A cat.", "Yes.")
    images = {"image_0": pictures[:2]}
    given = {"model": model, "message": "What?", "images": images}
    *_, (unsaved,) = run_node("QVL_Chat", **given)
    assert not list((folders / "output").iterdir())
    with pytest.raises(BadOption, match="Turn save_pictures on"):
        run_node("QVL_Chat", model=model, message="Sure?", history_json=unsaved)
    *_, (text,) = run_node("QVL_Chat", **given, save_pictures=True)
    files = sorted((folders / "output" / "qwen_vl_chat").iterdir())
    media = json.loads(text)["turns"][0]["media"]
    assert sorted(shown["path"] for shown in media) == [f"qwen_vl_chat/{f.name}" for f in files]
    assert len(files) == 2 and len(text) < 2000

    _, _, (history,), (again,) = run_node(
        "QVL_Chat", model=model, message="Sure?", history_json=text
    )
    shown = [one.part.pixels for one in history.turns[0].attachments]
    want = next(one.images for one in backend.requests if len(one.images) == 2)
    assert all(torch.equal(one, other) for one, other in zip(shown, want, strict=True))
    assert len(json.loads(again)["turns"]) == 2
    assert isinstance(backend.requests[-1].messages[1].parts[0], Generated)
    with pytest.raises(BadOption, match="use one of them"):
        run_node("QVL_Chat", model=model, message="?", history=history, history_json=text)
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(BadOption, match="is another one now"):
        run_node("QVL_Chat", model=model, message="Sure?", history_json=text)


@pytest.mark.parametrize("way", ["a link out", "no folder"])
def test_a_picture_that_cannot_be_kept_costs_no_answer(
    run_node: Run, scripted: Any, pictures: torch.Tensor, folders: Path, way: str
) -> None:
    place = folders / "output" / "qwen_vl_chat"
    if way == "a link out":
        (folders / "elsewhere").mkdir()
        place.symlink_to(folders / "elsewhere")
    else:
        place.write_text("in the way")
    model, _ = scripted("A cat.")
    given = {"message": "What?", "images": {"image_0": pictures[:1]}, "save_pictures": True}
    (answer,), _, (history,), _ = run_node("QVL_Chat", model=model, **given)
    assert answer == "A cat." and history.turns[0].attachments[0].reference is None
    note = chat_files.kept(Reply(history, Response("A cat."), ("cut off",))).notes
    assert len(note) == 2 and "was not kept" in note[1] and str(folders) not in note[1]


def test_a_history_is_read_again_when_its_files_have_changed(nodes: Any, folders: Path) -> None:
    fingerprint = nodes["QVL_Chat"].fingerprint_inputs
    media = [{"type": "image", "folder": "input", "path": "a.png"}]
    texts = ["", json.dumps({"turns": [{"text": "?", "answer": "!", "media": media}]})]
    (folders / "input" / "a.png").write_bytes(b"one")
    before = fingerprint(history_json=texts, seed=[1])
    assert before == fingerprint(history_json=texts, seed=[1])
    (folders / "input" / "a.png").write_bytes(b"another")
    assert before != fingerprint(history_json=texts, seed=[1])
    assert fingerprint(history_json="{") == fingerprint(history_json=[None])


def test_an_unreadable_picture_of_a_history_tells_no_place_of_the_server(
    run_node: Run, scripted: Any, folders: Path
) -> None:
    (folders / "input" / "a.png").write_bytes(b"no picture")
    media = [{"type": "image", "folder": "input", "path": "a.png"}]
    text = json.dumps({"turns": [{"text": "?", "answer": "!", "media": media}]})
    with pytest.raises(BadImage, match=r"input/a\.png cannot be read") as caught:
        run_node("QVL_Chat", model=scripted("no")[0], message="?", history_json=text)
    assert str(folders) not in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("output", "../secret.png"),
        ("output", "{root}/secret.png"),
        ("output", "link.png"),
        ("output", "\0"),
        ("output", "\ud800.png"),
        ("output", "//host/share/a.png"),
        ("output", r"\\host\share\a.png"),
        ("output", r"\??\UNC\host\share\a.png"),
        ("output", "C:a.png"),
        ("output", r"a\..\..\secret.png"),
        ("output", "a/../own.png"),
        ("temp", "secret.png"),
        ("", "{root}/secret.png"),
        ("../", "secret.png"),
    ],
)
def test_a_history_reads_nothing_outside_comfyuis_folders(
    run_node: Run, scripted: Any, folders: Path, folder: str, path: str
) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(folders / "secret.png")
    (folders / "output" / "link.png").symlink_to(folders / "secret.png")
    model, backend = scripted("no")
    media = [{"type": "image", "folder": folder, "path": path.format(root=folders)}]
    text = json.dumps({"turns": [{"text": "What?", "answer": "?", "media": media}]})
    with pytest.raises(BadOption, match="no file in ComfyUI's input or output folder"):
        run_node("QVL_Chat", model=model, message="?", history_json=text)
    assert not backend.requests
    Image.new("RGB", (64, 64)).save(folders / "input" / "own.png")
    own = text.replace(json.dumps(media), '[{"type":"image","folder":"input","path":"own.png"}]')
    assert run_node("QVL_Chat", model=model, message="?", history_json=own)[0] == ["no"]


def test_a_place_on_another_machine_is_refused_before_it_is_looked_at(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    resolve = Path.resolve
    monkeypatch.setattr(
        Path, "resolve", lambda self, *rest: looked.append(str(self)) or resolve(self, *rest)
    )
    for name in ("//host/share/a.pdf", r"\\host\share\a.pdf"):
        for find in (host.input_file, lambda name: host.known_file("input", name)):
            with pytest.raises(BadOption, match="is no file in ComfyUI's input"):
                find(name)
    assert not [path for path in looked if "host" in path]


def test_what_is_no_history_is_refused(run_node: Run, scripted: Any) -> None:
    model, _ = scripted("no")
    with pytest.raises(BadOption, match="history holds str"):
        run_node("QVL_Chat", model=model, message="?", history="[]")


def test_videos_and_sounds_follow_the_pictures(
    run_node: Run,
    scripted: Any,
    pictures: torch.Tensor,
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, backend = scripted("A dog barks.", "Yes.")
    source = Path(__file__).resolve().parents[2] / "example_workflows" / "videos" / "example.mp4"
    file = folders / "input" / "dog.mp4"
    file.write_bytes(source.read_bytes())

    class Loaded:
        """As ComfyUI's VIDEO of a file."""

        def get_stream_source(self) -> str:
            return str(file)

    sound = {"waveform": torch.zeros(1, 2, 4800), "sample_rate": 48000}
    shown = {"images": {"image_0": pictures[:1]}, "videos": {"video_0": Loaded()}}
    *_, (text,) = run_node("QVL_Chat", model=model, message="What?", **shown)
    media = json.loads(text)["turns"][0]["media"]
    assert [one["type"] for one in media] == ["image", "video"]
    assert (media[1]["folder"], media[1]["path"]) == ("input", "dog.mp4")
    values = json.loads(text)
    values["turns"][0]["media"] = media[1:]
    run_node("QVL_Chat", model=model, message="Sure?", history_json=json.dumps(values))
    first, again = (request.media[-1] for request in backend.requests)
    assert torch.equal(first.frames, again.frames) and first.times == again.times
    assert not backend.requests[0].sounds
    model, backend = scripted("A bark.", "Yes.", family="qwen2_5_omni")
    tone = Audio(torch.zeros(1, 16_000), 16_000)
    monkeypatch.setattr(video, "heard_sound", lambda clip, check: tone)
    options = {"frames_per_second": 1.0, "video_sound": True}
    del shown["images"]
    *_, (text,) = run_node("QVL_Chat", model=model, message="What?", **shown, **options)
    run_node("QVL_Chat", model=model, message="Sure?", history_json=text)
    for request in backend.requests:
        assert len(request.videos[0].frames) == len(first.frames) // 2
        assert request.sounds == (tone,)
    with pytest.raises(QwenVLError):
        run_node("QVL_Chat", model=model, message="?", sounds={"sound_0": {"waveform": None}})
    for sounds in ({"sound_0": sound}, sound):
        attachments, problem = _attachments(pictures[:1], [], sounds)
        assert problem is None and isinstance(attachments[1].part, Audio)

"""A whole folder by a model behind a server: enough requests under way, each answer at its file."""

from __future__ import annotations

import base64
import io
import threading

from caption_folders import Told, job, kohya, picture
from fake_server import Answer, FakeServer, serving
from PIL import Image
from qwen_vl_suite.qwenvl import model_cache
from qwen_vl_suite.qwenvl.folders import Sizes, caption_folder
from qwen_vl_suite.qwenvl.servers import faults, replicas
from qwen_vl_suite.qwenvl.types import ServerSpec


def test_a_folder_by_a_server(tmp_path) -> None:
    for number in range(20):
        picture(tmp_path / f"{number:02}.png", (number, 0, 0))

    def script(body: dict, number: int) -> Answer:
        (shown,) = [part for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
        data = base64.b64decode(shown["image_url"]["url"].partition(",")[2])
        red = Image.open(io.BytesIO(data)).getpixel((3, 3))[0]
        if red == 7:
            return Answer(status=400, body=b'{"error": {"message": "not this one"}}')
        return Answer(f"Number {red}.", delay=0.05)

    told = Told()
    with serving(script) as server:
        spec = ServerSpec((server.url,), "Qwen3-VL-8B-Instruct", concurrency=4)
        sizes = Sizes.of(spec)
        assert sizes.first >= 8 and sizes.most >= 32
        with model_cache.ModelCache(model_cache._load).lease(spec) as backend:
            summary = caption_folder(backend, job(tmp_path, sizes=sizes), told)
        assert server.most_active == 4
    assert summary.captioned == 19 and list(told.failures) == ["07.png"]
    for number in {*range(20)} - {7}:
        assert kohya(tmp_path / f"{number:02}.png") == f"Number {number}."


def test_a_slow_answer_holds_up_no_other(tmp_path) -> None:
    for number in range(60):
        picture(tmp_path / f"{number:02}.png", (number, 0, 0))
    is_first, others_are_done = iter([True]), threading.Event()

    def script(body: dict, number: int) -> Answer:
        if next(is_first, False):
            assert others_are_done.wait(20), "the others waited for it"
        return Answer("A caption.")

    class Counting(Told):
        def captioned(self, item, caption):
            super().captioned(item, caption)
            if len(self.captions) == 59:
                others_are_done.set()

    told = Counting()
    with serving(script) as server:
        spec = ServerSpec((server.url,), "Qwen3-VL-8B-Instruct", concurrency=4)
        with model_cache.ModelCache(model_cache._load).lease(spec) as backend:
            caption_folder(backend, job(tmp_path, sizes=Sizes(4, 8)), told)
    assert len(told.captions) == 60


def test_a_server_that_is_back_is_asked_again_in_the_same_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(faults, "delay", lambda tries: 0.01)
    for pause in ("FIRST_PAUSE", "LONGEST_PAUSE", "LONGEST_REST"):
        monkeypatch.setattr(replicas, pause, 0.01)
    for number in range(80):
        picture(tmp_path / f"{number:02}.png", (number, 0, 0))
    first = FakeServer(Answer("A caption."))
    again: list[FakeServer] = []

    class Restarting(Told):
        def captioned(self, item, caption):
            super().captioned(item, caption)
            if len(self.captions) == 10:
                first.close()

        def failed(self, relative, reason):
            super().failed(relative, reason)
            if not again:
                again.append(FakeServer(Answer("A caption."), port=first.port))

    told = Restarting()
    spec = ServerSpec((first.url,), "Qwen3-VL-8B-Instruct", concurrency=2)
    with model_cache.ModelCache(model_cache._load).lease(spec) as backend:
        caption_folder(backend, job(tmp_path, sizes=Sizes(4, 8)), told)
    again[0].close()
    assert told.failures and again[0].asked
    assert len(told.captions) + len(told.failures) == 80

"""Read-ahead: what is read of a folder and when, and how a run ends that is stopped."""

from __future__ import annotations

import math
import threading

import pytest
import videos
from caption_folders import Told, job, picture, run
from qwen_vl_suite.qwenvl.backends.scripted import (
    ScriptedBackend,
)
from qwen_vl_suite.qwenvl.folders import (
    Sizes,
    caption_folder,
    captioning,
    open_files,
)
from qwen_vl_suite.qwenvl.media.video import MAX_FRAME_PIXELS
from qwen_vl_suite.qwenvl.observer import Observer

pytestmark = pytest.mark.usefixtures("each_backend")


def test_the_first_answer_waits_neither_for_the_list_nor_for_all_to_be_decoded(
    tmp_path, monkeypatch
):
    for number in range(12):
        picture(tmp_path / f"{number:02}.png")
    answered, decoded, list_items = threading.Event(), [], open_files.listing

    def slow(*given, **options):
        for number, item in enumerate(list_items(*given, **options)):
            assert number < 8 or answered.wait(20), "no answer before the list was complete"
            yield item

    def reading(item, *frames):
        decoded.append(item.relative)
        return read(item, *frames)

    read = captioning.reading.read
    monkeypatch.setattr(open_files, "listing", slow)
    monkeypatch.setattr(captioning.reading, "read", reading)
    most = []

    class First(Told):
        def captioned(self, item, caption):
            super().captioned(item, caption)
            most.append(len(decoded) - len(self.captions))
            answered.set()

    told = First()
    caption_folder(ScriptedBackend("new"), job(tmp_path, sizes=Sizes(2, 2)), told)
    assert len(told.captions) == 12 and max(map(len, told.asked)) <= 2
    assert max(most) <= 2 + 2 + captioning.reading.THREADS + 1  # two portions, and what is begun


@pytest.mark.parametrize("moment", ["listing", "answering"])
def test_a_host_that_interrupts_is_heard_and_the_run_goes_on_from_there(tmp_path, moment):
    for number in range(4):
        picture(tmp_path / f"{number}.png")
        if moment == "listing":
            (tmp_path / f"{number}.txt").write_text("there")

    class Interrupt(BaseException):
        pass

    class Host(Observer):
        def check(self):
            raise Interrupt

    if moment == "listing":

        class Slow(Told):
            def skipped(self, item, reason):
                threading.Event().wait(0.5)

        with pytest.raises(Interrupt):
            caption_folder(ScriptedBackend("new"), job(tmp_path), Slow(), Host())
    else:
        with pytest.raises(Interrupt):
            caption_folder(ScriptedBackend("new"), job(tmp_path), None, Host())
        summary, _ = run(ScriptedBackend("new"), tmp_path)
        assert summary.captioned == 4


def test_frames_are_read_as_large_as_they_are_to_be_shown(tmp_path):
    videos.write(tmp_path / "a.mp4", frames=6, rate=12, size=(1024, 1536))
    pixels = []
    for most in (None, 2_000_000):
        backend = ScriptedBackend("new")
        fields = {"fields": {"max_pixels": most}}
        run(backend, tmp_path, words=fields, existing="overwrite")
        pixels.append(math.prod(backend.requests[0].videos[0].frames.shape[-2:]))
    assert pixels[0] <= MAX_FRAME_PIXELS < pixels[1] == 1024 * 1536


def test_what_was_read_before_the_reader_fails_is_captioned(tmp_path, monkeypatch):
    for number in range(24):
        picture(tmp_path / f"{number:02}.png")
    read = captioning.reading.read

    def failing(item, *more):
        if item.relative == "20.png":
            raise ZeroDivisionError("a fault")
        return read(item, *more)

    monkeypatch.setattr(captioning.reading, "read", failing)
    with pytest.raises(ZeroDivisionError):
        run(ScriptedBackend("A picture."), tmp_path)
    assert len(list(tmp_path.glob("*.txt"))) == 20


def test_a_run_that_is_stopped_reads_no_further_picture(tmp_path, monkeypatch):
    for number in range(8):
        picture(tmp_path / f"{number}.png")
    opened = []

    def slow(item, *more):
        opened.append(item.relative)
        threading.Event().wait(0.5)

    class Host(Observer):
        def check(self):
            if opened:
                raise KeyboardInterrupt

    monkeypatch.setattr(captioning.reading, "read", slow)
    monkeypatch.setattr(captioning.reading, "THREADS", 1)
    with pytest.raises(KeyboardInterrupt):
        caption_folder(ScriptedBackend("new"), job(tmp_path), None, Host())
    assert len(opened) == 1


def test_a_run_that_is_stopped_does_not_read_a_clip_to_its_end(tmp_path, monkeypatch):
    picture(tmp_path / "0.png")
    videos.write(tmp_path / "1.mp4", frames=24, rate=12)
    stopped, ended = threading.Event(), []

    def read(item, frames, frame_pixels, check):
        if item.is_clip:
            assert stopped.wait(20)
            try:
                for _ in range(200):
                    check()
                    threading.Event().wait(0.05)
            except captioning.reading.Stopped:
                ended.append(item.relative)
                raise
        return read_all(item, frames, frame_pixels, check)

    class Interrupt(BaseException):
        pass

    class Host(Told):
        def captioned(self, item, caption):
            stopped.set()
            raise Interrupt

    read_all = captioning.reading.read
    monkeypatch.setattr(captioning.reading, "read", read)
    with pytest.raises(Interrupt):
        caption_folder(ScriptedBackend("new"), job(tmp_path, sizes=Sizes(1, 1)), Host())
    assert ended == ["1.mp4"]

"""Picture calibration: what a server did to a picture is told from the tokens that it reports."""

from __future__ import annotations

import asyncio
import dataclasses

import own_loop
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import ServerError, UnsuitableModel
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.servers.calibration import Calibration
from qwen_vl_suite.qwenvl.servers.content import plan
from qwen_vl_suite.qwenvl.servers.kinds import PictureLimits, kind, kinds
from qwen_vl_suite.qwenvl.servers.picture_sizes import tokens_of
from qwen_vl_suite.qwenvl.servers.seen_sizes import derived_sizes, mentions_places
from qwen_vl_suite.qwenvl.types import Image, Message, Request, Response, Usage, Video

QWEN25, QWEN3 = FAMILIES["qwen2_5_vl"], FAMILIES["qwen3_vl"]
BOX = '[{"bbox_2d": [0, 0, 56, 56], "label": "cat"}]'


class CountingServer:
    """Counts the tokens of prompts, with its pictures resized within ``limits``, and ``marks``
    beside each. ``asked``: every question that calibration had."""

    def __init__(self, name, limits=None, marks=2, family=QWEN25):
        self.kind, self.family, self.marks = kind(name), family, marks
        self.limits = limits or self.kind.pictures
        self.asked: list[Request] = []

    def tokens(self, request):
        sizes = iter(plan(request, self.family, self.kind).input_sizes)
        total = 23
        for message in request.messages:
            total += 5 + sum(len(part) for part in message.parts if isinstance(part, str)) // 3
            for part in message.parts:
                if isinstance(part, Image):
                    total += self.marks + tokens_of(self.shown(next(sizes)), self.family)
        return total

    def shown(self, size):
        return self.limits.resized(size, self.family)

    async def ask(self, request):
        self.asked.append(request)
        return self.tokens(request)

    def answered(self, request, text=BOX, counts=True, calibration=None, where="a"):
        """The answer to ``request`` once it was verified."""
        sizes = plan(request, self.family, self.kind).input_sizes
        usage = Usage(self.tokens(request) if counts else 0)
        response = Response(text, input_sizes=sizes, usage=usage)
        calibration = calibration or Calibration()
        server = (where, "model")
        return own_loop.run(
            calibration.verified(response, request, self.family, self.kind, server, self.ask)
        )


def asking(*sizes, prompt="Where is the cat?"):
    return Request.ask([torch.zeros(3, *size, dtype=torch.uint8) for size in sizes], prompt)


@pytest.mark.parametrize("name", sorted(kinds()))
@pytest.mark.parametrize("marks", [2, 7])
def test_a_picture_that_was_shown_as_sent_is_proven_and_nothing_said(name, marks):
    server = CountingServer(name, marks=marks)
    request = asking((1000, 1400), (300, 500))
    found = server.answered(request)
    assert found.input_sizes == plan(request, QWEN25, server.kind).input_sizes
    assert not found.notes and found.error is None


def test_two_questions_a_model_and_one_a_text():
    server, calibration = CountingServer("vllm"), Calibration()
    server.answered(asking((300, 400)), calibration=calibration)
    without, with_it, same = server.asked
    assert (len(without.media), len(with_it.media), len(same.media)) == (0, 1, 1)
    assert without.prompt == with_it.prompt and same.prompt == "Where is the cat?"
    assert all(asked.sampling.max_new_tokens == 1 for asked in server.asked)
    server.answered(asking((500, 700)), calibration=calibration)
    assert len(server.asked) == 3  # another picture, the same words
    server.answered(asking((500, 700), prompt="And the dog?"), calibration=calibration)
    assert len(server.asked) == 4
    server.answered(asking((500, 700)), calibration=calibration, where="b")
    assert len(server.asked) == 7  # another replica


def test_many_answers_at_once_ask_no_more():
    server, calibration = CountingServer("vllm"), Calibration()
    request = asking((300, 400))
    sizes = plan(request, QWEN25, server.kind).input_sizes
    response = Response(BOX, input_sizes=sizes, usage=Usage(server.tokens(request)))

    async def all_of_them():
        arguments = (response, request, QWEN25, server.kind, ("a", "m"), server.ask)
        return await asyncio.gather(*(calibration.verified(*arguments) for _ in range(20)))

    assert own_loop.run(all_of_them()) == [response] * 20
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "text",
    [
        "A cat.",
        "Two cats, of 3 and 4 years",
        "[]",
        '[{"label": "cat"}]',
        "Width: 40 cm.",
        '{"shop": "Corner 7", "total": 12.5, "items": 3, "top": 1}',
    ],
)
def test_nothing_is_asked_for_answers_without_places(text):
    server = CountingServer("vllm", PictureLimits(most_pixels=100_000))
    assert server.answered(asking((1000, 1000)), text).notes == ()
    assert not server.asked and not mentions_places(text)


@pytest.mark.parametrize(
    "text",
    [
        BOX,
        '<p data-bbox="12 30 40 60">',
        "<|box_start|>(12,30),(40,60)<|box_end|>",
        '{"coordinate": [ 12, 30 ]}',
        '{"point_2d": [12.5, 30]}',
        '{"label": "cat", "x1": 12, "y1": 30, "x2": 40, "y2": 60}',
        '{"bbox": {"x_min": 12.5, "y_min": 30, "x_max": 40, "y_max": 60}}',
        '<box x1="12" y1="30" x2="40" y2="60">cat</box>',
        "cat: left=12, top = 30, width: 28, height: 30",
        '{"x": "12", "y": "30"}',
    ],
)
def test_places_are_seen_in_every_form(text):
    assert mentions_places(text)


LMSTUDIO_500 = PictureLimits(8, 4096, longest_side=500, rounding="half_up")


@pytest.mark.parametrize(
    ("limits", "size", "seen"),
    [
        (PictureLimits(most_pixels=401_408), (896, 1204), (532, 728)),
        (LMSTUDIO_500, (980, 1400), (364, 504)),
        (PictureLimits(least_tokens=2000), (280, 560), (896, 1792)),
    ],
)
def test_a_picture_that_was_resized_is_known_in_its_size(limits, size, seen):
    server = CountingServer("vllm", limits)
    assert server.shown(size) == seen
    found = server.answered(asking(size))
    assert found.input_sizes == (seen,) and found.error is None
    (note,) = found.notes
    assert f"{seen[1]}x{seen[0]} pixels instead of the {size[1]}x{size[0]}" in note


def test_several_pictures_of_one_size_are_known_too():
    server = CountingServer("vllm", PictureLimits(most_pixels=401_408))
    assert server.answered(asking((896, 1204), (896, 1204))).input_sizes == ((532, 728),) * 2


def test_where_the_size_cannot_be_told_the_answer_is_refused_by_name():
    server = CountingServer("vllm", PictureLimits(most_pixels=401_408))
    for request in (asking((896, 1204), (1204, 896), (980, 980)),):
        found = server.answered(request)
        assert isinstance(found.error, UnsuitableModel) and not found.text
        assert "vLLM showed the model 3 pictures in another size" in str(found.error)
        assert "tokens instead of" in str(found.error) and "Qwen3-VL" in str(found.error)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(3, 90),
    st.integers(3, 90),
    st.integers(9, 4000),
    st.sampled_from(["half_up", "half_even"]),
    st.sampled_from([0, 500, 1024]),
)
def test_a_size_that_is_derived_is_the_right_one(rows, columns, most, rounding, longest):
    """Whatever a server's limits: what cannot be told apart is not derived."""
    sent = rows * 28, columns * 28
    limits = PictureLimits(
        least_tokens=4, most_tokens=most, longest_side=longest, rounding=rounding
    )
    seen = limits.resized(sent, QWEN25)
    assume(seen != sent)
    found = derived_sizes((sent,), tokens_of(seen, QWEN25), QWEN25)
    assert found in (None, (seen,))


def test_most_sizes_can_be_derived():
    limits = PictureLimits(least_tokens=4, most_tokens=700)
    sizes = [(rows * 28, columns * 28) for rows in range(20, 70, 3) for columns in range(20, 70, 7)]
    changed = [(size, limits.resized(size, QWEN25)) for size in sizes]
    changed = [(size, seen) for size, seen in changed if seen != size]
    derived = [derived_sizes((size,), tokens_of(seen, QWEN25), QWEN25) for size, seen in changed]
    assert len(changed) > 80
    assert sum(found is not None for found in derived) > 0.9 * len(changed)


def test_a_server_that_reports_no_tokens_is_told_of():
    class Silent(CountingServer):
        def tokens(self, request):
            return None

    server, calibration = Silent("llama.cpp"), Calibration()
    for _ in range(3):  # and not asked again
        found = server.answered(asking((300, 400)), counts=False, calibration=calibration)
    assert found.text == BOX and found.error is None
    (note,) = found.notes
    assert "is not known: it does not report the tokens of prompts" in note
    assert len(server.asked) == 2


def test_counts_of_what_is_not_cached_prove_nothing():
    """A server that counts only what it had to read anew."""

    class Cached(CountingServer):
        def tokens(self, request):
            return 1 if self.asked[:-1] else super().tokens(request)

    (note,) = Cached("ollama").answered(asking((300, 400))).notes
    assert "is not known" in note


def test_an_answer_that_was_cut_off_here_is_counted_by_asking_again():
    server = CountingServer("vllm", PictureLimits(most_pixels=401_408))
    found = server.answered(asking((896, 1204)), counts=False)
    assert found.input_sizes == ((532, 728),)
    assert len(server.asked) == 4


def test_a_server_that_fails_meanwhile_costs_a_note_only():
    class Failing(CountingServer):
        async def ask(self, request):
            raise ServerError("it is gone")

    found = Failing("vllm").answered(asking((300, 400)))
    (note,) = found.notes
    assert found.text == BOX and "that failed (it is gone)" in note


def test_shares_of_the_picture_stay_right_whatever_its_size():
    """And nothing is asked; only a picture that was made much smaller is told of."""
    server = CountingServer("other", PictureLimits(most_pixels=66_000), family=QWEN3)
    found = server.answered(asking((1000, 1400)))
    sizes = plan(asking((1000, 1400)), QWEN3, server.kind).input_sizes
    assert found.input_sizes == sizes and not server.asked
    (note,) = found.notes
    assert f"worth {tokens_of(sizes[0], QWEN3)}: it makes them smaller" in note
    server.limits = server.kind.pictures
    assert server.answered(asking((1000, 1400))).notes == ()


def test_text_around_pictures_is_counted_as_the_server_does():
    server = CountingServer("ollama", marks=9)
    image = Image(torch.zeros(3, 400, 600, dtype=torch.uint8))
    messages = (
        Message("system", ("Be brief.",)),
        Message("user", ("First: ", image, "\n second: ", image, "\n")),
        Message("assistant", ("One.",)),
        Message("user", ("Where?",)),
    )
    found = server.answered(Request(messages))
    assert found.notes == () and found.error is None


def test_a_response_that_failed_is_left_alone():
    error = ServerError("no")
    response = Response("", error=error, input_sizes=((28, 28),))
    server = CountingServer("vllm")
    done = Calibration().verified(
        response, asking((28, 28)), QWEN25, server.kind, ("a", "m"), server.ask
    )
    assert own_loop.run(done) == dataclasses.replace(response)


def test_beside_videos_nothing_can_be_proven_and_that_is_said():
    server = CountingServer("llama.cpp")
    video = Video(torch.zeros(2, 3, 60, 60, dtype=torch.uint8), (0.0, 1.0))
    request = Request.ask([torch.zeros(3, 300, 400, dtype=torch.uint8), video], "Where?")
    sizes = plan(request, QWEN25, server.kind).input_sizes
    response = Response(BOX, input_sizes=sizes, usage=Usage(500))
    arguments = (request, QWEN25, server.kind, ("a", "m"), server.ask)
    (note,) = own_loop.run(Calibration().verified(response, *arguments)).notes
    assert "is not known: it was shown more than pictures" in note and not server.asked


def test_a_count_that_no_picture_has_is_no_size():
    assert derived_sizes([(280, 280)], 400, QWEN25) == ((560, 560),)
    for seen in (10**11, 10**400, 0, -4):
        assert derived_sizes([(280, 280)], seen, QWEN25) is None

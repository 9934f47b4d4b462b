"""Words of prompts: choices by seed, words that stand in a text, lengths, ratios."""

from __future__ import annotations

from pathlib import Path

import pytest
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.prompt_writing import choose, listed
from qwen_vl_suite.qwenvl.prompt_writing.length import count, estimate
from qwen_vl_suite.qwenvl.prompt_writing.ratios import followed, ratio_of, size_of
from qwen_vl_suite.qwenvl.prompt_writing.wishes import Wishes, stands_in


def test_choices_nested_without_end_are_refused() -> None:
    with pytest.raises(BadOption, match="50 deep"):
        choose("{" * 5000, 0)
    assert choose("{" * 40 + "a" + "}" * 40, 0) == "a"


def test_choices_are_drawn_by_the_seed() -> None:
    text = "a {red|blue|{light|dark} green} hat on a {mat|}"
    drawn = {choose(text, seed) for seed in range(100)}
    colours = ("red", "blue", "light green", "dark green")
    assert drawn == {f"a {colour} hat on a {mat}" for colour in colours for mat in ("mat", "")}
    assert choose(text, 5) == choose(text, 5)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('{"a": {"b": "c // d|e"}}', '{"a": {"b": "c // d|e"}}'),
        (' ["{a|b}"]\n', ' ["{a|b}"]\n'),
        ('{"a"} ', '"a" '),
        ("a /* b // c\nd /* e", "a /* b \nd /* e"),
        ("a /*/ b */ c */", "a  c */"),
        ("[" * 100_000, "[" * 100_000),
        (r"\{a\|b\} {only}", "{a|b} only"),
        ("a // not this\nb /* nor\nthis */ c", "a \nb  c"),
        ("see https://example.org", "see https://example.org"),
        ("a} b|c {open", "a} b|c open"),
        ("", ""),
    ],
)
def test_escapes_comments_and_lone_braces(text: str, plain: str) -> None:
    assert choose(text, 0) == plain


@pytest.mark.parametrize(
    ("phrase", "text", "stands"),
    [
        ("hat", "A Hat.", True),
        ("hat", "What is that?", False),
        ("red hat", "a red\n hat", True),
        ("long hair", "long_hair, smile", True),
        ("猫", "一只猫坐着", True),
        ("hat", "一顶hat。", True),
        ("f/1.8", "at f/1.8, wide", True),
        ("C++", "C++", True),
        ("Bär", "ein Bär", True),
        ("Bär", "Bären", False),
        ("café", "a cafe\u0301 table", True),
        ("cafe\u0301", "a café", True),
        ("__", "a cat", False),
    ],
)
def test_words_are_found_as_whole_words(phrase: str, text: str, stands: bool) -> None:
    assert stands_in(phrase, text) is stands


def test_plurals_count_where_asked_for() -> None:
    assert not stands_in("dog", "two dogs") and stands_in("dog", "two dogs", plural=True)
    assert stands_in("box", "boxes", plural=True) and not stands_in("do", "dog", plural=True)


@pytest.mark.parametrize(
    "forms",
    ["cat Cats", "LADY ladies", "box boxes", "movie movies", "toy toys", "shoe shoes", "bus buses",
     "red_rose red_roses", "glass glasses"],
)  # fmt: skip
def test_singular_and_plural_stand_for_each_other(forms: str) -> None:
    one, many = forms.split()
    assert stands_in(one, f"with {many}.", plural=True)
    assert stands_in(many, f"a {one}.", plural=True)
    assert not stands_in(many, f"a {one}.")


@pytest.mark.parametrize(("phrase", "text"), [("news", "new"), ("his", "hi"), ("dress", "dres")])
def test_what_only_ends_as_a_plural_is_none(phrase: str, text: str) -> None:
    assert not stands_in(phrase, text, plural=True)


def test_wishes_that_no_prompt_can_meet_are_refused() -> None:
    with pytest.raises(BadOption, match='"red hats" must appear, and "hat" must not'):
        Wishes(("red hats",), ("dog", "hat"))
    assert Wishes(("hat",), ("red hat",)).must == ("hat",)


def test_comments_that_nothing_ends_are_none() -> None:
    text = "/* " * 60_000  # quadratic time would be minutes here
    assert choose(text, 0) == text


def test_lists_of_words() -> None:
    assert listed(' "red hat", Mat，\n帽子, mat,, ') == ("red hat", "Mat", "帽子")


def test_lengths_are_estimated_and_said_to_be() -> None:
    assert str(count("a red hat", "clip", {})) == "about 3 CLIP tokens (estimated)"
    assert estimate("红色帽子") == 4 and estimate("a, b. 12") == 6
    missing = count("a red hat", "t5", {"t5": Path("/nowhere")})
    assert not missing.is_exact and missing.tokens == 3


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("16:9", 16 / 9), (" 3 : 4 ", 0.75), ("2.35:1", 2.35), ("9:0", None), ("wide", None),
     ("1000:1", None), ("-1:2", None)],
)  # fmt: skip
def test_ratios(text: str, ratio: float | None) -> None:
    assert ratio_of(text) == ratio


def test_ratios_of_pictures_and_sizes() -> None:
    assert followed("<image2>", [(10, 10), (10, 20)]) == 2
    assert followed("<image3>", [(10, 10)]) is None and followed("it", [(10, 10)]) is None
    assert size_of(1.0, 1 << 20, 32) == (1024, 1024) and size_of(200, 4096, 64)[0] == 64

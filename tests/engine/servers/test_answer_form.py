"""Answer forms: constraints in each server's own words, and their grammars."""

from __future__ import annotations

import json
import re

import pytest
from llguidance import LLMatcher, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark
from qwen_vl_suite.qwenvl import constraints
from qwen_vl_suite.qwenvl.servers import gbnf
from qwen_vl_suite.qwenvl.servers.answer_form import answer_form, choices_of, ignored_note
from qwen_vl_suite.qwenvl.servers.kinds import kind, kinds
from qwen_vl_suite.qwenvl.types import Constraint

SCHEMA = constraints.from_keys(["title", "price"])
CHOICES = constraints.from_choices(["yes", 'no, "never"', "vielleicht\n"])
REGEX = constraints.from_regex(r"[A-Z]{2}-\d+")
LARK = constraints.from_lark('start: "a" B+\nB: /[0-9]/')


def sent(constraint, name):
    return answer_form(constraint, kind(name)).fields


def test_a_json_schema_is_sent_as_openai_has_it():
    wanted = json.loads(SCHEMA.source)
    for name in kinds():
        fields = sent(SCHEMA, name)
        if name == "transformers":
            assert fields == {}
            continue
        described = fields["response_format"]["json_schema"]
        assert described["schema"] == wanted and described["strict"] and described["name"]
        assert fields["response_format"]["type"] == "json_schema" and len(fields) == 1
    anything = sent(constraints.from_schema(True), "vllm")
    assert anything["response_format"]["json_schema"]["schema"] == {}


def test_choices_and_grammars_go_where_the_server_has_a_place_for_them():
    assert choices_of(CHOICES) == ("yes", 'no, "never"', "vielleicht\n")
    assert choices_of(LARK) == choices_of(REGEX) == ()
    assert sent(CHOICES, "vllm") == {"structured_outputs": {"choice": list(choices_of(CHOICES))}}
    assert sent(REGEX, "vllm") == {"structured_outputs": {"regex": REGEX.source}}
    assert sent(REGEX, "sglang") == {"regex": REGEX.source}
    assert sent(REGEX, "llama.cpp") == {"grammar": gbnf.from_regex(REGEX.source)}
    assert sent(LARK, "sglang") == {"ebnf": gbnf.from_lark(LARK.source)}
    assert sent(LARK, "vllm") == {"structured_outputs": {"grammar": gbnf.from_lark(LARK.source)}}
    for name in ("ollama", "lmstudio", "transformers", "other"):
        assert sent(CHOICES, name) == sent(REGEX, name) == sent(LARK, name) == {}


def test_what_is_free_is_told_of_unless_its_reader_checks_it():
    assert answer_form(CHOICES, kind("ollama")).notes == ()
    (note,) = answer_form(REGEX, kind("ollama")).notes
    assert note == "Ollama could not be asked to hold the answer to its form."
    looking = Constraint("regex", "a(?=b)b")
    (note,) = answer_form(looking, kind("llama.cpp")).notes
    assert note.endswith("its grammar cannot say look-around, a flag or a name.")
    assert answer_form(looking, kind("vllm")).fields  # its own business


def test_an_answer_that_is_held_from_an_opening_on_is_free():
    for strict in ("auto", "off"):
        waiting = constraints.from_items({"bbox_2d": (4,)}, strict)
        for name in kinds():
            form = answer_form(waiting, kind(name))
            assert not form.fields and not form.notes


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (SCHEMA, '{"title": null, "price": "3"}', '```json\n{"title": null}\n```'),
        (CHOICES, "yes", "Yes, it is."),
        (REGEX, "AB-12", "It is AB-12"),
    ],
)
def test_a_server_that_ignored_the_form_is_told_of(constraint, good, bad):
    form = answer_form(constraint, kind("vllm"))
    assert ignored_note(form, constraint, good, kind("vllm")) == ""
    assert ignored_note(form, constraint, bad, kind("vllm")).startswith("vLLM was asked to hold")
    assert ignored_note(answer_form(None, kind("vllm")), constraint, bad, kind("vllm")) == ""


def accepts(grammar, text):
    """By an engine that reads GBNF by way of Lark, which has four digits in another way."""
    lark = gbnf_to_lark(re.sub(r"\\u00(\w\w)", r"\\x\1", grammar))
    made = LLMatcher.grammar_from_lark(lark)
    matcher = LLMatcher(LLTokenizer("byte"), made, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    data = list(text.encode())
    return (
        matcher.validate_tokens(data) == len(data)
        and matcher.consume_tokens(data)
        and matcher.is_accepting()
    )


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^\d{4}-\d\d$", ["2026-11"], ["2026-1", "x2026-11"]),
        (r"(yes|no)\.?", ["yes", "no."], ["maybe", "yes.."]),
        (r'"[^"\\\n]*"', ['"a b"', '""'], ['"a', '"a"b"']),
        (r"[\w.+-]+@[a-z]+\.\w{2,3}", ["a.b+c@x.de"], ["a@x.d", "a@x.dedede"]),
        (r"(?:\[|\])\(\s*\)[\]^-]", ["[( )-", "]()]"], ["[()a"]),
        (r"é\x41é.\S", ["éAé x"], ["éBé x", "éAé  "]),
        (r"\D\W", ["a-"], ["1-", "ab"]),
    ],
)
def test_regular_expressions_become_grammars(pattern, good, bad):
    grammar = gbnf.from_regex(pattern)
    assert [text for text in good if not accepts(grammar, text)] == []
    assert [text for text in bad if accepts(grammar, text)] == []


@pytest.mark.parametrize(
    "pattern", [r"(?i)a", r"(a)\1", r"a*?", r"\bword", "a(", "[a", "a{2}+", "a^"]
)
def test_what_a_grammar_cannot_say_is_refused(pattern):
    with pytest.raises(gbnf.NotInGbnf):
        gbnf.from_regex(pattern)


def test_lists_of_boxes_and_events_become_grammars():
    boxes = gbnf.from_lark(constraints.from_items({"bbox_2d": (4,)}, "on").source)
    box = '{"bbox_2d": [1, 2, 3, 4], "label": "a \\"b\\" c"}'
    assert accepts(boxes, f"[{box}]") and accepts(boxes, f"```json\n[\n\t{box},\n\t{box}\n]\n```")
    assert accepts(boxes, "[]")
    assert not accepts(boxes, '[{"label": "a"}]')
    assert not accepts(boxes, '[{"bbox_2d": [1, 2, 3]}]')
    events = gbnf.from_lark(constraints.from_events("on").source)
    event = '{"start_time": "00:01.5", "end_time": "00:03", "description": "x"}'
    assert accepts(events, f"[{event}]")
    assert not accepts(events, f"[{event.replace('00:03', '00:63')}]")


def test_lark_is_read_as_far_as_grammars_go():
    grammar = gbnf.from_lark(
        '// A comment.\n?start: (root ["," root])~1..2\n  | "x"{2,3}\n\nroot.2: W_D\nW_D: /[a-z]+/'
    )
    assert accepts(grammar, "ab,cd") and accepts(grammar, "abcd,e") and accepts(grammar, "xxx")
    assert not accepts(grammar, "ab,cd,") and not accepts(grammar, ",")
    for source in (
        'start: _a a\n_a: "x"\na: "y"',
        "%ignore / /\nstart: A",
        "start: a",
        'a: "x"',
        'start: "x"i',
        "start: /x/i",
    ):
        with pytest.raises(gbnf.NotInGbnf):
            gbnf.from_lark(source)


def test_choices_become_a_grammar():
    grammar = gbnf.from_choices(choices_of(CHOICES))
    assert accepts(grammar, 'no, "never"') and accepts(grammar, "vielleicht\n")
    assert not accepts(grammar, "no")

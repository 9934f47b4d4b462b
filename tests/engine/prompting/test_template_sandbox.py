"""Template sandbox: what real chat templates use works, and none can hang or fill the memory."""

from __future__ import annotations

import pytest
import tiny
from qwen_vl_suite.qwenvl.errors import UnsupportedModel
from qwen_vl_suite.qwenvl.prompting.template_sandbox import MAX_OWN_CHARACTERS, SandboxedTemplate

GROW = "{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = GROWN %}{% endfor %}"
LOOP = "{% for a in range(99999) %}"
ENDLESS = {
    "loops in loops": f"{LOOP}{LOOP}{{% endfor %}}{{% endfor %}}",
    "calls": "{% macro f(n) %}{% if n %}{{ f(n-1) ~ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "calls without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a power": "{{ 2 ** (9 ** 99) }}",
    "a power of a power": "{{ ((9 ** 9 ** 9) ** 9) ** 9 }}",
    "a growing number": GROW.replace("'xx'", "3").replace("GROWN", "n.x * n.x"),
    "a growing text": GROW.replace("GROWN", "n.x + n.x"),
    "a growing joint": GROW.replace("GROWN", "n.x ~ n.x"),
    "a growing list": GROW.replace("'xx'", "[1]").replace("GROWN", "n.x * 2"),
    "a long text": "{{ 'x' * 10 ** 10 }}",
    "a wide field": "{{ '%999999999d' % 1 }}",
    "a centred text": "{{ 'x'.center(10 ** 10) }}",
    "a megabyte": "x" * 1_000_000,
    "a megabyte bit by bit": "{% for a in range(9999) %}{{ messages }} and so on, {% endfor %}" * 2,
}
RAISING = {
    "no syntax": "{% if %}",
    "nested too deeply": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "its own error": "{{ raise_exception('only text, please') }}",
    "a division": "{{ 1 / 0 }}",
    "a wrong type": "{{ messages + 1 }}",
    "a missing name": "{{ a.b.c }}",
    "another file": "{% include 'other' %}",
    "a key": "{{ {}.popitem() }}",
    "an index": "{{ [].index(1) }}",
    "an unsafe call": "{{ messages.__class__.mro() }}",
    "a wide range": "{% for a in range(10 ** 9) %}{% endfor %}",
}


@pytest.mark.parametrize("source", [*ENDLESS.values(), *RAISING.values()], ids=[*ENDLESS, *RAISING])
def test_a_template_that_fails_or_exceeds_the_limits_is_refused(source: str) -> None:
    with pytest.raises(UnsupportedModel, match="chat template of this checkpoint fails"):
        SandboxedTemplate(source).render(messages=[{"role": "user", "content": "."}])


def test_the_error_text_is_bounded() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        SandboxedTemplate("{{ raise_exception('x' * 100000) }}").render()
    assert len(str(caught.value)) < 1000


def test_long_messages_do_not_count_against_the_template() -> None:
    words = "word " * MAX_OWN_CHARACTERS
    assert SandboxedTemplate("{{ t }}").render(t=words) == words


def test_every_run_has_its_own_limits() -> None:
    template = SandboxedTemplate(
        "{% for a in range(9000) %}{% for b in range(99) %}{% endfor %}{% endfor %}"
    )
    assert [template.render() for _ in range(2)] == ["", ""]


REAL = (
    "{% for m in messages %}{{ loop.index }}{{ m.role ~ ': ' ~ m.content }}"
    "{% if loop.last %}!{% endif %}{% if loop.first %}{% continue %}{% endif %}-{% endfor %}"
    "{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}"
    "{% generation %}g{% endgeneration %}{{ {'a': '<'} | tojson }}"
    "{% set n = namespace(x=0) %}{% for a in messages[::-1] %}{% set n.x = n.x + 1 %}{% endfor %}"
    "{{ n.x }}{{ '%s' % 3 }}{{ 2 ** 3 }}{{ [1] * 2 }}{{ messages | map(attribute='role') | join }}"
)


@pytest.mark.parametrize(
    "source", [REAL, tiny.TEMPLATE, tiny.SWITCH], ids=["all", "tiny", "switch"]
)
@pytest.mark.parametrize("thinking", [True, False])
def test_templates_render_as_in_transformers(source: str, thinking: bool) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = source
    turns = [("user", "Hi"), ("assistant", "yes <b>"), ("user", "and?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    options = {"add_generation_prompt": True, "enable_thinking": thinking}
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    named = tokenizer.special_tokens_map
    assert SandboxedTemplate(source).render(messages=messages, **named, **options) == theirs

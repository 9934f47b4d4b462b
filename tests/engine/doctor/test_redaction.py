"""Redaction: nothing of the user's is left, and everything else is."""

from __future__ import annotations

import io

import pytest
from qwen_vl_suite.qwenvl.doctor.redaction import RedactingStream, Redactor, redactor_of

PRIVATE = {
    "config.json of /home/ann/models/secret-lab is damaged": "config.json of <path> is damaged",
    "'/home/ann/my models/secret lab' is missing": "'<path>' is missing",
    r'"C:\Users\ann\My Models\lab" is missing': '"<path>" is missing',
    r"in C:\Users\ann\lab: no": "in <path>: no",
    r"on \\server\share\lab now": "on <path> now",
    "in ~/models/lab.": "in <path>",
    "(/tmp/x.json) and </home/ann/x>": "(<path>) and <<path>>",
    "file:///home/ann/x and https://ann:pw@host.example/x?y=1": "<address> and <address>",
    "login of ann.lee@example.com": "login of <address>",
    "Authorization: Bearer abc.def": "Authorization: Bearer <secret>",
    "token hf_abcdefghijklmnop was refused": "token <secret> was refused",
    "sk-abcdefghijklmnop": "<secret>",
}
PUBLIC = (
    "19 tokens/s and 0.5/1 of 12/24, and/or",
    "Qwen/Qwen3-VL-4B-Instruct needs transformers 5.20",
    "torch 2.11.0+cu130, Linux 6.1.0 x86_64, 1280x960",
    "qwenvl/inference/scheduler.py:12 in _step",
    '```json\n[\n\t{"bbox_2d": [8, 416, 240, 769], "label": "a\\"b"}\n]\n```',
    "pip install -U pillow",
    "</think> <|im_end|>",
)


@pytest.mark.parametrize("text", PRIVATE)
def test_what_has_the_form_of_something_private_goes(text):
    assert Redactor()(text) == PRIVATE[text]


@pytest.mark.parametrize("text", PUBLIC)
def test_the_rest_stays(text):
    assert Redactor()(text) == text


def test_names_go_as_whole_words_and_secrets_anywhere():
    redact = Redactor(["ann", "ann-laptop", "x"], ["s3cret-value", "no"])
    assert redact("ann on ann-laptop: annual x") == "<private> on <private>: annual x"
    assert redact("ays3cret-valueb, no") == "ay<secret>b, no"


def test_values_of_json_are_redacted_and_its_keys_and_numbers_stay():
    redact = Redactor(["ann"])
    found = redact.values({"ann": ["ann", 1, None, {"x": "by ann"}]})
    assert found == {"ann": ["<private>", 1, None, {"x": "by <private>"}]}


def test_the_users_own_names_and_secrets_are_known(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "anns-laptop.lan.example")
    for name, value in {
        "USER": "annlee", "HF_TOKEN": "tokentoken", "OPENAI_API_KEY": "keykeykey",
        "DB_PASSWORD": "passpass",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    redact = redactor_of(["models/lab of ours"], ["secret-lab"])
    assert redact("in models/lab of ours/x: no") == "in <path>: no"
    text = "annlee anns-laptop anns-laptop.lan.example tokentoken keykeykey passpass secret-lab"
    assert set(redact(text).split()) == {"<private>", "<secret>"}


def test_a_stream_passes_on_what_is_redacted():
    plain = io.StringIO()
    stream = RedactingStream(plain, Redactor(["ann"]))
    print("by ann", file=stream)
    stream.flush()
    assert plain.getvalue() == "by <private>\n"
    assert not stream.isatty()

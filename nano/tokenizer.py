"""The small tokenizer: words of our prompts, one token per coordinate, bytes for all else.

The model is byte-level BPE without merges: a regular expression cuts the text
into candidates, a candidate that is in the vocabulary becomes one token, and
any other falls apart into bytes. So all text round-trips, capitals and digits
are read one by one, and a box costs four tokens.
"""

from __future__ import annotations

import json
import random
import re
from functools import lru_cache
from pathlib import Path

from . import card_questions, clip_questions, conversations, questions, scenes

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
LIMIT = 1000  # coordinates run from 0 to this
WHOLE = (
    questions.JOINTS
    + questions.AT
    + (
        "None found.",
        "No text found.",
        "On a",
        " ground: ",
        " JSON",
        "OCR",
        "The text reads",
        " The text reads",
        "_2d",
        "_content",
        clip_questions.OPEN,
        clip_questions.NEXT,
        clip_questions.END,
        clip_questions.LABEL,
        clip_questions.CLOSE,
        clip_questions.NONE,
        clip_questions.NOTHING,
        clip_questions.THEN,
        clip_questions.THEN_AN,
        "It is",
        *card_questions.FIRST_KEYS.values(),
        *card_questions.NEXT_KEYS.values(),
        *card_questions.ASKED_KEYS.values(),
        *card_questions.PRINTED_KEYS.values(),
    )
)
SECONDS = "{:.1f}"  # how times are written
# Order matters: whole pieces, a coordinate with its bracket or comma, times, words, characters.
PATTERN = "|".join(re.escape(w) for w in sorted(WHOLE, key=len, reverse=True)) + (
    r"|\[\d{1,4}(?!\d)|, \d{1,4}(?!\d)|<\d{1,2}\.\d seconds>|\d{1,2}\.\d(?!\d)"
    r"| ?[A-Z]?[a-z]+|[\s\S]"
)
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful vision assistant.",
    "Answer briefly.",
    "You are Qwen, a vision language model.",
    "Answer in English.",
)

CHAT_TEMPLATE = """\
{%- set counter = namespace(images=0, videos=0) -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
{%- set counter.images = counter.images + 1 -%}
{%- if add_vision_id -%}{{- 'Picture ' ~ counter.images ~ ': ' -}}{%- endif -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' or 'video' in part -%}
{%- set counter.videos = counter.videos + 1 -%}
{%- if add_vision_id -%}{{- 'Video ' ~ counter.videos ~ ': ' -}}{%- endif -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def _words() -> list[str]:
    """Every word of our own questions and answers, with its leading space if it has one."""
    found = set()
    for seed in range(500):
        rng = random.Random(f"nano words {seed}")
        scene = scenes.draw(f"words {seed}", size=(224, 224))
        asked = questions.ordinary(scene, rng, 12)
        asked += clip_questions.turns(scenes.draw_clip(f"words {seed}"), rng, 6)
        if seed % 5 == 0:
            asked += [conversations.conversation(scene, rng) for _ in range(4)]
            card = scenes.draw_card(f"words {seed}", (288, 160))
            asked += card_questions.turns(card, rng, 2)
        for first in asked:
            turn: questions.Turn | None = first
            while turn is not None:
                found.update(re.findall(PATTERN, turn.question + "\n" + turn.answer))
                turn = turn.then
    for text in (*SYSTEMS, "user", "assistant", "system", "Picture", "Video"):
        found.update(re.findall(PATTERN, text))
    for name in scenes.SHAPES + tuple(scenes.COLOURS):
        forms = (name, name + "s", name.capitalize())
        found.update((*forms, *(" " + form for form in forms)))
    number = re.compile(r"(\[|, |<)?\d.*")
    return sorted(w for w in found if len(w) > 1 and not number.fullmatch(w))


def times() -> list[str]:
    """Those that have tokens, by tenths of a second."""
    return [SECONDS.format(k / 10) for k in range(round(10 * clip_questions.LONGEST) + 1)]


@lru_cache(maxsize=1)
def build():
    """The `tokenizers.Tokenizer`. Ids: special tokens first, then bytes, words, coordinates."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = lambda text: "".join(part for part, _ in level.pre_tokenize_str(text))  # noqa: E731 bytes as BPE letters
    pieces = list(SPECIAL) + sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += [spelled(w) for w in dict.fromkeys(WHOLE + tuple(_words()))]
    pieces += [spelled(f"[{n}") for n in range(LIMIT + 1)] + [
        spelled(f", {n}") for n in range(LIMIT + 1)
    ]
    pieces += [spelled(time) for time in times()]
    pieces += [spelled(f"<{time} seconds>") for time in times()]
    vocabulary = {piece: k for k, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "isolated"), level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return tokenizer


def save(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": 32768,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "split_special_tokens": False,
        "additional_special_tokens": [
            s for s in SPECIAL if s not in ("<|endoftext|>", "<|im_end|>")
        ],
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(s)): {
                "content": s,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for s in SPECIAL
        },
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )

"""Model families: one row for each model generation, found by ``model_type`` in ``config.json``.

A row owns all in which its family differs from others: no other file names a ``model_type``.
Fine-tunes (olmOCR, RolmOCR, QvQ, R1-Onevision, ...) carry the ``model_type`` of what they were
tuned from and need no row; what some of them do in their own way is in ``fine_tunes``. Sampling
values are the makers' own, from the model cards.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import UnsuitableModel, UnsupportedModel
from .types import ChatForm, Family, Hearing, Sampling, Speech, Watching

# Qwen3-VL: the generation hyperparameters in README.md of QwenLM/Qwen3-VL, and for text alone the
# cards. Qwen3.5: "Best Practices" of the cards, whose values without a thought are the same.
_INSTRUCT = Sampling(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5)
_THINKING = Sampling(temperature=0.6, top_p=0.95, top_k=20)
# The older generations ship with temperatures of 0.01 and less, which is greedy in effect.
_QWEN2 = Sampling()
_THINKING_TEXT = Sampling(temperature=1.0, top_p=0.95, top_k=20, presence_penalty=1.5)
# Qwen3: docs/source/getting_started/quickstart.md of QwenLM/Qwen3, with and without a thought.
_TEXT = Sampling(temperature=0.7, top_p=0.8, top_k=20)
# Qwen2 and Qwen2.5: generation_config.json of the Instruct checkpoints.
_QWEN2_5_TEXT = Sampling(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)

_QWEN2_VL = Family(
    "qwen2_vl",
    "Qwen2-VL",
    coordinates="relative",
    patch_factor=28,
    since="4.57",
    sampling=_QWEN2,
    thinking_sampling=_THINKING,
    pixel_bounds=(4 * 28**2, 16_384 * 28**2),
    watching=Watching("steps", (128 * 28**2, 768 * 28**2)),
    chat=ChatForm(system="You are a helpful assistant."),
)
_QWEN2_5_OMNI = dataclasses.replace(
    _QWEN2_VL,
    model_type="qwen2_5_omni_thinker",
    title="Qwen2.5-Omni thinker",
    coordinates="absolute",
    transformers_class="Qwen2_5OmniThinkerForConditionalGeneration",
    image_token="<|IMAGE|>",
    video_token="<|VIDEO|>",
    audio_token="<|AUDIO|>",
    vision_start="<|vision_bos|>",
    vision_end="<|vision_eos|>",
    towers=("visual", "audio_tower"),
    kept_whole=("visual", "lm_head", "embed_tokens", "audio_bos_eos_token"),
    hearing=Hearing(
        start="<|audio_bos|>",
        end="<|audio_eos|>",
        pads=True,
        max_seconds=300,
        window=100,
        pooled=True,
        tower_window=0,
        per_second=25,
        interleaved=2.0,
        pairs_marks=True,
    ),
    watching=Watching(
        "seconds",
        (128 * 28**2, 768 * 28**2),
        per_second=25,
        unit="position_id_per_seconds",
    ),
)
_QWEN3_VL = Family(
    "qwen3_vl",
    "Qwen3-VL",
    coordinates="relative",
    patch_factor=32,
    since="4.57",
    sampling=_INSTRUCT,
    thinking_sampling=_THINKING,
    pixel_bounds=(64 * 32**2, 16_384 * 32**2),
    text_sampling=Sampling(temperature=1.0, top_k=40, presence_penalty=2.0),
    text_thinking_sampling=_THINKING_TEXT,
    yarn=(3.0, 262_144),
    watching=Watching("text", (4 * 32**2, 24_576 * 32**2), of_all=True),
    chat=ChatForm(thinking="edition"),
)
_QWEN3_OMNI = dataclasses.replace(
    _QWEN3_VL,
    model_type="qwen3_omni_moe_thinker",
    title="Qwen3-Omni thinker",
    transformers_class="Qwen3OmniMoeThinkerForConditionalGeneration",
    towers=("visual", "audio_tower"),
    hearing=Hearing(
        start="<|audio_start|>",
        end="<|audio_end|>",
        pads=False,
        max_seconds=0,
        window=50,
        pooled=False,
        tower_window=800,
        per_second=13,
        interleaved=0.0,
        pairs_marks=False,
    ),
    watching=Watching(
        "fractions",
        (128 * 32**2, 768 * 32**2),
        per_second=13,
        unit="position_id_per_seconds",
        alone_before="5",
    ),
    text_sampling=None,
    text_thinking_sampling=None,
    yarn=None,
)
_QWEN3_5 = dataclasses.replace(
    _QWEN3_VL,
    model_type="qwen3_5",
    title="Qwen3.5",
    since="5.20",
    tool_calls="xml",
    mtp_prefix="mtp.",
    text_sampling=None,
    yarn=(4.0, 262_144),
    chat=ChatForm(thinking="switch"),
)
# Text alone: qwen2 is also QwQ, QwenLong-L1 and the distillations of DeepSeek-R1, which think:
# QwQ's card says 0.6, 0.95 and a top_k of 20 to 40, generation_config.json of the distillations 0.6
# and 0.95. YaRN: the cards of Qwen2.5 and QwQ, docs/source/inference/transformers.md of
# QwenLM/Qwen3, README.md of Tongyi-Zhiwen/QwenLong-L1.
_QWEN2_TEXT = Family(
    "qwen2",
    "Qwen2.5 text",
    coordinates="relative",
    patch_factor=28,
    since="4.57",
    sampling=_QWEN2_5_TEXT,
    thinking_sampling=_THINKING,
    pixel_bounds=_QWEN2_VL.pixel_bounds,
    transformers_class="AutoModelForCausalLM",
    towers=(),
    kept_whole=("lm_head", "embed_tokens"),
    yarn=(4.0, 32_768),
    notes="Reads text only.",
)
_QWEN3_TEXT = dataclasses.replace(
    _QWEN2_TEXT,
    model_type="qwen3",
    title="Qwen3 text",
    sampling=_TEXT,
    leaves_thought_open=True,
)
_QWEN3_5_TEXT = dataclasses.replace(
    _QWEN2_TEXT,
    model_type="qwen3_5_text",
    title="Qwen3.5 text",
    since="5.20",
    sampling=_INSTRUCT,
    thinking_sampling=_THINKING_TEXT,
    tool_calls="xml",
    mtp_prefix="mtp.",
    yarn=_QWEN3_5.yarn,
)


def _rows() -> Iterator[Family]:
    yield dataclasses.replace(
        _QWEN2_VL,
        model_type="qwen",
        title="Qwen-VL",
        notes="Its replies are read; the model itself needs code for an older transformers.",
        is_original=True,
        watching=None,
    )
    yield _QWEN2_VL
    yield dataclasses.replace(
        _QWEN2_VL,
        model_type="qwen2_5_vl",
        title="Qwen2.5-VL",
        coordinates="absolute",
        yarn=(4.0, 32_768),
        watching=Watching(
            "seconds",
            (128 * 28**2, 768 * 28**2),
            per_second=2,
            unit="vision_config.tokens_per_second",
        ),
    )
    yield _QWEN2_5_OMNI
    yield dataclasses.replace(
        _QWEN2_5_OMNI,
        model_type="qwen2_5_omni",
        title="Qwen2.5-Omni (thinker)",
        config_section="thinker_config",
        not_loaded=("talker.", "token2wav."),
        speech=Speech(
            "Qwen2_5OmniForConditionalGeneration",
            voice="Chelsie",
            voices_file="spk_dict.pt",
            prompt="Qwen2.5-Omni",
        ),
        notes="The speaking half is loaded when speech is asked for.",
    )
    yield _QWEN3_VL
    yield dataclasses.replace(_QWEN3_VL, model_type="qwen3_vl_moe", title="Qwen3-VL MoE")
    yield _QWEN3_OMNI
    yield dataclasses.replace(
        _QWEN3_OMNI,
        model_type="qwen3_omni_moe",
        title="Qwen3-Omni (thinker)",
        config_section="thinker_config",
        not_loaded=("talker.", "code2wav."),
        speech=Speech("Qwen3OmniMoeForConditionalGeneration", voice="Ethan"),
        notes="The speaking half is loaded when speech is asked for.",
    )
    yield _QWEN3_5
    yield dataclasses.replace(_QWEN3_5, model_type="qwen3_5_moe", title="Qwen3.5 MoE")
    yield dataclasses.replace(
        _QWEN3_VL,
        model_type="qwen4_exp",
        title="Qwen4-Exp",
        since="5.20",
        tool_calls="xml",
        kept_whole=(*_QWEN3_VL.kept_whole, "ngram_embedding"),
        not_loaded=("mtp.",),  # a head of another form than that of Qwen3.5
        buffers=(*_QWEN3_VL.buffers, "layer_multipliers", "heads_offsets", "heads_vocab_sizes"),
        scheduler_verified=False,
        text_sampling=None,
        text_thinking_sampling=None,
        yarn=None,
        notes="Its sparse attention keeps a cache that the batch scheduler does not know.",
    )
    yield _QWEN2_TEXT
    yield _QWEN3_TEXT
    yield dataclasses.replace(_QWEN3_TEXT, model_type="qwen3_moe", title="Qwen3 MoE text")
    yield _QWEN3_5_TEXT
    yield dataclasses.replace(
        _QWEN3_5_TEXT, model_type="qwen3_5_moe_text", title="Qwen3.5 MoE text"
    )


FAMILIES: Mapping[str, Family] = {row.model_type: row for row in _rows()}

GGUF: Mapping[tuple[str, str], str] = {
    ("qwen2vl", "qwen2vl_merger"): "qwen2_vl",
    ("qwen2vl", "qwen2.5vl_merger"): "qwen2_5_vl",
    ("qwen3vl", "qwen3vl_merger"): "qwen3_vl",
    ("qwen3vlmoe", "qwen3vl_merger"): "qwen3_vl_moe",
    ("qwen35", "qwen3vl_merger"): "qwen3_5",
    ("qwen35moe", "qwen3vl_merger"): "qwen3_5_moe",
}
"""``model_type`` by what llama.cpp calls the language model and the projector of its vision tower
(``src/llama-arch.cpp``, ``tools/mtmd/clip-impl.h``)."""

DEFAULT = dataclasses.replace(
    _QWEN3_VL,
    model_type="default",
    title="unknown model",
    tool_calls="xml",
    not_loaded=("mtp.", "talker.", "token2wav.", "code2wav."),
    scheduler_verified=False,
    notes="Treated like the newest known family: boxes are read as 0-1000 of the picture.",
)
"""For a Qwen ``model_type`` without a row that transformers can load as image-text-to-text."""


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a parsed ``config.json``.

    A Qwen ``model_type`` without a row gets the row of a family that its config nests, or else the
    default row, under its own name, if its config has a vision tower; ``is_default`` tells. Raises
    ``UnsupportedModel`` if there is no ``model_type``, neither a row nor a vision tower, or the
    model is another maker's.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise UnsupportedModel(
            "config.json names no model_type, so this is no transformers checkpoint. "
            "Choose the folder that the model's own config.json lies in."
        )
    if model_type in FAMILIES:
        return _without_tower(config) or FAMILIES[model_type]
    if model_type.startswith("qwen"):
        title = f"{model_type} (unknown model)"
        if nested := _nested_family(config):
            return dataclasses.replace(nested, model_type=model_type, title=title)
        if "spatial_merge_size" in _section(config, "vision_config"):
            return dataclasses.replace(DEFAULT, model_type=model_type, title=title)
    raise UnsupportedModel(_refusal(model_type, config))


_EXPERTS = r"(?=.*\ba\d+(?:\.\d+)?b\b)"
# First match wins. Names as people, hubs and servers write them: Qwen/Qwen2.5-VL-7B-Instruct,
# qwen2.5vl:7b, Qwen3_VL_8B-Q4_K_M.gguf, qwen3.5:9b.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"qwen-?2[.-]5-?omni", "qwen2_5_omni"),
    (r"qwen-?3-?omni", "qwen3_omni_moe"),
    (rf"{_EXPERTS}.*qwen-?3-?vl", "qwen3_vl_moe"),
    (r"qwen-?3-?vl", "qwen3_vl"),
    (
        r"qwen-?2[.-]5-?vl|rolmocr|nanonets-ocr|olmocr-2|olmocr-7b-0[78]25|r1-onevision",
        "qwen2_5_vl",
    ),
    (r"qwen-?2-?vl|qvq|mineru-?2\.5|olmocr-7b-0225", "qwen2_vl"),
    (r"qwen-?4-exp", "qwen4_exp"),
    (rf"{_EXPERTS}.*qwen-?3\.[5-9]", "qwen3_5_moe"),
    (r"qwen-?3\.[5-9]|chandra-ocr-2", "qwen3_5"),
    # Text alone is told by a name that begins so: others take its name into theirs.
    (rf"{_EXPERTS}(?:.*/)?qwen-?3(?!\.|-next)", "qwen3_moe"),
    (r"(?:.*/)?qwen-?3(?!\.|-next)(?=[-:]|$)", "qwen3"),
    (r"(?:.*/)?(?:qwen-?2(?:\.5)?(?=[-:]|$)|qwq)", "qwen2"),
)
_FROM_THE_START = ("qwen3", "qwen3_moe", "qwen2")


def family_named(name: str) -> Family | None:
    """The family of a model of which only the ``name`` is known, as of one behind a server; None
    for a name that does not tell."""
    plain = name.lower().replace("_", "-")
    for pattern, model_type in _NAMES:
        found = re.match if model_type in _FROM_THE_START else re.search
        before = "" if model_type in _FROM_THE_START else r"(?<![a-z0-9])"
        if found(rf"{before}(?:{pattern})", plain):
            return FAMILIES[model_type]
    return None


def model_config(config: Mapping[str, Any], family: Family) -> Mapping[str, Any]:
    """The model's own section of a ``config.json``: in Omni models the thinker's, else all of
    it."""
    return _section(config, family.config_section) or config


def weights_beside(family: Family) -> tuple[str, ...]:
    """Name prefixes of the weights that a checkpoint may hold beside the model itself."""
    return (*family.not_loaded, family.mtp_prefix) if family.mtp_prefix else family.not_loaded


def free_text_sampling(family: Family, thinks: bool, text_only: bool) -> Sampling:
    """The makers' values for free text of a model of ``family``. ``thinks``: it begins with a
    thought; ``text_only``: nothing is shown to it."""
    if thinks:
        return (text_only and family.text_thinking_sampling) or family.thinking_sampling
    return (text_only and family.text_sampling) or family.sampling


_TEXT_ONLY = tuple(name for name, row in FAMILIES.items() if not row.sees)


def check_sees(family: Family, name: str) -> None:
    """Raises ``UnsuitableModel`` where the model ``name`` of ``family`` reads text only."""
    if not family.sees:
        raise UnsuitableModel(
            f"{name} ({family.title}) reads text only: it has no vision tower, so it cannot be "
            "shown pictures, videos or sounds. It can write prompts from an idea (Qwen-VL Prompt) "
            "and talk (Qwen-VL Chat) without them. Choose a vision-language model here, such as "
            "Qwen3-VL-4B-Instruct."
        )


def is_default(family: Family) -> bool:
    """Whether ``family`` has no row of its own; what is known of it is then a guess."""
    return family.model_type not in FAMILIES


def _without_tower(config: Mapping[str, Any]) -> Family | None:
    """The family of the language model of a vision-language one whose tower was taken out."""
    row = FAMILIES.get(str(_section(config, "text_config").get("model_type")))
    if row is None or row.sees or "vision_config" in config:
        return None
    return dataclasses.replace(row, config_section="text_config")


def _nested_family(config: Mapping[str, Any]) -> Family | None:
    """The family of the model that a bigger one's config nests, with the place it lies in."""
    for section in config:
        own = _section(config, section)
        row = FAMILIES.get(str(own.get("model_type")))
        if row and _section(own, "vision_config"):
            return dataclasses.replace(row, config_section=section)
    return None


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _refusal(model_type: str, config: Mapping[str, Any]) -> str:
    """Why a model is none that this engine runs."""
    advice = "Choose a vision-language checkpoint (a name with VL, or Qwen3.5 and newer)."
    if _section(config, "vlm_config"):
        return (
            f"model_type {model_type!r} turns pages into embeddings for a search and writes no "
            f"text. {advice}"
        )
    if not isinstance(config.get("vision_config"), Mapping):
        takes = "sound and text" if _section(config, "audio_config") else "text only"
        return (
            f"model_type {model_type!r} has no vision tower in its config.json: it takes {takes}. "
            f"{advice} Of models that read text only these are known: {', '.join(_TEXT_ONLY)}."
        )
    if model_type.startswith("qwen"):
        return f"model_type {model_type!r} takes pictures in a way that is not known here. {advice}"
    return (
        f"model_type {model_type!r} is not a Qwen vision-language model: it is another maker's, "
        "and takes pictures or writes boxes in its own way. Choose a Qwen checkpoint or a "
        "fine-tune of one."
    )

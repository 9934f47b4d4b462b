"""Checks of the page of models: which tests looked at which ability, on which families.

``tests/engine/test_models_page.py`` holds this table to the tests that there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EQUAL, RUNS, ROUND_TRIP, RIGHT = "=", "r", "c", "n"
MARKS = {
    EQUAL: "on a tiny random checkpoint of this family: the tokens, scores or samples of "
    "transformers' own model or the makers' arithmetic",
    RUNS: "a tiny random checkpoint of this family runs it",
    ROUND_TRIP: "numbers in this family's coordinate space come back to the picture's pixels",
    RIGHT: "right answers by the bundled model `nano`, on drawn scenes",
}

SCHEDULED = (
    "qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen3_vl", "qwen3_vl_moe", "qwen3_omni_moe",
    "qwen3_5", "qwen3_5_moe",
)  # fmt: skip
THINKERS = ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")
TEXT = ("qwen2", "qwen3", "qwen3_moe", "qwen3_5_text", "qwen3_5_moe_text")
SEEING = (*SCHEDULED, *THINKERS, "qwen4_exp")
PICTURES = ("describe", "ocr", "text")
PLACES = ("boxes", "ocr")


@dataclass(frozen=True)
class Check:
    """``test``: file below ``tests/engine`` and function; ``families`` that it ran on, by
    ``model_type``; ``abilities`` that it looked at. ``by_id``: the families stand in the names of
    the test's cases, else in its file."""

    mark: str
    test: str
    families: Sequence[str]
    abilities: Sequence[str]
    by_id: bool = True


CHECKS = (
    Check(EQUAL, "inference/test_truth.py::test_in_any_order_and_batch", SCHEDULED, PICTURES),
    Check(
        EQUAL,
        "inference/test_videos.py::test_inputs_are_those_of_the_official_processor",
        SCHEDULED,
        ("video",),
    ),
    Check(
        RUNS,
        "inference/test_videos.py::test_answers_do_not_depend_on_the_road",
        SCHEDULED,
        ("video",),
    ),
    Check(
        EQUAL,
        "test_families.py::test_a_thinker_alone_answers_as_inside_its_bigger_model",
        THINKERS,
        ("describe", "ocr"),
    ),
    Check(
        EQUAL,
        "test_families.py::test_a_model_without_the_scheduler_is_loaded_as_the_library_loads_it",
        ("qwen4_exp",),
        ("describe", "ocr"),
    ),
    Check(
        EQUAL,
        "inference/test_text_only.py::test_tokens_are_those_of_the_library",
        TEXT,
        ("text",),
    ),
    Check(
        ROUND_TRIP,
        "test_coordinates.py::test_a_box_round_trips_within_one_unit",
        SEEING,
        PLACES,
        by_id=False,
    ),
    Check(
        ROUND_TRIP,
        "test_coordinates.py::test_a_point_round_trips_within_one_unit",
        SEEING,
        ("points",),
        by_id=False,
    ),
    Check(
        RIGHT,
        "test_nano.py::test_the_checkpoint_answers",
        ("qwen3_vl",),
        ("describe", "boxes", "points", "ocr"),
        by_id=False,
    ),
    Check(
        RIGHT,
        "test_nano.py::test_the_checkpoint_answers_about_clips_cards_counts_and_in_turns",
        ("qwen3_vl",),
        ("video", "turns", "forms"),
        by_id=False,
    ),
    Check(
        EQUAL,
        "inference/test_conversation.py::test_a_next_turn_costs_its_own_tokens",
        SCHEDULED,
        ("turns",),
    ),
    Check(
        RUNS,
        "inference/test_text_only.py::test_a_next_turn_goes_on_behind_what_was_read",
        ("qwen3", "qwen3_5_text"),
        ("turns",),
    ),
    Check(
        RUNS,
        "inference/test_constraints.py::test_json_is_valid_by_its_schema",
        ("qwen2_5_vl", "qwen3_vl", "qwen3_5"),
        ("forms",),
    ),
    Check(
        EQUAL,
        "inference/test_constraints.py::test_a_reply_that_fits_anyway_stays_the_same",
        SCHEDULED,
        ("forms",),
    ),
    Check(
        EQUAL,
        "inference/test_scoring.py::test_scores_are_the_probabilities_that_an_answer_begins_so",
        ("qwen2_vl", "qwen2_5_omni", "qwen3_vl", "qwen3_5"),
        ("score",),
    ),
    Check(
        EQUAL,
        "inference/test_scoring.py::test_a_model_that_runs_as_it_comes_gives_the_same",
        ("qwen3_vl", "qwen4_exp"),
        ("score",),
    ),
    Check(
        EQUAL,
        "test_retrieval.py::test_an_embedding_model_gives_the_cosine_of_last_hidden_states",
        ("qwen2_vl", "qwen3_vl"),
        ("embed",),
        by_id=False,
    ),
    Check(
        RUNS,
        "inference/test_conversation.py::test_a_thought_drops_out_and_the_users_turn_stays_cached",
        ("qwen3_vl", "qwen3_5"),
        ("thinking",),
    ),
    Check(
        RUNS,
        "inference/test_text_only.py::test_a_thought_that_the_template_leaves_to_the_model_is_begun",
        ("qwen3",),
        ("thinking",),
        by_id=False,
    ),
    Check(
        EQUAL,
        "inference/test_mtp.py::test_mtp_drafts_never_change_an_answer",
        ("qwen3_5", "qwen3_5_moe"),
        ("mtp",),
    ),
    Check(
        EQUAL,
        "inference/test_text_only.py::test_mtp_drafts_change_nothing",
        ("qwen3_5_text",),
        ("mtp",),
        by_id=False,
    ),
    Check(
        EQUAL,
        "models/test_adapters.py::test_every_kind_of_lora",
        ("qwen2_5_vl", "qwen3_vl", "qwen3_5", "qwen3"),
        ("lora",),
    ),
    Check(
        EQUAL,
        "test_yarn.py::test_logits_are_those_of_a_config_written_by_hand",
        ("qwen2", "qwen3", "qwen2_5_vl", "qwen3_vl", "qwen3_5"),
        ("yarn",),
    ),
    Check(
        EQUAL,
        "inference/test_speech.py::test_an_answer_is_spoken_as_the_official_model_speaks_it",
        ("qwen2_5_omni", "qwen3_omni_moe"),
        ("speech",),
    ),
    Check(
        EQUAL,
        "inference/test_sounds.py::test_prompts_and_answers_are_the_official_ones",
        ("qwen2_5_omni", "qwen3_omni_moe"),
        ("sound",),
    ),
    Check(
        EQUAL,
        "inference/test_sounds.py::test_a_video_with_its_sound_is_that_of_the_official_processor",
        ("qwen2_5_omni", "qwen3_omni_moe"),
        ("watched",),
    ),
)

"""The bundled model: a lossless tokenizer, a checkpoint that answers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from qwen_vl_suite.nano import (
    batches,
    captions,
    card_questions,
    clip_questions,
    config,
    conversations,
    engine,
    evaluate,
    followed,
    forward,
    kinds,
    questions,
    samples,
    scenes,
    scored,
    tokenizer,
    watched,
)
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend
from qwen_vl_suite.qwenvl.types import Request

CHECKPOINT = Path(evaluate.__file__).parent / "checkpoint"


@pytest.mark.parametrize(
    "text",
    [
        "Hello wörld, 12 [7412, 1001] zebra\n\n日本 🙂  x",
        '```json\n[\n\t{"bbox_2d": [0, 17, 1000, 5], "label": "red star"}\n]\n```',
        "THE QUICK brown\tfox; don't\r\n  stop",
        "<ref>a</ref> 3.14 [1, 22, 333]",
        "",
    ],
)
def test_the_tokenizer_is_lossless(text):
    tokens = tokenizer.build()
    assert tokens.decode(tokens.encode(text).ids) == text


def test_the_shipped_tokenizer_matches_the_code():
    import tokenizers

    shipped = tokenizers.Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    assert shipped.get_vocab() == tokenizer.build().get_vocab()
    assert (CHECKPOINT / "chat_template.jinja").read_text("utf-8") == tokenizer.CHAT_TEMPLATE


def test_coordinates_are_one_token_and_pieces_tokenize_as_the_whole():
    tokens = tokenizer.build()
    assert len(tokens.encode("[74, 361, 324, 808").ids) == 4
    assert len(tokens.encode("<1.2 seconds>").ids) == 1
    asked: list[questions.Turn | None] = []
    for seed in range(40):
        rng = random.Random(seed)
        asked += conversations.turns(scenes.draw(f"pieces {seed}"), rng, 3)
        asked += clip_questions.turns(scenes.draw_clip(f"pieces {seed}"), rng, 2)
        asked += card_questions.turns(scenes.draw_card(f"pieces {seed}"), rng, 2)
    for turn in asked:
        while turn is not None:
            apart = [i for p in turn.pieces for i in tokens.encode(p.text).ids]
            assert tokens.encode(turn.answer).ids == apart
            turn = turn.then


def test_the_resize_equals_the_processors():
    from transformers import AutoImageProcessor

    official = AutoImageProcessor.from_pretrained(CHECKPOINT)
    for seed in range(6):
        picture = scenes.draw(f"resize {seed}").picture
        theirs = official(images=[picture], return_tensors="pt")
        ours = forward.patches(samples.resize(picture)[None])[0]
        both = ours.view(-1, 3, 1, 256).expand(-1, 3, 2, 256).reshape(-1, 1536)
        assert theirs["image_grid_thw"][0, 1:].prod() == len(ours)
        assert torch.allclose(theirs["pixel_values"], both, atol=1e-5)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory):
    """An untrained model, and the folder of its checkpoint."""
    model, folder = config.begin(seed=1), tmp_path_factory.mktemp("untrained")
    config.save(model, folder)
    return model, folder


@pytest.mark.parametrize("seed", [0, 4])
def test_training_shows_clips_as_the_processor_does(untrained, seed):
    from transformers import AutoProcessor
    from transformers.video_utils import VideoMetadata

    processor = AutoProcessor.from_pretrained(untrained[1])
    clip = scenes.draw_clip(f"processor {seed}")
    times = samples.sampled_times(clip.duration, 8)
    sample, packer = samples.of_clip(clip, times), batches.Packer()
    turn = clip_questions.listed(clip, range(len(clip.events)), "When?")
    frames = torch.from_numpy(clip.frames(times)).movedim(-1, 1)
    shown = VideoMetadata(
        total_num_frames=round(8 * clip.duration),
        fps=8,
        frames_indices=[round(8 * time) for time in times],
    )
    content = [{"type": "video"}, {"type": "text", "text": "When?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    theirs = processor(
        text=[text], videos=[frames], do_sample_frames=False, video_metadata=[shown],
        return_tensors="pt",
    )  # fmt: skip
    ids = theirs["input_ids"][0].tolist()
    wrapped = processor.tokenizer.decode(ids).count("<|vision_start|>") > len(sample.stamps)
    ours = packer.collate([sample], [[turn]], wrapped=wrapped)
    assert ours.ids[0].tolist()[: len(ids)] == ids
    pairs = [forward.patches(ours.pixels[0, k::2]) for k in (0, 1)]
    both = torch.stack(pairs, 2).view(-1, 2, 3, 256).transpose(1, 2).reshape(-1, 1536)
    assert torch.allclose(theirs["pixel_values_videos"], both, atol=1e-5)
    answer = processor.tokenizer.decode(ours.ids[0, len(ids) :], skip_special_tokens=True)
    assert answer == turn.answer


def hidden_states(model, batch: batches.Batch) -> torch.Tensor:
    """Those of the training forward pass, as logits."""
    inner = model.model
    first, deep = forward.vision_tower(inner.visual, batch.pixels)
    embeds = inner.language_model.embed_tokens(batch.ids).index_copy(1, batch.places, first)
    mask = forward.attention_mask(batch.turn)
    hidden, _, _ = forward.language_model(
        inner.language_model, embeds, batch.positions, mask, deep, batch.places
    )
    return model.lm_head(hidden)


@pytest.mark.parametrize("of", ["pictures", "clips"])
def test_the_training_forward_pass_equals_transformers(untrained, of):
    model = untrained[0]
    make = batches.make_clips if of == "clips" else batches.make
    batch = make(batches.Packer(), "test", 2, 3)
    frames = batch.pixels[0].shape[0]
    rows, columns = (side // samples.CELL for side in batch.pixels.shape[3:])
    grid = torch.tensor([[-(-frames // 2), 2 * rows, 2 * columns]])
    even = batch.pixels[0].expand(2, -1, -1, -1) if frames == 1 else batch.pixels[0]
    pairs = [forward.patches(even[k::2]) for k in (0, 1)]
    pixels = torch.stack(pairs, 2).view(-1, 2, 3, 256).transpose(1, 2).reshape(-1, 1536)
    name = "_videos" if of == "clips" else ""
    shown = {"pixel_values" + name: pixels, ("video" if name else "image") + "_grid_thw": grid}
    with torch.no_grad():
        packed = hidden_states(model, batch)
        for number in (1, 2, 3):
            keep = (batch.turn[0] == 0) | (batch.turn[0] == number)
            ids = batch.ids[0][keep][None]
            kinds = (ids == model.config.image_token_id).int()
            kinds += 2 * (ids == model.config.video_token_id).int()
            alone = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **shown,
                **({"mm_token_type_ids": kinds} if evaluate._takes_token_types() else {}),
            ).logits
            assert torch.allclose(alone[0], packed[0][keep], atol=1e-4)


def test_the_checkpoint_is_small_and_complete():
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 12_000_000
    assert {p.name for p in CHECKPOINT.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "generation_config.json",
    }


def test_the_processor_loads_and_applies_the_chat_template():
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    content = [
        {"type": "image", "image": scenes.draw("processor").picture},
        {"type": "text", "text": questions.READ},
    ]
    out = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    text = processor.tokenizer.decode(out["input_ids"][0]).replace("<|image_pad|>", "")
    assert text == (
        "<|im_start|>user\n<|vision_start|><|vision_end|>" + questions.READ + "<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_checkpoint_answers():
    """Sixteen fresh scenes; the floors are below the figures for 500 (figures.json)."""
    figures = evaluate.evaluate(evaluate.Answerer(CHECKPOINT), 16, "test floors")
    floors = {
        "ground_iou": 0.8,
        "ground_recall": 0.9,
        "ocr_exact": 0.85,
        "describe_shapes_and_colours": 0.9,
        "absent_none_found": 0.9,
        "point_inside": 0.85,
        "spot_iou": 0.8,
    }
    low = {name: figures[name] for name, floor in floors.items() if figures[name] < floor}
    assert not low, f"below their floors: {low}"


def test_the_checkpoint_answers_about_clips_cards_counts_and_in_turns():
    """A few fresh ones of each, asked through the engine."""
    figures = watched.figures(CHECKPOINT, 4, "test floors")
    assert figures["clip_events"]
    figures |= kinds.figures(CHECKPOINT, 5, "test floors")
    figures |= followed.figures(CHECKPOINT, 10, "test floors")
    low = {name: figures[name] for name in ABLE if (figures[name] or 0) < 0.8}
    assert not low, f"too few are right: {low}"


ABLE = (
    "clip_event_times",
    "clip_event_labels",
    "clip_event_precision",
    "clip_described",
    "look_alike_recall",
    "look_alike_none_found",
    "count_exact",
    "card_values_exact",
    "card_missing_null",
    "second_answer_words",
    "second_answer_boxes",
)


def test_events_are_compared_where_they_overlap():
    true = [[(1.0, 2.0, "red star enters"), (3.0, 4.0, "red star leaves")], []]
    assert watched.compared(true, true) == {
        "clip_event_times": 1.0,
        "clip_event_labels": 1.0,
        "clip_event_precision": 1.0,
        "clip_events_as_many": 1.0,
        "clips": 2,
        "clip_events": 2,
    }
    late = [[(3.2, 4.3, "red star leaves"), (8.0, 9.0, "red star enters")], true[0][:1]]
    found = watched.compared(true, late)
    assert (found["clip_event_times"], found["clip_event_labels"]) == (0.0, 0.5)
    assert (found["clip_event_precision"], found["clip_events_as_many"]) == (0.3333, 0.5)


def test_the_area_under_the_curve_is_how_often_a_right_one_is_ahead():
    assert scored.auroc([(0.9, True), (0.5, True), (0.5, False), (0.1, False)]) == 3.5 / 4
    assert scored.auroc([(0.9, True), (0.1, False)]) == 1
    assert scored.auroc([(0.9, True), (0.1, True)]) is None


def answered(monkeypatch: pytest.MonkeyPatch, reply: Callable[[Request], Reply | str]) -> None:
    """Lets `reply` answer in place of the checkpoint."""
    backend = ScriptedBackend(reply)
    monkeypatch.setattr(engine, "opened", lambda folder: nullcontext(backend))


def found(scene: scenes.Scene, shapes: Sequence[scenes.Shape], labels: Sequence[str]) -> str:
    return json.dumps(
        [
            {"bbox_2d": questions.relative(scene, shape.box), "label": label}
            for shape, label in zip(shapes, labels, strict=True)
        ]
    )


def test_figures_of_new_kinds_are_whole_for_true_answers(monkeypatch):
    groups = [scenes.draw_look_alikes(f"evaluation {k}") for k in range(8)]
    counts = [scenes.draw_count(f"evaluation {k}") for k in range(8)]
    cards = [scenes.draw_card(f"evaluation {k}") for k in range(8)]
    replies = [
        *(found(g.scene, g.shapes, [g.name] * len(g.shapes)) for g in groups),
        *(f"There are {len(group.shapes)}." for group in counts),
        *(json.dumps(card.values) for card in cards),
    ]
    rest = iter(replies)
    answered(monkeypatch, lambda request: next(rest))
    assert set(kinds.figures(CHECKPOINT, 8).values()) == {1.0}
    answered(monkeypatch, lambda request: "7" if "How many" in request.prompt else "[]")
    wrong = kinds.figures(CHECKPOINT, 8)
    assert wrong["count_exact"] == wrong["look_alike_recall"] == wrong["card_values_exact"] == 0


def test_boxes_are_right_where_a_thing_asked_for_lies_under_its_name(monkeypatch):
    drawn = {}
    for k in range(6):
        scene = scenes.draw(f"test scores {k}")
        drawn[engine.pixels(scene.picture).numpy().tobytes()] = scene

    def reply(request: Request) -> Reply | str:
        scene = drawn[request.images[0].numpy().tobytes()]
        names = request.prompt.split('"')[1].split(", ")
        asked = [(n, s) for n in names for s in scene.shapes if questions.fits(s, n)]
        if asked:
            return Reply(found(scene, [s for _, s in asked], [n for n, _ in asked]), logprobs=-0.1)
        return Reply(found(scene, scene.shapes[:1], names[:1]), logprobs=-1.0)

    answered(monkeypatch, reply)
    figures = scored.figures(CHECKPOINT, 6, "test scores")
    assert figures["score_auroc"] == 1 and figures["score_unscored_boxes"] == 0
    assert figures["score_right_boxes"] and figures["score_wrong_boxes"]


def test_a_wrong_caption_names_what_is_not_there():
    for k in range(40):
        scene = scenes.draw(f"test captions {k}")
        if not scene.shapes:
            continue
        one, whole = captions.captions(scene, random.Random(k))
        there = {f"{shape.colour} {shape.kind}" for shape in scene.shapes}
        assert one[1].split(" ", 1)[1] in there and one[2].split(" ", 1)[1] not in there
        assert one[1] in whole[1] and one[2] in whole[2]
        assert whole[1].count(",") == whole[2].count(",") == len(scene.shapes) - 1


def test_figures_of_captions_are_whole_where_the_right_ones_fit_better(monkeypatch):
    right = set()
    for k in range(6):
        scene = scenes.draw(f"test captions {k}")
        if scene.shapes:
            rng = random.Random(f"test captions words {k}")
            right |= {made[1] for made in captions.captions(scene, rng)}

    def rate(request, texts):
        fits = request.prompt.split('"')[1] in right
        return [0.9 if fits else 0.1, 0, 0.1 if fits else 0.9, 0]

    backend = ScriptedBackend(scores=rate)
    monkeypatch.setattr(engine, "opened", lambda folder: nullcontext(backend))
    figures = captions.figures(CHECKPOINT, 6, "test captions")
    assert figures.pop("captions") >= 2
    assert set(figures.values()) == {1.0}

"""Measure a checkpoint on fresh scenes: `python -m nano.evaluate --json`.

The scenes' seeds share no prefix with those of training. First questions about
scenes are asked through transformers: pictures go through the checkpoint's own
image processor, answers are greedy, and each question is asked alone. Scores,
look-alikes, counting, cards, clips and second questions are measured through
the engine.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from pathlib import Path

import torch

from . import captions, followed, kinds, matching, questions, scenes, scored, watched

CHECKPOINT = Path(__file__).parent / "checkpoint"
SEED = "evaluation"
CLIPS = 200
GROUND = questions.LOCATE + " Report bbox coordinates in JSON format."
POINT = questions.LOCATE + " Report point coordinates in JSON format."
DESCRIBE = ("Describe this image.", "Describe this image in detail.")


class Answerer:
    """A checkpoint, loaded by the Auto classes in float32 on the CPU."""

    def __init__(self, folder: Path = CHECKPOINT):
        from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.images = AutoImageProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def __call__(self, pictures: list, asked: list[str]) -> list[str]:
        """One greedy answer per (picture, question)."""
        image = self.images(images=pictures, return_tensors="pt")
        pad = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        texts = []
        for question, grid in zip(asked, image["image_grid_thw"], strict=True):
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            texts.append(text.replace("<|image_pad|>", "<|image_pad|>" * (int(grid.prod()) // 4)))
        tokens = self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        kind = (
            {"mm_token_type_ids": (tokens["input_ids"] == pad).int()}
            if _takes_token_types()
            else {}
        )
        out = self.model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            **kind,
            pixel_values=image["pixel_values"],
            image_grid_thw=image["image_grid_thw"],
            do_sample=False,
            max_new_tokens=120,
        )
        return self.tokenizer.batch_decode(
            out[:, tokens["input_ids"].shape[1] :], skip_special_tokens=True
        )

    def many(self, pairs: list[tuple], size: int = 50) -> list[str]:
        """Answers to any number of (picture, question), in order, batched by question."""
        order = sorted(range(len(pairs)), key=lambda k: pairs[k][1])
        answers: dict[int, str] = {}
        for at in range(0, len(order), size):
            some = order[at : at + size]
            answers.update(
                zip(
                    some,
                    self([pairs[k][0] for k in some], [pairs[k][1] for k in some]),
                    strict=True,
                )
            )
        return [answers[k] for k in range(len(pairs))]


def _takes_token_types() -> bool:
    """Whether the model takes `mm_token_type_ids`: transformers 5 requires them, 4 refuses them."""
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5


def entries(answer: str) -> list[dict]:
    """The list inside a fenced JSON answer; [] for "None found." and for anything unreadable."""
    try:
        value = json.loads(re.sub(r"^```json\n|\n```$", "", answer))
        return [e for e in value if isinstance(e, dict)]
    except (ValueError, TypeError):
        return []


def _described(answer: str) -> list[str]:
    """The "colour shape" names of a description, in order."""
    names = rf"\b({'|'.join(scenes.COLOURS)}) ({'|'.join(scenes.SHAPES)})\b"
    return [
        " ".join(m)
        for m in re.findall(names, answer.split("The text reads")[0].split("the text reads")[0])
    ]


def _quoted(answer: str) -> list[str]:
    return re.findall(r'"([^"]*)"', answer)


def mean(values) -> float | None:
    values = [float(v) for v in values]
    return round(sum(values) / len(values), 4) if values else None


def evaluate(answerer: Answerer, number: int = 500, seed: str = SEED) -> dict:
    """All figures on `number` scenes of this seed, 0..1; README.md says what each means."""
    drawn = [scenes.draw(f"{seed} {k}") for k in range(number)]
    jobs: list[tuple] = []  # (figure, scene, question, names)
    for k, scene in enumerate(drawn):
        rng = random.Random(f"{seed} questions {k}")
        jobs.append(("describe", scene, DESCRIBE[k % 2], ()))
        if scene.lines:
            jobs += [("read", scene, questions.READ, ()), ("spot", scene, questions.SPOT, ())]
        if scene.shapes:
            one, some = (
                rng.choice(scene.shapes).name,
                questions.categories(scene, rng, absent=False),
            )
            jobs += [
                ("ground", scene, GROUND.format(one), (one,)),
                ("ground", scene, GROUND.format(", ".join(some)), some),
                ("point", scene, POINT.format(", ".join(some)), some),
            ]
        missing = questions.categories(scene, rng, absent=True)[:1]
        jobs.append(("absent", scene, GROUND.format(missing[0]), missing))
    answers = answerer.many([(job[1].picture, job[2]) for job in jobs])
    scores: dict[str, list] = {}
    add = lambda name, value: scores.setdefault(name, []).append(value)  # noqa: E731
    for (kind, scene, _, names), answer in zip(jobs, answers, strict=True):
        truth = [
            (n, questions.relative(scene, s.box))
            for n in names
            for s in scene.shapes
            if questions.fits(s, n)
        ]
        if kind == "describe":
            shapes = _described(answer) == [s.name for s in scene.shapes]
            words = _quoted(answer) == [line.text for line in scene.lines]
            if scene.shapes:
                add("describe_shapes_and_colours", shapes)
            if scene.lines:
                add("describe_text", words)
            add("describe_all", shapes and words)
        elif kind == "read":
            add("ocr_exact", answer == "\n".join(line.text for line in scene.lines))
            got = answer.split("\n") + [""] * len(scene.lines)
            for k, line in enumerate(scene.lines):
                add("ocr_lines", line.text == got[k])
        elif kind == "spot":
            boxes = [
                (e.get("text_content"), e.get("bbox_2d"))
                for e in entries(answer)
                if is_box(e.get("bbox_2d"))
            ]
            true = [(line.text, questions.relative(scene, line.box)) for line in scene.lines]
            add("spot_exact_text", [b[0] for b in boxes] == [t[0] for t in true])
            scores.setdefault("spot_iou", []).extend(
                matching.matched([("", t[1]) for t in true], [("", b[1]) for b in boxes])
            )
        elif kind == "ground":
            boxes = [
                (e.get("label"), e["bbox_2d"]) for e in entries(answer) if is_box(e.get("bbox_2d"))
            ]
            best = matching.matched(truth, boxes)
            scores.setdefault("ground_iou", []).extend(best)
            scores.setdefault("ground_recall", []).extend(v > 0.5 for v in best)
            scores.setdefault("ground_precision", []).extend(
                v > 0.5 for v in matching.matched(boxes, truth)
            )
            add("ground_count_right", len(boxes) == len(truth))
        elif kind == "point":
            spots = [e["point_2d"] for e in entries(answer) if is_box(e.get("point_2d"), 2)]
            inside = [
                any(t[1][0] <= p[0] <= t[1][2] and t[1][1] <= p[1] <= t[1][3] for p in spots)
                for t in truth
            ]
            scores.setdefault("point_inside", []).extend(inside)
            add("point_count_right", len(spots) == len(truth))
        else:
            add("absent_none_found", answer == questions.NOTHING)
    return {
        "scenes": number,
        "seed": seed,
        **{k: mean(v) for k, v in sorted(scores.items())},
        "answers": len(answers),
    }


def is_box(value, length: int = 4) -> bool:
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(v, (int, float)) for v in value)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    began = time.time()
    figures = evaluate(Answerer(args.checkpoint), args.scenes)
    figures |= scored.figures(args.checkpoint, args.scenes)
    figures |= captions.figures(args.checkpoint, args.scenes)
    figures |= kinds.figures(args.checkpoint, args.scenes)
    figures |= watched.figures(args.checkpoint, min(args.scenes, CLIPS))
    figures |= followed.figures(args.checkpoint, args.scenes)
    print(f"{time.time() - began:.0f} s", file=sys.stderr)
    if args.json:
        command = f"python -m nano.evaluate --json --scenes {args.scenes}"
        print(json.dumps({"command": command, **figures}, indent=2))
    else:
        print("\n".join(f"{k:30} {v}" for k, v in figures.items()))


if __name__ == "__main__":
    main()

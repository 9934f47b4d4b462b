"""Report of an examination: what was found, what is wrong with it, and both as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .coordinate_fit import MIN_BOXES, SPACES, CoordinateFit
from .fast_paths import FastPath
from .speed import Speed
from .truth import LEAST_RECALL, TaskTruth, Truth

SCHEMA = 1
"""Of the JSON report; a member that changes its meaning raises it, a new one does not."""

_TITLES = {
    "describe": "Describing",
    "read": "Reading",
    "boxes": "Finding boxes",
    "points": "Finding points",
    "repeat": "Repeating codes",
    "look up": "Looking up numbers",
    "add": "Adding",
}


@dataclass
class Report:
    """``error``: why the examination ended early, with the ``trace`` of an unexpected error;
    ``time_is_up``: because its time limit had passed. What was not examined is None or empty."""

    environment: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    fast_paths: Sequence[FastPath] = ()
    speed: Speed | None = None
    truth: Truth | None = None
    error: str = ""
    trace: Sequence[str] = ()
    seconds: float = 0.0
    time_is_up: bool = False

    def problems(self) -> list[str]:
        """What is wrong, a sentence each; none where all is as it should be."""
        found = [
            f"{path.name} disagreed with the plain way: {path.reason}"
            for path in self.fast_paths
            if path.state == "failed"
        ]
        if self.truth is not None:
            if self.truth.coordinates is not None and self.truth.coordinates.differs:
                found.append(self._coordinate_warning(self.truth.coordinates))
            found += _low_recalls(self.truth)
        return found

    def _coordinate_warning(self, fit: CoordinateFit) -> str:
        assert fit.best is not None  # else it does not differ
        family = self.model["family"] if self.model else "its family"
        consequence = (
            "fractions are recognised by their decimal points, but whole numbers are not"
            if fit.best == "0-1"
            else "this checkpoint's boxes are misplaced"
        )
        return (
            f"Its boxes fit {SPACES[fit.best]} best (mean IoU {fit.iou[fit.best]:.2f}), but those "
            f"of {family} are read as {SPACES[fit.expected]} ({fit.iou[fit.expected]:.2f}): "
            f"{consequence}."
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "problems": self.problems(),
            "error": self.error or None,
            "trace": list(self.trace),
            "seconds": round(self.seconds, 1),
            "time_is_up": self.time_is_up,
            "environment": self.environment,
            "model": self.model,
            "fast_paths": [dataclasses.asdict(path) for path in self.fast_paths],
            "speed": _speed(self.speed) if self.speed else None,
            "truth": _truth(self.truth) if self.truth else None,
        }


def _low_recalls(truth: Truth) -> Iterator[str]:
    for kind, task in truth.tasks.items():
        if task.recall is not None and task.recall < LEAST_RECALL:
            unread = f" {task.failed} of {task.asked} replies could not be read."
            yield (
                f"{_TITLES[kind]}: {task.hits} of {task.total} right ({task.recall:.0%}), and less "
                f"than {LEAST_RECALL:.0%} is too little.{unread if task.failed else ''}"
            )


def _speed(speed: Speed) -> dict[str, Any]:
    floor = speed.floor
    return {
        "prompt_tokens": speed.prompt_tokens,
        "image_tokens": speed.image_tokens,
        "new_tokens": speed.new_tokens,
        "prefill_tokens_per_second": _rounded(speed.prefill),
        "decode_tokens_per_second": _rounded(speed.decode),
        "floor_tokens_per_second": _rounded(floor.tokens_a_second if floor else None),
        "bandwidth_bytes_per_second": round(floor.bandwidth) if floor else None,
        "bytes_per_step": floor.bytes_a_step if floor else None,
    }


def _truth(truth: Truth) -> dict[str, Any]:
    return {
        "scenes": truth.scenes,
        "scenes_wanted": truth.wanted,
        "questions": truth.questions,
        "seconds": round(truth.seconds, 1),
        "tokens_per_second": _rounded(truth.tokens / truth.seconds) if truth.seconds else None,
        "tasks": {kind: _task(task) for kind, task in truth.tasks.items()},
        "coordinates": _coordinates(truth.coordinates) if truth.coordinates else None,
        "not_applicable": list(truth.not_applicable),
        "examples": [dataclasses.asdict(example) for example in truth.examples],
    }


def _task(task: TaskTruth) -> dict[str, Any]:
    return {
        "asked": task.asked,
        "failed": task.failed,
        "found": task.hits,
        "of": task.total,
        "recall": _rounded(task.recall, 4),
        "precision": _rounded(task.precision, 4),
        "mean_iou": _rounded(task.mean_iou, 4),
    }


def _coordinates(fit: CoordinateFit) -> dict[str, Any]:
    return {
        "expected": fit.expected,
        "best": fit.best,
        "differs": fit.differs,
        "boxes": fit.boxes,
        "boxes_needed": MIN_BOXES,
        "mean_iou": {space: round(value, 4) for space, value in fit.iou.items()},
    }


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)

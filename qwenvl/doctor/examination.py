"""Examination: environment, model, speed, truth and fast paths, in one report."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from ..backends.base import Backend
from ..errors import BadOption, QwenVLError
from ..fine_tunes import by_name
from ..observer import Observer
from ..types import LocalSpec, Spec
from . import environment, model_facts, speed, truth
from .fast_paths import fast_paths
from .report import Report
from .time_limit import TimeIsUp, TimeLimit

MAX_SCENES = 1000
_MAX_FRAMES = 12

Progress = Callable[[str], None]


def check_options(scenes: int, seconds: float) -> None:
    """Raises ``BadOption`` for numbers outside their range."""
    if not 0 <= scenes <= MAX_SCENES:
        raise BadOption(f"scenes is {scenes}; it may be 0 (none) to {MAX_SCENES}.")
    if not seconds > 0:
        raise BadOption(f"seconds is {seconds:g}; it must be more than 0.")


def examine_machine() -> Report:
    """The environment alone."""
    return Report(environment.environment())


def examine(
    report: Report,
    backend: Backend,
    spec: Spec,
    scenes: int,
    limit: TimeLimit,
    progress: Progress,
) -> None:
    """Fills ``report`` in with all that ``backend`` shows. What an error cut short stays in it,
    with the error; only what is no ``Exception``, a request to stop, is raised."""
    start = time.monotonic()
    for part in (_measure_and_ask, _look):
        try:
            part(report, backend, spec, scenes, limit, progress)
        except TimeIsUp:
            report.time_is_up = True
        except Exception as error:  # whatever it is, the rest of the report helps to find it
            if not report.error:
                report.error = str(error) if isinstance(error, QwenVLError) else repr(error)
                report.trace = _frames(error)
    report.seconds = time.monotonic() - start


def _measure_and_ask(
    report: Report,
    backend: Backend,
    spec: Spec,
    scenes: int,
    limit: TimeLimit,
    progress: Progress,
) -> None:
    progress("loading the model and measuring its speed")
    report.speed = speed.measure(backend, limit)
    if scenes:
        fine_tune = by_name(spec.name)
        report.truth = truth.ask(backend, scenes, limit, progress, fine_tune)
        report.time_is_up = report.truth.is_partial


def _look(
    report: Report, backend: Backend, spec: Spec, _scenes: int, limit: TimeLimit, progress: Progress
) -> None:
    """At the model itself. Last, since some fast paths are decided while it answers."""
    report.model = model_facts.model_facts(backend, spec)
    loaded = model_facts.loaded_model(backend)
    if loaded is None or not isinstance(spec, LocalSpec):
        return
    if report.speed is not None:
        report.speed = dataclasses.replace(report.speed, floor=speed.floor_of(loaded))
    with loaded.adapted(spec.adapters, Observer()):
        try:
            progress("comparing the fast paths with the plain one")
            loaded.check_fast_paths(limit)
        finally:
            report.fast_paths = fast_paths(loaded)


def _frames(error: Exception) -> list[str]:
    """The innermost frames of an unexpected error, by module: where a file lies is the user's."""
    if isinstance(error, QwenVLError):
        return []
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    return [f"{_module(frame.filename)}:{frame.lineno} in {frame.name}" for frame in frames]


def _module(file: str) -> str:
    parts = Path(file).parts
    for anchor in ("site-packages", "dist-packages", "qwenvl"):
        if anchor in parts:
            return "/".join(parts[parts.index(anchor) + (anchor != "qwenvl") :])
    return parts[-1] if parts else file

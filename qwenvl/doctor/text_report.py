"""Text of a report, section by section, from its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..checkpoints.files import readable_size
from .coordinate_fit import SPACES

_TASKS = {
    "describe": "describe: shapes and words named",
    "read": "read: words exact",
    "boxes": "find boxes: IoU of 0.5 or more",
    "points": "find points: inside the shape",
    "repeat": "repeat codes: exact",
    "look up": "look up numbers in a text: exact",
    "add": "add two numbers: exact",
    "coordinates": "the space of coordinates",
}


def text(report: Mapping[str, Any]) -> str:
    """The whole report (see ``Report.as_json``), for people. Control characters, which a model may
    have written, are replaced: a terminal would obey them."""
    lines = [*_environment(report["environment"])]
    if report["model"]:
        lines += ["", *_model(report["model"])]
    if report["fast_paths"]:
        lines += ["", *_fast_paths(report["fast_paths"])]
    if report["speed"]:
        lines += ["", *_speed(report["speed"])]
    if report["truth"]:
        lines += ["", *_truth(report["truth"])]
    whole = "\n".join([*lines, "", *_verdict(report)])
    return "".join(char if char == "\n" or char.isprintable() else "\ufffd" for char in whole)


def _environment(found: Mapping[str, Any]) -> Iterator[str]:
    yield "Environment"
    yield f"  pack {found['pack'] or 'unknown'}, Python {found['python']}, {found['system']}"
    ram = found["ram"]
    yield (
        f"  {found['processor'] or 'unknown processor'}, {found['cores']} cores; RAM "
        f"{readable_size(ram['free'])} free of {readable_size(ram['total'])}"
    )
    here = [f"{name} {version}" for name, version in found["packages"].items() if version]
    absent = [name for name, version in found["packages"].items() if not version]
    yield f"  {', '.join(here)}"
    if absent:
        yield f"  not installed, and needed only for some models or options: {', '.join(absent)}"
    torch = found["torch"]
    if "error" in torch:
        yield f"  torch cannot be imported: {torch['error']}"
        return
    built = [f"{name} {torch[name.lower()]}" for name in ("CUDA", "HIP") if torch[name.lower()]]
    yield f"  torch built for {', '.join(built) or 'the processor'}, {torch['threads']} threads"
    for device in torch["devices"] or [{"device": "cpu", "name": "no accelerator is seen"}]:
        yield "  " + _device(device)


def _device(device: Mapping[str, Any]) -> str:
    parts = [f"{device['device']}: {device.get('name') or device['error']}"]
    if "capability" in device:
        parts.append(f"compute capability {device['capability']}")
    if "total" in device:
        free = f"{readable_size(device['free'])} free of " if "free" in device else ""
        parts.append(f"{free}{readable_size(device['total'])}")
    return ", ".join(parts)


def _model(model: Mapping[str, Any]) -> Iterator[str]:
    yield "Model"
    guess = "" if model["known_family"] else ", not a known family: its coordinates are a guess"
    own = model["fine_tune"] or "a checkpoint of your own"
    space = model["coordinates"]
    read = f"coordinates are read as {SPACES[space]}" if space else "it reads text only"
    yield (f"  {model['name'] or own}: {model['family']} ({model['model_type']}{guess}), {read}")
    if "bytes" in model:
        yield (
            f"  {model['layers']} layers of {model['hidden_size']}, "
            f"{readable_size(model['bytes'])} on {', '.join(model['devices'])}, {model['dtype']}, "
            f"quantization {model['quantization']}"
        )
        yield f"  attention {model['attention']}: {model['attention_reason']}"
        if model["peak_bytes"] is not None:
            yield f"  at most {readable_size(model['peak_bytes'])} of the card were in use"
        for adapter in model["adapters"]:
            yield (
                f"  LoRA adapter of rank {adapter['rank']}, {readable_size(adapter['bytes'])}, at "
                f"strength {adapter['strength']:g}"
            )


def _fast_paths(paths: list[Mapping[str, Any]]) -> Iterator[str]:
    yield "Fast paths"
    width = max(len(path["name"]) for path in paths)
    for path in paths:
        reason = f": {path['reason']}" if path["reason"] else ""
        yield f"  {path['name']:<{width}}  {path['state']}{reason}"


def _speed(speed: Mapping[str, Any]) -> Iterator[str]:
    yield "Speed of one request"
    shown = f", {speed['image_tokens']} of them the picture" if speed["image_tokens"] else ""
    yield (
        f"  prefill {_rate(speed['prefill_tokens_per_second'])}, a prompt of "
        f"{speed['prompt_tokens']} tokens{shown}"
    )
    yield f"  decoding {_rate(speed['decode_tokens_per_second'])}"
    if floor := speed["floor_tokens_per_second"]:
        yield (
            f"  reading the weights alone, {readable_size(speed['bytes_per_step'])} a token, would "
            f"allow {_rate(floor)}: copying on the device moved "
            f"{readable_size(speed['bandwidth_bytes_per_second'])} a second"
        )


def _rate(tokens: float | None) -> str:
    return "not measured" if tokens is None else f"{tokens:,.0f} tokens/s"


def _truth(truth: Mapping[str, Any]) -> Iterator[str]:
    without = truth["not_applicable"]
    asked = "sets of questions" if without else "scenes"
    yield (
        f"Truth: {truth['scenes']} of {truth['scenes_wanted']} {asked}, {truth['questions']} "
        f"questions in {truth['seconds']} s, {_rate(truth['tokens_per_second'])} together"
    )
    for kind, task in truth["tasks"].items():
        if task["asked"]:
            yield f"  {_TASKS[kind]}: {_shares(task)}"
    if without:
        names = "; ".join(_TASKS[name].split(":")[0] for name in without)
        yield f"  not applicable, since the model reads text only: {names}"
    if fit := truth["coordinates"]:
        yield from _coordinates(fit)
    for example in truth["examples"]:
        reply = " ".join((example["error"] or example["reply"]).split())
        number = f"{'set' if without else 'scene'} {example['scene']}"
        yield f"  {number}, {example['kind']}: expected {example['expected']}"
        yield f"    got {reply}"


def _shares(task: Mapping[str, Any]) -> str:
    parts = [f"{task['found']} of {task['of']} ({task['recall']:.0%})"]
    if task["mean_iou"] is not None:
        parts.append(f"mean IoU {task['mean_iou']:.2f}")
    if task["precision"] is not None:
        parts.append(f"precision {task['precision']:.0%}")
    if task["failed"]:
        parts.append(f"{task['failed']} of {task['asked']} replies failed")
    return ", ".join(parts)


def _coordinates(fit: Mapping[str, Any]) -> Iterator[str]:
    if not fit["mean_iou"]:
        yield (
            f"  coordinates: not enough boxes to tell ({fit['boxes']}; it takes "
            f"{fit['boxes_needed']})"
        )
        return
    best = SPACES[fit["best"]] if fit["best"] else "none of the spaces fits"
    yield f"  coordinates: {best}, of {fit['boxes']} boxes; mean IoU by space:"
    ranked = sorted(fit["mean_iou"].items(), key=lambda item: -item[1])
    yield "    " + ", ".join(f"{space} {iou:.2f}" for space, iou in ranked)


def _verdict(report: Mapping[str, Any]) -> Iterator[str]:
    if report["time_is_up"]:
        yield "The time was up before everything was done: raise --seconds."
    if report["error"]:
        yield f"Ended early: {report['error']}"
        yield from (f"  {frame}" for frame in report["trace"])
    for problem in report["problems"]:
        yield f"WARNING: {problem}"
    if not (report["error"] or report["problems"]):
        yield "Nothing is wrong with what was examined."

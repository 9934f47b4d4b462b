"""The servers command: what answers at addresses, before anything is asked there."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..servers import abilities
from ..servers.keys import KEYS
from ..servers.survey import ListedModel, ServerFound, survey
from ..types import ServerSpec
from .output import print_json, print_message, print_result
from .results import SOME_FAILED

_MOST = 30
"""Models that are listed of one server, those of known families first; with ``--json`` all are."""


def servers(options: argparse.Namespace) -> int:
    """Tells of each address. Returns the exit status."""
    urls = ServerSpec(",".join(options.urls)).urls  # type: ignore[arg-type]
    specs = [ServerSpec((url,), allow_http=options.allow_http) for url in urls]
    failed = False

    def show(found: ServerFound) -> None:
        nonlocal failed
        failed |= bool(found.error)
        if options.json:
            print_json(_row(found))
        elif not found.error:
            print_result(_text(found))
        if found.error:
            print_message(f"error: {found.error}")

    survey(specs, KEYS, show)
    return SOME_FAILED if failed else 0


def _row(found: ServerFound) -> dict[str, Any]:
    """``family``: null where the name does not tell it. ``pictures``: numbers that are 0 have no
    bound of the server's own. ``shortcomings``: what will not work there, in sentences."""
    row: dict[str, Any] = {"url": found.url, "key": bool(found.key)}
    if found.kind is None:
        return row | {"error": found.error}
    kind = found.kind
    return row | {
        "kind": kind.name,
        "title": kind.title,
        "models": [
            {
                "name": model.name,
                "family": model.family.model_type if model.family else None,
                "remark": model.remark,
            }
            for model in found.models
        ],
        "pictures": dataclasses.asdict(kind.pictures),
        "held_to": list(kind.forms),
        "logprobs": kind.logprobs != "none",
        "sounds": kind.audio != "none",
        "shortcomings": list(abilities.shortcomings(kind)),
    }


def _text(found: ServerFound) -> str:
    assert found.kind is not None
    kind = found.kind
    listed = sorted(found.models, key=lambda model: (model.family is None, bool(model.remark)))
    models = [_named(model) for model in listed[:_MOST]] or [
        "none listed: load one there, or give its name by --server-model"
    ]
    if len(listed) > _MOST:
        models.append(f"and {len(listed) - _MOST} more (--json lists all)")
    rows = {
        "models": models,
        "key": [f"found {found.key}" if found.key else "none found"],
        "pictures": [abilities.pictures(kind)],
        "held to": [", ".join(abilities.held_to(kind)) or "nothing"],
        "limits": list(abilities.shortcomings(kind)),
    }
    lines = [f"{found.url}: {kind.title}"]
    for name, words in rows.items():
        heads = [name, *[""] * len(words)]
        lines += [f"  {head:10}{one}" for head, one in zip(heads, words, strict=False)]
    return "\n".join(lines)


def _named(model: ListedModel) -> str:
    told = [model.family.title if model.family else "", model.remark]
    return f"{model.name} ({'; '.join(filter(None, told))})"

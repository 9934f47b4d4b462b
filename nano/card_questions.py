"""Questions about a card: values by their keys as a JSON object, and all that it says."""

from __future__ import annotations

import random

from . import scenes
from .questions import Piece, Turn

# In the words of the task, and in others.
_ASK = (
    "Extract these from this image as a JSON object: {}. Each value is a string, or null where "
    "the image does not show it. Output only the JSON.",
) * 6 + (
    "Extract {} as JSON.",
    "Read these from the card as a JSON object: {}.",
    "Report {} in JSON format.",
)
_READ = ("Read all the text in the image.", "Read the text.", "What does it say?")

# Each is one token.
FIRST_KEYS = {key: f'{{"{key}": ' for key in scenes.CARD_KEYS}
NEXT_KEYS = {key: f', "{key}": ' for key in scenes.CARD_KEYS}
ASKED_KEYS = {key: f" {key}" for key in scenes.CARD_KEYS}
PRINTED_KEYS = {key: f"{key}: " for key in scenes.CARD_KEYS}
EMPTY = "null"


def turns(card: scenes.Card, rng: random.Random, number: int) -> list[Turn]:
    """`number` questions about a card."""
    return [_read(card, rng) if rng.random() < 0.15 else _extract(card, rng) for _ in range(number)]


def extraction(card: scenes.Card, keys: list[str], question: str) -> Turn:
    """The values of `keys`, in that order; null for what the card has not."""
    pieces: list[Piece] = []
    rows = {item.key: k for k, item in enumerate(card.fields)}
    for key in keys:
        opening = (NEXT_KEYS if pieces else FIRST_KEYS)[key]
        if key not in rows:
            pieces += [Piece(opening), Piece(EMPTY, "stop", (), ())]
            continue
        k = rows[key]
        about = ("key", k)
        value = card.fields[k].value
        pieces += [Piece(opening), Piece('"', "look", about, about)]
        pieces += [Piece(c, "char", ("line", k, j), about) for j, c in enumerate(value)]
        pieces.append(Piece('"', "", (), about))
    return Turn("extract", question, (*pieces, Piece("}")))


def _extract(card: scenes.Card, rng: random.Random) -> Turn:
    keys = list(card.values)
    if rng.random() < 0.5:  # any keys in any order
        there = [item.key for item in card.fields]
        absent = [key for key in scenes.CARD_KEYS if key not in there]
        keys = rng.sample(there, rng.randint(1, len(there)))
        keys += rng.sample(absent, rng.choice((0, 1, 1, 2)))
        rng.shuffle(keys)
    return extraction(card, keys, rng.choice(_ASK).format(", ".join(keys)))


def _read(card: scenes.Card, rng: random.Random) -> Turn:
    """All the text, a line each."""
    pieces: list[Piece] = []
    for k, item in enumerate(card.fields):
        if pieces:
            pieces.append(Piece("\n"))
        pieces.append(Piece(PRINTED_KEYS[item.key], "look", ("key", k), ("key", k)))
        pieces += [Piece(c, "char", ("line", k, j), ("key", k)) for j, c in enumerate(item.value)]
    return Turn("read card", rng.choice(_READ), tuple(pieces))

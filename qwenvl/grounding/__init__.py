"""Grounding in several requests a picture: queries apart, within regions, in tiles, looked at
again. What one request asks, and how its reply is read, is ``tasks.ground``, and ``tasks.act`` for
actions on a screen."""

from .searches import KINDS, Search, queries, search

__all__ = ["KINDS", "Search", "queries", "search"]

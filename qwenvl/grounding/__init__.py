"""Grounding in several requests a picture: queries apart, within regions, in tiles, looked at
again. What one request asks, and how its reply is read, is ``tasks.ground``."""

from .search import Search, queries, search

__all__ = ["Search", "queries", "search"]

"""Replies: from a model's text to its answer, and to the boxes and points that it holds.

Coordinates stay in the model's own space here; ``coordinates`` maps them to pixels.
"""

from .absence import says_none
from .answer import STILL_THINKING, extract_answer, split_thinking, strip_fence
from .bbox import is_null
from .items import Expected, Item
from .reader import find_items, has_text_lines, read_items

__all__ = [
    "STILL_THINKING",
    "Expected",
    "Item",
    "extract_answer",
    "find_items",
    "has_text_lines",
    "is_null",
    "read_items",
    "says_none",
    "split_thinking",
    "strip_fence",
]

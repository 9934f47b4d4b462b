"""Watching: what is asked of a video, in one request or in several: descriptions and answers,
events, a caption for each segment, one thing followed across frames."""

from .dense import Captions
from .footage import FileFootage, Footage, FrameFootage
from .linking import scaled
from .tracking import GAPS, Track
from .viewing import Viewed, Viewing, Wish
from .whole import Whole

__all__ = [
    "GAPS",
    "Captions",
    "FileFootage",
    "Footage",
    "FrameFootage",
    "Track",
    "Viewed",
    "Viewing",
    "Whole",
    "Wish",
    "scaled",
]

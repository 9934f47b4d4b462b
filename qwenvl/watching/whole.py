"""Whole videos: asked about in one request."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..backends.base import Backend
from ..query import Query, Steps
from ..types import Task
from .viewing import Viewing, viewed


@dataclass(frozen=True, eq=False)
class Whole:
    """What is asked of a whole video at once. ``task_of``: the task, for a video of so many
    seconds."""

    task_of: Callable[[float], Task]

    @property
    def task(self) -> Task:
        return self.task_of(math.inf)

    def steps(self, viewing: Viewing, backend: Backend, query: Query) -> Steps:
        video = viewing.read()
        task = self.task_of(viewing.footage.length)
        asked = dataclasses.replace(query, task=task, picture=video, method=None)
        viewing.tell(backend, [asked], len(video.times))
        (reply,) = yield [asked]
        return viewed(reply, times=video.times, notes=(*video.notes, *reply.notes))

"""What travels on the QWEN_VL socket: a light handle; the weights stay in the engine's cache."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from ..qwenvl import images, run
from ..qwenvl.cache import CACHE
from ..qwenvl.types import ModelSpec, Result, Task
from . import host

log = logging.getLogger(__name__)

_CUT = {
    "length": "the reply was cut at max_new_tokens; raise it for the rest.",
    "repetition": "the reply repeated itself and was cut there.",
}


@dataclasses.dataclass(frozen=True)
class ModelHandle:
    """Which model, and the bounds in pixels on what it sees of a picture (None: its own)."""

    spec: ModelSpec
    min_pixels: int | None = None
    max_pixels: int | None = None

    def answer(
        self,
        task: Task,
        image: Any,
        sampling: Mapping[str, Any],
        *,
        thinking: bool | None = None,
        keep_unreadable: bool = False,
    ) -> list[Result]:
        """One result for each picture of an IMAGE, in order, in one batched run.

        ``sampling`` changes single fields of the model's own values for this task. Raises the
        engine's errors and, within one token, ComfyUI's interrupt.
        """
        pictures = images.pictures(image)
        with CACHE.lease(self.spec) as backend:
            own = run.sampling_for(backend, task, thinking)
            results = run.answer(
                backend,
                task,
                pictures,
                sampling=dataclasses.replace(own, **sampling),
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
                thinking=thinking,
                watch=host.NodeWatch(),
                keep_unreadable=keep_unreadable,
            )
        for number, result in enumerate(results, 1):
            if result.finish_reason in _CUT:
                log.warning(
                    "Picture %d of %d: %s", number, len(results), _CUT[result.finish_reason]
                )
        return results

    def seeing_at_most(self, longest_side: int, image: Any) -> ModelHandle:
        """The same model with pictures of this IMAGE shrunk to ``longest_side`` pixels (0: no
        change). A bound on the area does it, so the engine maps boxes back by itself."""
        height, width = image.shape[-3:-1]
        if not longest_side or max(height, width) <= longest_side:
            return self
        area = round(height * width * (longest_side / max(height, width)) ** 2)
        return dataclasses.replace(
            self,
            min_pixels=min(self.min_pixels, area) if self.min_pixels else None,
            max_pixels=min(self.max_pixels, area) if self.max_pixels else area,
        )

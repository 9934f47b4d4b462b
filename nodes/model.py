"""What travels on the QWEN_VL socket: a light handle; the weights stay in the engine's cache."""

from __future__ import annotations

import dataclasses
import logging
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..qwenvl import images, run
from ..qwenvl.cache import CACHE
from ..qwenvl.types import ModelSpec, Result, Size, Task
from . import host

log = logging.getLogger(__name__)

_CUT = {
    "length": "the reply was cut at max_new_tokens; raise it for the rest.",
    "repetition": "the reply repeated itself and was cut there.",
}


_holders: Counter[ModelSpec] = Counter()


def _let_go(spec: ModelSpec) -> None:
    """Unloads a model that no handle names any more: ComfyUI drops the handle when the Loader's
    settings change, when its graph is gone, and on "Free model and node cache"."""
    _holders[spec] -= 1
    if not _holders[spec]:
        del _holders[spec]
        # In a thread of its own: a finalizer may run anywhere, even inside the cache's lock. Not
        # a daemon, which the interpreter's end would cut off amid torch's own code: that aborts.
        threading.Thread(target=_unload, args=(spec,), name="qwen-vl-unload").start()


def _unload(spec: ModelSpec) -> None:
    if spec not in _holders and CACHE.unload(spec):
        log.info("Unloaded %s: nothing in the graph holds it.", spec.checkpoint)
        host.free_memory()


@dataclasses.dataclass(frozen=True)
class ModelHandle:
    """Which model, and the bounds in pixels on what it sees of a picture (None: its own). The
    model stays loaded for as long as a handle of it lives."""

    spec: ModelSpec
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        _holders[self.spec] += 1
        weakref.finalize(self, _let_go, self.spec).atexit = False

    def answer(
        self,
        task: Task,
        image: Any,
        sampling: Mapping[str, Any],
        *,
        thinking: bool | None = None,
        longest_side: int = 0,
        keep_unreadable: bool = False,
    ) -> list[Result]:
        """One result for each picture of an IMAGE, in order, in one batched run.

        ``sampling`` changes single fields of the model's own values for this task. The model sees
        the pictures shrunk to ``longest_side`` pixels (0: as they are); boxes are in those of the
        IMAGE. Raises the engine's errors and, within one token, ComfyUI's interrupt.
        """
        pictures = images.pictures(image)
        with CACHE.lease(self.spec) as backend:
            own = run.sampling_for(backend, task, thinking)
            low, high = self._bounds(pictures[0].shape[-2:], longest_side, backend.max_pixels)
            results = run.answer(
                backend,
                task,
                pictures,
                sampling=dataclasses.replace(own, **sampling),
                min_pixels=low,
                max_pixels=high,
                thinking=thinking,
                watch=host.NodeWatch(run.will_think(backend, task, thinking)),
                keep_unreadable=keep_unreadable,
            )
        for number, result in enumerate(results, 1):
            if result.finish_reason in _CUT:
                log.warning(
                    "Picture %d of %d: %s", number, len(results), _CUT[result.finish_reason]
                )
        return results

    def _bounds(self, size: Size, longest_side: int, most: int) -> tuple[int | None, int | None]:
        """The bounds on pixels that also keep ``longest_side``. A bound on the area does it,
        since resizing keeps the shape, and the engine maps boxes back by itself. ``most``: the
        checkpoint's own bound, which a longest side is not meant to lift."""
        if not longest_side or max(size) <= longest_side:
            return self.min_pixels, self.max_pixels
        area = round(size[0] * size[1] * (longest_side / max(size)) ** 2)
        high = min(area, self.max_pixels or most)
        return min(self.min_pixels, high) if self.min_pixels else None, high

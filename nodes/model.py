"""What travels on the QWEN_VL socket: a light handle; the weights stay in the engine's cache."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..qwenvl import images, run
from ..qwenvl.backend import Backend
from ..qwenvl.cache import CACHE
from ..qwenvl.types import ModelSpec, Result, Size, Task
from . import host

KEEP, OFFLOAD, UNLOAD = "keep", "offload to RAM", "unload"
AFTER_USE = (KEEP, OFFLOAD, UNLOAD)
"""What becomes of a model's weights when a node is done with them."""


def put_away(backend: Backend, where: str) -> None:
    """Does with a model's weights what ``where`` of ``AFTER_USE`` says."""
    if where == OFFLOAD:
        backend.offload()
    elif where == UNLOAD:
        backend.release()


class _Hold:
    """Shared by all handles of one spec; its end is the end of the last of them."""


_holds: weakref.WeakValueDictionary[ModelSpec, _Hold] = weakref.WeakValueDictionary()


def _hold(spec: ModelSpec) -> _Hold:
    found = _holds.get(spec)
    if found is None:
        found = _holds.setdefault(spec, _Hold())
        weakref.finalize(found, _let_go, spec).atexit = False
    return found


def _let_go(spec: ModelSpec) -> None:
    """Unloads a model that no handle names any more: ComfyUI drops the handle when the Loader's
    settings change, when its graph is gone, and on "Free model and node cache"."""
    if spec not in _holds:
        CACHE.discard(spec)


@dataclasses.dataclass(frozen=True)
class ModelHandle:
    """Which model, the bounds in pixels on what it sees of a picture (None: its own), whether a
    picture may be shown smaller where memory runs out, and what becomes of the weights
    ``after_use``. The model stays loaded for as long as a handle of it lives."""

    spec: ModelSpec
    min_pixels: int | None = None
    max_pixels: int | None = None
    shrink_to_fit: bool = False
    after_use: str = KEEP

    def __post_init__(self) -> None:
        object.__setattr__(self, "_held", _hold(self.spec))

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
        with self._leased() as backend:
            own = run.sampling_for(backend, task, thinking)
            least = backend.family.patch_factor**2
            low, high = self._bounds(
                pictures[0].shape[-2:], longest_side, (least, backend.max_pixels)
            )
            return run.answer(
                backend,
                task,
                pictures,
                sampling=dataclasses.replace(own, **sampling),
                min_pixels=low,
                max_pixels=high,
                thinking=thinking,
                may_shrink=self.shrink_to_fit,
                watch=host.NodeWatch(run.will_think(backend, task, thinking)),
                keep_unreadable=keep_unreadable,
            )

    @contextmanager
    def _leased(self) -> Iterator[Backend]:
        with CACHE.lease(self.spec) as backend:
            try:
                yield backend
            finally:
                put_away(backend, self.after_use)

    def _bounds(
        self, size: Size, longest_side: int, own: tuple[int, int]
    ) -> tuple[int | None, int | None]:
        """The bounds on pixels that also keep ``longest_side``. A bound on the area does it,
        since resizing keeps the shape, and the engine maps boxes back by itself. ``own``: one
        token's pixels, and the checkpoint's own bound, which a longest side is not meant to lift.
        """
        if not longest_side or max(size) <= longest_side:
            return self.min_pixels, self.max_pixels
        area = round(size[0] * size[1] * (longest_side / max(size)) ** 2)
        least, most = own
        high = max(least, min(area, self.max_pixels or most))
        return min(self.min_pixels, high) if self.min_pixels else None, high

"""Fast paths of a local model: checked once on its device, and off where they did not agree."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Hashable, Mapping
from typing import Any

from ..inference import fast_path_check
from ..inference.fast_path_check import FastPathCheck
from ..inference.memory_model import MemoryModel
from ..observer import Observer
from .local_model import LocalModel

log = logging.getLogger(__name__)

_FOUND: dict[Hashable, dict[str, str]] = {}
"""What the checks of this process found, by checkpoint, options and device."""


class FastPaths:
    """The fast paths of ``model``."""

    def __init__(self, model: LocalModel):
        self._model = model
        # The weights that were checked, and the adapters on them.
        self._checked: tuple[Any, object] = (None, None)

    @property
    def problems(self) -> Mapping[str, str] | None:
        """What the check found, by the name of each path: why it is off, empty where it agreed.
        None where no check was needed yet."""
        return _FOUND.get(self._model.layers_key)

    def check(self, memory_model: MemoryModel, observer: Observer) -> str:
        """Turns off the paths that did not agree with the plain one when they were compared: once
        for each checkpoint, options and device in a process. The weights are on their device.
        Returns why the scheduler may not be used at all; empty where it may."""
        model, key = self._model, self._model.layers_key
        weights, checked = self._checked
        if weights is not None and weights() is model.model and checked == key:
            return ""
        if key not in _FOUND:
            _FOUND[key] = FastPathCheck(model, memory_model, observer).run()
            for name, problem in _FOUND[key].items():
                if problem:
                    log.warning(
                        "Left off for this model, since it did not agree with transformers' own "
                        "generate on %s: %s (%s)",
                        model.device,
                        name,
                        problem,
                    )
        fast_path_check.turn_off(model, _FOUND[key])
        problem = _FOUND[key][fast_path_check.SCHEDULER]
        if not problem:
            self._checked = weakref.ref(model.model), key
        return problem

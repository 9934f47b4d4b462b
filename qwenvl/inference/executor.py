"""Executor: answers the prompts of one call on a loaded model; the base of the scheduler and of the
plain executor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

import torch

from ..checkpoints.files import readable_size
from ..errors import OutOfMemory, QwenVLError
from ..models.memory import is_out_of_memory
from ..observer import GuardedObserver, Observer
from ..prompting.prompt import Prompt
from ..types import Response
from .active_request import ActiveRequest
from .loaded_model import LoadedModel
from .memory_model import MemoryModel, TokenNeed, out_of_memory_error, token_need
from .sampler import numerical_error
from .sequence import SampledToken
from .stopping import append_token

_CLAIMED_TOKENS = 32_768
"""Tokens, prompts and answers together, that other models have to make room for. Requests beyond
that use what memory is free."""

_FEW = 8
"""Waiting requests below which more are taken in: as many as the next are prepared of."""

More = Callable[[bool], "dict[int, Prompt] | None"]
"""Gives further prompts, by the index of their request; see ``source.Source.more``."""


class Executor(ABC):
    """Answers ``prompts``, by the index of their request, in one call, and all that ``more`` gives.
    ``prompts`` is the executor's own from then on: of a request that is answered it keeps nothing
    where there is more."""

    def __init__(
        self,
        loaded: LoadedModel,
        prompts: dict[int, Prompt],
        memory_model: MemoryModel,
        observer: Observer,
        more: More | None = None,
    ):
        self._loaded, self._prompts, self._observer = loaded, prompts, GuardedObserver(observer)
        self._more = more
        self._memory_model = memory_model
        self._limits = loaded.batch_limits
        self._needs = {index: self._need(prompt) for index, prompt in prompts.items()}
        self._waiting = deque(prompts)
        self.responses: dict[int, Response] = {}

    def run(self) -> dict[int, Response]:
        """``responses``, one for each of the prompts given at first, where there is no ``more``: of
        what is taken in nothing is kept. A request that memory does not suffice for, or that the
        model computes NaN for, has the error in it."""
        self._observer.check()
        on_device = self._loaded.on_device(self._claimed_bytes(), self._observer)
        with on_device, torch.inference_mode(False), torch.no_grad():
            self._run()
        return self.responses

    @abstractmethod
    def _run(self) -> None:
        """Answers what waits, on the device."""

    def _take_in(self) -> bool:
        """Takes in further requests where few wait. False where none waits then."""
        if self._more and len(self._waiting) < _FEW:
            for index in self.responses:
                self._forget(index)
            self.responses.clear()
            prompts = self._more(not self._prompts)
            if prompts is None:
                self._more = None
            else:
                self._prompts |= prompts
                self._needs |= {index: self._need(prompt) for index, prompt in prompts.items()}
                self._waiting += prompts
        return bool(self._waiting)

    def _forget(self, index: int) -> None:
        """Drops all that is held for a request, which has its response."""
        del self._prompts[index], self._needs[index]

    def _claimed_bytes(self) -> int:
        """Memory for a good many requests: other models may have to leave for them."""
        needs: list[TokenNeed] = []
        for index in self._waiting:
            needs.append(self._needs[index])
            longest = max(need.prompt for need in needs) + max(need.answer for need in needs)
            fits = self._limits.admit(needs, self._memory_model.peak_bytes)
            if len(needs) > 1 and not (fits and len(needs) * longest <= _CLAIMED_TOKENS):
                needs.pop()
                break
        return self._memory_model.peak_bytes(needs) if needs else 0

    # Memory

    def _need(self, prompt: Prompt) -> TokenNeed:
        return token_need(prompt)

    def _check_ram(self, nbytes: int) -> None:
        """Raises where a CPU's memory would not suffice: the kernel would end the process."""
        if not nbytes or self._loaded.device.type != "cpu":
            return
        if nbytes > self._free_bytes():
            self._loaded.prefix_cache.clear()
        if nbytes > (free := self._free_bytes()):
            sizes = f"{readable_size(nbytes)} are wanted and {readable_size(free)} free"
            raise MemoryError(f"RAM does not suffice: {sizes}")

    def _is_out_of_memory(self, error: BaseException) -> bool:
        """Whether memory ran out here, and not where the observer's caller has its own work."""
        return is_out_of_memory(error) and error is not self._observer.error

    def _free_bytes(self) -> int:
        return self._loaded.memory.free(self._loaded.device)

    def _shrink(self, index: int) -> bool:
        """Whether a request that did not fit alone can be asked again with fewer pixels; else its
        response is the error."""
        smaller = self._prompts[index].shrunk()
        if smaller is None:
            self._fail(index, self._out_of_memory(index))
            return False
        self._prompts[index], self._needs[index] = smaller, self._need(smaller)
        return True

    def _out_of_memory(self, index: int) -> OutOfMemory:
        factor = self._loaded.family.patch_factor
        return out_of_memory_error(
            self._needs[index], self._memory_model, self._free_bytes(), factor
        )

    # Answers

    def _take(self, active: ActiveRequest, token: SampledToken) -> bool:
        """Appends a token to a row. True where that finishes it: its response is then there."""
        if not self._add_token(active, token):
            return False
        if active.row.finish_reason != "error":
            self._finish(active.row.index, active.response())
        return True

    def _add_token(self, active: ActiveRequest, token: SampledToken) -> bool:
        """Appends a token to a row. True where that finishes it; where its logits were none, its
        response is then there too."""
        row = active.row
        if token.id < 0:
            row.finish_reason = "error"
            self._fail(row.index, numerical_error())
            return True
        # Log-probabilities are there for all rows of a batch as soon as one asks for them.
        append_token(row, token.id, token.logprob if row.logprobs else None)
        if row.finish_reason is None:
            self._observer.token(row.index, active.detokenizer.append(row.output_ids))
        return row.finish_reason is not None

    def _fail(self, index: int, error: QwenVLError) -> None:
        """Ends a request without an answer; the others go on."""
        self._finish(index, Response.failed(error))

    def _finish(self, index: int, response: Response) -> None:
        self.responses[index] = response
        self._observer.done(index, response)

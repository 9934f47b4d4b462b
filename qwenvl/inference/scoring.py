"""Scoring: probabilities of given texts as answers, and prompts as vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..models.memory import is_out_of_memory
from .executor import Executor
from .loaded_model import model_runner
from .model_runner import ModelRunner
from .prefill import Prefiller

T = TypeVar("T")


class PromptReader(Executor, Generic[T]):
    """Prefills prompts one after the other; ``results`` by their index. Raises ``OutOfMemory`` for
    the first that does not fit."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.results: dict[int, T] = {}

    def _run(self) -> None:
        runner = model_runner(self._loaded)
        prefiller = Prefiller(self._loaded, runner, self._prompts, self._observer)
        prefiller.schedule(self._waiting)
        try:
            while self._waiting:
                index = self._waiting.popleft()
                try:
                    self._observer.check()
                    self._check_ram(self._memory_model.peak_bytes([self._needs[index]]))
                    self.results[index] = self._read(runner, prefiller, index)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    raise self._out_of_memory(index) from error
        finally:
            prefiller.close()

    @abstractmethod
    def _read(self, runner: ModelRunner, prefiller: Prefiller, index: int) -> T: ...


class CandidateScorer(PromptReader[list[float]]):
    """``results``: of each prompt the probabilities of ``candidates``, token ids of texts that its
    answer may begin with, normalised over them."""

    def __init__(self, *given: Any, candidates: Sequence[Sequence[int]]):
        super().__init__(*given)
        self._candidates = candidates

    def _read(self, runner: ModelRunner, prefiller: Prefiller, index: int) -> list[float]:
        prefill, _ = prefiller.read(index)
        prompt, logprobs = self._prompts[index], []
        for ids in self._candidates:
            read, logprob = prefill, 0.0
            for count, token in enumerate(ids, 1):
                self._observer.check()
                logprob += float(read.logits.float().log_softmax(-1)[token])
                if count < len(ids):
                    longer = [*prompt.ids, *ids[:count]]
                    read, _ = runner.prefill(longer, prompt.spans, prefix=read)
            logprobs.append(logprob)
        return torch.tensor(logprobs, dtype=torch.float64).softmax(-1).tolist()


class PromptEmbedder(PromptReader[list[float]]):
    """``results``: of each prompt the hidden state of its last token, divided by its L2 norm."""

    def _read(self, _runner: ModelRunner, prefiller: Prefiller, index: int) -> list[float]:
        states: list[Tensor] = []
        norm = self._loaded.model.get_decoder().norm
        hook = norm.register_forward_hook(lambda _module, _inputs, out: states.append(out[0, -1]))
        try:
            prefiller.read(index)
        finally:
            hook.remove()
        return torch.nn.functional.normalize(states[-1].float(), dim=0).tolist()

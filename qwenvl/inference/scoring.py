"""Scoring: probabilities of given texts as answers, and prompts as vectors, from one pass over each
prompt."""

from __future__ import annotations

import copy
import inspect
import traceback
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..errors import QwenVLError
from ..models.attention import without_cudnn
from ..prompting.prompt import Prompt
from ..types import Response
from .executor import Executor
from .generic import known_positions, model_inputs, plain_need
from .loaded_model import model_runner
from .memory_model import TokenNeed, token_need
from .model_runner import Prefill, interruptible
from .prefill import Prefiller
from .sampler import numerical_error

T = TypeVar("T")

_PLAIN = (torch.float32, torch.bfloat16, torch.float16)


class _Pass(Protocol):
    """Runs a prompt, and what may stand behind it."""

    def run(self, index: int) -> None: ...

    def logprob(self, ids: Sequence[int]) -> float:
        """Natural logarithm of the probability that the tokens ``ids`` follow the last prompt."""
        ...

    def close(self) -> None: ...


class PromptReader(Executor, Generic[T]):
    """Reads prompts one after the other, thoughts left empty; ``results`` by their index, of one
    that fails its error (``OutOfMemory``, ``NumericalError``). ``plain``: the model runs as it
    comes, with no prefix cache."""

    def __init__(self, *given: Any, plain: bool = False):
        self._plain = plain  # before what a prompt needs is counted
        super().__init__(*given)
        self.results: dict[int, T | QwenVLError] = {}

    def _need(self, prompt: Prompt) -> TokenNeed:
        return plain_need(prompt) if self._plain else token_need(prompt)

    def _run(self) -> None:
        made: _Pass = _PlainPass(self) if self._plain else _CachedPass(self)
        try:
            while self._waiting:
                index = self._waiting.popleft()
                if self._fits(made, index):
                    continue
                self._loaded.prefix_cache.clear()
                self._loaded.recover_memory()
                if self._shrink(index):
                    self._waiting.appendleft(index)
                    continue
                error = self.responses[index].error
                assert error is not None
                self.results[index] = error
        finally:
            made.close()

    def _fits(self, made: _Pass, index: int) -> bool:
        """Reads a prompt; False where memory ran out."""
        self._observer.check()
        self._prompts[index] = self._prompts[index].without_thought()
        try:
            self._check_ram(self._memory_model.peak_bytes([self._needs[index]]))
            with _last_state(self._loaded.model) as states:
                made.run(index)
            if not bool(torch.isfinite(states[-1]).all()):
                self.results[index] = numerical_error()
            else:
                self.results[index] = self._read(made, states[-1])
        except (RuntimeError, MemoryError) as error:
            # Its frames hold tensors for as long as somebody looks at the error.
            traceback.clear_frames(error.__traceback__)
            if not self._is_out_of_memory(error):
                raise
            return False
        found = self.results[index]
        failed = found if isinstance(found, QwenVLError) else None
        self._finish(index, Response("", finish_reason="error" if failed else "stop", error=failed))
        return True

    @abstractmethod
    def _read(self, made: _Pass, state: Tensor) -> T:
        """What is to be known of a prompt that was run, whose last token has the hidden ``state``
        ``[hidden size]``."""


class CandidateScorer(PromptReader[list[float]]):
    """``results``: of each prompt the probabilities of ``candidates``, token ids of texts that its
    answer may begin with, normalised over them."""

    def __init__(self, *given: Any, candidates: Sequence[Sequence[int]], plain: bool = False):
        super().__init__(*given, plain=plain)
        self._candidates = candidates

    def _read(self, made: _Pass, state: Tensor) -> list[float]:
        rows = self._head_rows(state)
        if rows is not None:
            # In half precision a logit of 16 to 32 has steps of 0.125, too coarse to compare two.
            logits = rows.float() @ state.float().to(rows.device)
        else:
            logits = torch.tensor([made.logprob(ids) for ids in self._candidates])
        return logits.double().softmax(-1).tolist()

    def _head_rows(self, state: Tensor) -> Tensor | None:
        """The output embeddings ``[candidates, hidden size]`` of candidates of one token each;
        None where some are longer, or the head is no plain matrix: it may have an adapter."""
        head = self._loaded.model.get_output_embeddings()
        weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
        if not isinstance(weight, Tensor) or weight.dtype not in _PLAIN or bias is not None:
            return None
        if not isinstance(head, nn.Linear):
            return None
        if weight.shape[1:] != state.shape:
            return None
        if any(len(ids) != 1 for ids in self._candidates):
            return None
        rows: Tensor = weight[[ids[0] for ids in self._candidates]]
        return rows


class PromptEmbedder(PromptReader[list[float]]):
    """``results``: of each prompt the hidden state of its last token, divided by its L2 norm."""

    def _read(self, _made: _Pass, state: Tensor) -> list[float]:
        return torch.nn.functional.normalize(state.float(), dim=0).tolist()


@contextmanager
def _last_state(model: Any) -> Iterator[list[Tensor]]:
    """The hidden state that the output embeddings read, of the last token of each pass in the
    block."""
    states: list[Tensor] = []
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _module, given: states.append(given[0][0, -1]))
    try:
        yield states
    finally:
        hook.remove()


class _CachedPass:
    """Behind the longest cached prefix of a prompt."""

    def __init__(self, reader: PromptReader[Any]):
        self._reader = reader
        self._runner = model_runner(reader._loaded)
        self._prefiller = Prefiller(reader._loaded, self._runner, reader._prompts, reader._observer)
        self._prefiller.schedule(reader._waiting)
        self._prefill: Prefill | None = None
        self._prompt: Prompt | None = None

    def run(self, index: int) -> None:
        self._prompt = self._reader._prompts[index]
        self._prefill = None  # the last prompt's goes before there is another
        self._prefill, _ = self._prefiller.read(index)

    def logprob(self, ids: Sequence[int]) -> float:
        assert self._prefill is not None and self._prompt is not None
        read, total = self._prefill, 0.0
        for count, token in enumerate(ids, 1):
            self._reader._observer.check()
            total += float(read.logits.float().log_softmax(-1)[token])
            if count < len(ids):
                longer = [*self._prompt.ids, *ids[:count]]
                read, _ = self._runner.prefill(longer, self._prompt.spans, prefix=read)
        return total

    def close(self) -> None:
        self._prefiller.close()


class _PlainPass:
    """By the library's own forward pass."""

    def __init__(self, reader: PromptReader[Any]):
        self._reader, self._model = reader, reader._loaded.model
        self._prompt: Prompt | None = None

    def run(self, index: int) -> None:
        self._prompt = self._reader._prompts[index]
        self._forward(self._prompt, 1)

    def logprob(self, ids: Sequence[int]) -> float:
        assert self._prompt is not None
        longer = copy.copy(self._prompt)
        longer.ids = [*self._prompt.ids, *ids]
        logits = self._forward(longer, len(ids) + 1)[-len(ids) - 1 : -1]
        chosen = torch.tensor(ids, device=logits.device)[:, None]
        return float(logits.float().log_softmax(-1).gather(1, chosen).sum())

    def _forward(self, prompt: Prompt, last: int) -> Tensor:
        """Logits ``[.., V]`` of at least the ``last`` tokens of ``prompt``."""
        accepted = inspect.signature(self._model.forward).parameters
        kept = {"logits_to_keep": last} if "logits_to_keep" in accepted else {}
        with (
            interruptible(self._model, self._reader._observer.check),
            without_cudnn(),
            known_positions(self._reader._loaded, prompt),
        ):
            logits: Tensor = self._model(**model_inputs(self._model, prompt), **kept).logits[0]
        return logits

    def close(self) -> None:
        self._prompt = None

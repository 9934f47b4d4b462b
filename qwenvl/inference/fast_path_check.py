"""Fast-path check: on CUDA, the fast paths are used only where they agree with the plain one.

A short prompt with a small picture is answered by transformers' own ``generate`` and by the
scheduler with its fast paths (fused norms, CUDA graphs, verification of drafts, MTP), on the model
and the device at hand. In fp32 both must choose the same tokens. In half precision kernels round
differently: there another token may be chosen where the plain path's two best lie no further apart
than roundings can move them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from ..models.attention import without_cudnn
from ..models.patches import mtp_head, norms
from ..observer import Observer
from ..prompting.prompt import Prompt
from ..types import Request, Response, Sampling
from . import cuda_graphs
from .active_request import ActiveRequest
from .generic import PlainExecutor, model_inputs
from .loaded_model import LoadedModel
from .logits import Drafts
from .memory_model import MemoryModel
from .scheduler import Scheduler
from .speculative.adaptive import AdaptiveSpeculation

log = logging.getLogger(__name__)

CHECKED_TOKENS = 16
"""Enough for a step to be run, captured and replayed."""

_ROUNDING = 0.5
"""The most that roundings in half precision may move a log-probability: logits of 16 to 32 have
steps of 0.125 in bfloat16, and a few of these come together."""

Problem = str
"""Why a fast path did not agree; empty where it did."""

SCHEDULER, NORMS, GRAPHS, LOOKUP, MTP = (
    "scheduler",
    "fused RMS norms",
    "CUDA graphs",
    "prompt lookup",
    "MTP drafts",
)


def is_needed(loaded: LoadedModel) -> bool:
    """Whether the fast paths of ``loaded`` depend on its device: on a CPU the model's own
    operations are used, which the tests compare."""
    return loaded.device.type == "cuda"


class FastPathCheck:
    """Checks the fast paths of ``loaded``, whose weights are on their device. ``problems``: by the
    name of each path that there is a use for."""

    def __init__(self, loaded: LoadedModel, memory_model: MemoryModel, observer: Observer):
        self._loaded, self._memory_model = loaded, memory_model
        self._observer = _Silent(observer)
        self._prompt = _endless_prompt(loaded)
        self.problems: dict[str, Problem] = {}

    def run(self) -> dict[str, Problem]:
        """``problems``. Paths that did not agree are off when it returns, except the scheduler
        itself, which its caller must not use."""
        with norms.removed(self._loaded.model):
            self._plain = self._answer(PlainExecutor)
        self._check_steps()
        if not self.problems[SCHEDULER]:
            self._check(LOOKUP, self._drafting(self._right_and_wrong))
            if mtp_head.of(self._loaded.model) is not None:
                self._check(MTP, _MTPDrafting)
            turn_off(self._loaded, self.problems)
        return self.problems

    def _check_steps(self) -> None:
        """Decode steps with all that makes them fast; where that does not agree, without each."""
        model = self._loaded.model
        paths = [NORMS] * norms.is_applied(model) + [GRAPHS]
        problem = self._compare(_Stepwise)
        if not problem:
            self.problems = dict.fromkeys([SCHEDULER, *paths], "")
            return
        for blamed in ([GRAPHS], [NORMS], [NORMS, GRAPHS]):
            if not set(blamed) <= set(paths):
                continue
            with self._without(blamed):
                if not self._compare(_Stepwise):
                    clean = dict.fromkeys([SCHEDULER, *paths], "")
                    self.problems = clean | dict.fromkeys(blamed, problem)
                    return
        self.problems = {SCHEDULER: problem}

    def _check(self, name: str, executor: Callable[..., Any]) -> None:
        with self._without([path for path in (NORMS, GRAPHS) if self.problems.get(path)]):
            self.problems[name] = self._compare(executor)

    @contextmanager
    def _without(self, paths: Sequence[str]) -> Iterator[None]:
        """``paths``, of norms and graphs, are off while the block runs."""
        model = self._loaded.model
        without_norms = norms.removed(model) if NORMS in paths else nullcontext()
        without_graphs = cuda_graphs.disabled(model) if GRAPHS in paths else nullcontext()
        with without_norms, without_graphs:
            yield

    def _compare(self, executor: Callable[..., Any]) -> Problem:
        """Why ``executor`` does not agree with the plain one."""
        try:
            fast = self._answer(executor)
        except Exception as error:  # whatever the library, a kernel or a driver raises
            if error is self._observer.error:
                raise
            return f"{type(error).__name__}: {error}"
        return disagreement(self._plain, fast, self._tolerance, self._plain_logprob)

    def _answer(self, executor: Callable[..., Any]) -> Response:
        self._loaded.prefix_cache.clear()
        made = executor(self._loaded, {0: self._prompt}, self._memory_model, self._observer)
        (response,) = made.run().values()
        if response.error:
            raise response.error
        return response

    @property
    def _tolerance(self) -> float:
        return 0.0 if self._loaded.model.dtype == torch.float32 else _ROUNDING

    def _plain_logprob(self, before: Sequence[int], token: int) -> float:
        """The plain path's log-probability of ``token`` behind the answer's tokens ``before``."""
        model, prompt = self._loaded.model, copy.copy(self._prompt)
        prompt.ids = [*prompt.ids, *before]
        with norms.removed(model), without_cudnn(), torch.inference_mode(False), torch.no_grad():
            logits = model(**model_inputs(model, prompt)).logits[0, -1]
        return float(logits.float().log_softmax(-1)[token])

    def _drafting(self, draft: Callable[[ActiveRequest], list[int]]) -> Callable[..., Scheduler]:
        def made(*given: Any) -> Scheduler:
            return _Drafting(*given, draft=draft)

        return made

    def _right_and_wrong(self, active: ActiveRequest) -> list[int]:
        """What the plain path goes on with, and a token that it does not go on with."""
        done, ids = len(active.row.output_ids), self._plain.ids
        right = list(ids[done : done + 2])
        return [*right, (ids[-1] + 1) % 1000][: max(0, active.row.remaining - 1)]


def turn_off(loaded: LoadedModel, problems: dict[str, Problem]) -> None:
    """Turns the paths off that have problems, until the model is loaded again."""
    if problems.get(NORMS):
        norms.remove(loaded.model)
    if problems.get(GRAPHS):
        cuda_graphs.disable(loaded.model)
    if problems.get(LOOKUP):  # drafts of both kinds are verified in one way
        loaded.adaptive_lookup.turn_off()
        loaded.adaptive_forced.turn_off()
    if problems.get(MTP):
        loaded.adaptive_mtp.turn_off()


def disagreement(
    plain: Response,
    fast: Response,
    tolerance: float,
    plain_logprob: Callable[[Sequence[int], int], float],
) -> Problem:
    """Why the tokens of ``fast`` are not as good as those of ``plain``; empty where they are.
    ``tolerance``: how far roundings may move a log-probability, 0 where the tokens must be equal.
    ``plain_logprob(before, token)``: of the plain path."""
    for index, (ours, theirs) in enumerate(zip(fast.tokens, plain.tokens, strict=True)):
        assert ours.logprob is not None and theirs.logprob is not None
        if ours.id == theirs.id:
            moved = abs(ours.logprob - theirs.logprob)
            if tolerance and moved > tolerance:
                return f"token {index + 1} was found {moved:.2g} more or less likely"
            continue
        if not tolerance:
            return f"token {index + 1} was {ours.id} and not {theirs.id}"
        expected = plain_logprob(plain.ids[:index], ours.id)
        moved, gap = abs(ours.logprob - expected), theirs.logprob - expected
        # Each of the two may have been moved, towards the other.
        if moved > tolerance or gap > 2 * tolerance:
            return f"token {index + 1} was {ours.id} and not {theirs.id}, {gap:.2g} more likely"
        return ""  # from here on the answers are different ones
    return ""


class _Stepwise(Scheduler):
    """Decodes step by step."""

    def _may_speculate(self, source: AdaptiveSpeculation) -> bool:
        return False


class _Drafting(Scheduler):
    """Verifies given drafts."""

    def __init__(self, *given: Any, draft: Callable[[ActiveRequest], list[int]]):
        super().__init__(*given)
        self._draft = draft

    def _drafts_on_host(self) -> Drafts:
        if not self._batch.can_verify:
            return []
        return [self._draft(active) if active else [] for active in self._slots]

    def _may_speculate(self, source: AdaptiveSpeculation) -> bool:
        return False


class _MTPDrafting(Scheduler):
    """Verifies the drafts of the MTP head."""

    def _may_speculate(self, source: AdaptiveSpeculation) -> bool:
        return source is self._mtp and self._batch.can_verify and self._batch.has_mtp_draft


class _Silent(Observer):
    """Lets the caller stop a check, and tells it nothing."""

    def __init__(self, caller: Observer):
        self._caller = caller
        self.error: BaseException | None = None  # what the caller raised

    def check(self) -> None:
        try:
            self._caller.check()
        except BaseException as error:
            self.error = error
            raise


def _endless_prompt(loaded: LoadedModel) -> Prompt:
    """About a small picture, where the model sees, with an answer that no end token ends."""
    template = copy.copy(loaded.chat_template)
    template.eos_ids = frozenset()
    side = 4 * loaded.image_processor.factor
    ramp = torch.linspace(0, 255, side).to(torch.uint8).expand(3, side, side)
    request = Request.ask(
        (ramp,) if loaded.family.sees else (),
        "Describe this picture.",
        sampling=Sampling(CHECKED_TOKENS, max_thinking_tokens=CHECKED_TOKENS),
        min_pixels=side**2,
        max_pixels=side**2,
        logprobs=True,
    )
    return Prompt(request, template, loaded.image_processor)

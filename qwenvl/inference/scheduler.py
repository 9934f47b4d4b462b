"""Answering many requests with one model: rows that come and go, fewer where memory runs out."""

from __future__ import annotations

import dataclasses
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..checkpoints.files import readable_size
from ..errors import OutOfMemory
from ..media import image_processor
from ..models.memory import is_out_of_memory
from ..observer import Observer
from ..prompting.prompt import Prompt
from ..types import Response
from . import prefix_cache
from .batch import Batch, NewRow
from .memory_model import MemoryModel, TokenNeed, out_of_memory_error
from .model_runner import ImageInput, ModelRunner, Prefill, stoppable
from .prefetch import Prefetcher
from .sampler import Sampler, checked
from .sequence import Detokenizer, Row
from .speculative import mtp
from .speculative.adaptive import AdaptiveSpeculation
from .speculative.prompt_lookup import PromptLookup
from .speculative.verify import MAX_DRAFT_TOKENS

if TYPE_CHECKING:
    from ..backends.local import LocalBackend

log = logging.getLogger(__name__)

Shown = list[tuple[Hashable, Tensor]]
"""The pictures of a prompt, each with its key in ``seen``."""

_SHARE = 0.9  # of the free memory; the rest is left to others
_FEW = 4  # rows for which guesses are made; with more, a pass has enough to do
_CLAIM = 32_768  # tokens, prompts and answers, that other models leave for; free memory is used too


@dataclass(eq=False)
class ActiveRequest:
    """A request under way."""

    row: Row
    prompt: Prompt
    stream: Detokenizer
    _noted: int = 0

    @cached_property
    def _lookup(self) -> PromptLookup:
        return PromptLookup(self.row.prompt_ids)

    def draft(self) -> list[int]:
        """What it may write next, its last token not included."""
        lookup, ids = self._lookup, self.row.ids
        lookup.extend(ids[self._noted :])
        self._noted = len(ids)
        return lookup.draft()[: max(0, self.row.left - 1)]


class Scheduler:
    """One call of ``generate``: ``prompts`` by the number of their request."""

    def __init__(
        self,
        backend: LocalBackend,
        prompts: dict[int, Prompt],
        costs: MemoryModel,
        observer: Observer,
    ):
        self.backend, self.prompts, self.observer = backend, prompts, observer
        self.costs = costs
        self._answered: dict[int, Response] = {}
        self._waiting = deque(prompts)
        self._running: list[ActiveRequest | None] = []  # by slot; None where a row has left
        self._joining: list[tuple[ActiveRequest, NewRow]] = []  # read, and not yet in a slot
        self._launched: deque[list[ActiveRequest | None]] = deque()  # who took part in each round
        self._reading: int | None = None  # the request whose prompt is being read
        self._worth = self._guessing = backend.adaptive_lookup
        self._foresight = backend.adaptive_mtp
        self._budget = backend.batch_limits
        self._rounds: Any = None
        self.decoder: Any = None
        self._digests: dict[int, bytes] = {}  # by a picture's id: requests hold their pictures
        # A processor that computes has no time to spare.
        threaded = backend.device.type != "cpu"
        self._ahead = Prefetcher(self._prepare, lambda index: prompts[index].nbytes, threaded)

    def responses(self) -> dict[int, Response]:
        """One for each prompt. A request that memory does not suffice for has the error in it."""
        self.observer.check()
        computing = self.backend.computing(self._wish(), self.observer)
        with computing, torch.inference_mode(False), torch.no_grad():
            try:
                self._ahead.want(self._waiting)
                self._begin()
                while self._waiting or self._running:
                    if not self._goes():
                        self._retreat()
            finally:
                # An error's frames may hold this object for long, and it must not hold tensors.
                if self._rounds:
                    self._rounds.end()
                self._rounds = self.decoder = None
                self._running, self._joining = [], []
                self._launched.clear()
                self._ahead.close()
                del self._ahead  # it knows this object
        return self._answered

    def _wish(self) -> int:
        """Bytes for a good many requests: other models may have to leave for them."""
        wish: list[TokenNeed] = []
        for index in self._waiting:
            need = self.prompts[index].need
            wish.append(need)
            longest = max(need.prompt for need in wish) + max(need.answer for need in wish)
            fits = self._budget.admit(wish, self.costs.peak_bytes)
            if len(wish) > 1 and not (fits and len(wish) * longest <= _CLAIM):
                wish.pop()
                break
        return self.costs.peak_bytes(wish) if wish else 0

    def _begin(self) -> None:
        """With all the room there is: what is free counts, wished for or not."""
        backend = self.backend
        model = backend.model
        self.decoder = ModelRunner(
            model, backend.chat_template.image_token_id, backend.image_processor.merge_size
        )
        self._rounds = Batch(self.decoder)
        free = int(min(map(backend.memory.free, backend.weights.shares)) * _SHARE)
        backend.prefix_cache.limit(min(prefix_cache.MOST, free // 4))
        nbytes = free if self._budget.nbytes is None else min(free, self._budget.nbytes)
        self._budget = dataclasses.replace(self._budget, nbytes=nbytes)

    def _goes(self) -> bool:
        """One token for every row, after new rows have joined; False where memory ran out."""
        try:
            self.observer.check()
            self._admit()
            self._step()
        except BaseException as error:
            # Its frames hold tensors for as long as somebody looks at the error.
            traceback.clear_frames(error.__traceback__)
            if not is_out_of_memory(error):
                raise
            if not self._at_once:
                raise
            log.warning("Memory ran out with %d requests at once: %s", self._at_once, error)
            return False
        return True

    @property
    def _at_once(self) -> int:
        return len(self._under_way()) + (self._reading is not None)

    def _open(self) -> list[ActiveRequest]:
        """What is under way in slots."""
        return [running for running in self._running if running is not None]

    def _under_way(self) -> list[ActiveRequest]:
        return [*self._open(), *(running for running, _ in self._joining)]

    def _admit(self) -> None:
        """Reads prompts for as many rows as the budget holds, and gives them slots."""
        if not self._waiting:
            return
        needs = [running.prompt.need for running in self._under_way()]
        while self._waiting:
            needs.append(self.prompts[self._waiting[0]].need)
            if len(needs) > 1 and not self._budget.admit(needs, self.costs.peak_bytes):
                break
            self._reading = self._waiting.popleft()
            self._ahead.want(self._waiting)
            self._check_ram(self._least(self._reading))
            running, start = self._read(self._reading)
            self._take(running, start.token)
            if running.row.finish_reason is None:
                self._joining.append((running, start))
            else:
                needs.pop()
            self._reading = None
        self._seat()

    def _seat(self) -> None:
        """Slots that stand empty first, then new ones. Further empty ones go: they would grow with
        the others."""
        empty = [place for place, running in enumerate(self._running) if running is None]
        if spare := set(empty[len(self._joining) :]):
            self._keep([place for place in range(len(self._running)) if place not in spare])
        for place, running in enumerate(self._running):
            if running is None and self._joining:
                self._running[place], start = self._joining.pop(0)
                self._rounds.replace(place, start)
        if self._joining:
            self._rounds.add([start for _, start in self._joining])
            self._running += [running for running, _ in self._joining]
            self._joining = []

    def _read(self, index: int) -> tuple[ActiveRequest, NewRow]:
        """The model reads a prompt: up to the end of its pictures, where that was not read
        before, and then the words behind them."""
        prompt, decoder = self.prompts[index], self.decoder
        with stoppable(decoder.model, self.observer.check):
            opening = self._opening(index)
            read, position = decoder.read(prompt.ids, prompt.grids, behind=opening)
        row = prompt.row(index)
        choices = Sampler([row], decoder.device, len(read.logits))
        choices.prepare()
        token = int(choices.choose(read.logits[None]))
        reach = prompt.need.prompt + prompt.need.answer + MAX_DRAFT_TOKENS
        running = ActiveRequest(row, prompt, Detokenizer(prompt.chat_template.decode))
        draft = mtp.draft(decoder, prompt.ids, token) if row.is_plain else None
        return running, NewRow(read, choices, token, position, reach, draft)

    def _opening(self, index: int) -> Prefill | None:
        prompt = self.prompts[index]
        if not prompt.opening:
            return None
        key, shown = self._ahead.take(index, self.observer.check)
        kept = self.backend.prefix_cache
        found = kept.get(key, self.decoder.device)
        if found is None:
            pictures = self._pictures(prompt, shown)
            found, _ = self.decoder.read(prompt.ids[: prompt.opening], prompt.grids, pictures)
            kept.put(key, found)
        return found

    def _pictures(self, prompt: Prompt, shown: Shown) -> list[ImageInput]:
        """A prompt's pictures. One that was not looked at before has its patches, and is kept as
        soon as it has been."""
        kept, sight = self.backend.prefix_cache, self.decoder.sight
        pictures: dict[Hashable, ImageInput] = {}
        for (key, image), grid in zip(shown, prompt.grids, strict=True):
            if key in pictures:
                continue
            look, pixels = kept.get(key, self.decoder.device), None
            if look is None:
                pixels = prompt.image_processor.pixel_values(
                    [image], sight.device, sight.dtype, self.observer.check
                )
            pictures[key] = ImageInput(grid, pixels, look, partial(kept.put, key))
        return [pictures[key] for key, _ in shown]

    def _prepare(self, index: int, check: Callable[[], None]) -> tuple[Hashable, Shown]:
        """What can be done for a prompt's pictures before the model's turn: the key of its opening
        in ``seen``, and each picture with its own key, ready to be sent unless it is not needed."""
        prompt, kept = self.prompts[index], self.backend.prefix_cache
        digests = []
        for image in prompt.request.images:
            check()  # a large photograph takes a while
            if id(image) not in self._digests:
                self._digests[id(image)] = prefix_cache.digest(image)
            digests.append(self._digests[id(image)])
        key = prefix_cache.key(prompt.ids[: prompt.opening], digests, prompt.input_sizes)
        shown: Shown = []
        keys = zip(digests, prompt.input_sizes, strict=True)
        for one, image in zip(keys, prompt.request.images, strict=True):
            known = key in kept or one in kept
            shown.append(
                (one, image if known else image_processor.pinned(image, self.backend.device))
            )
        return key, shown

    def _least(self, index: int) -> int:
        """Bytes that a request takes however short its answer is."""
        return self.costs.peak_bytes([dataclasses.replace(self.prompts[index].need, answer=1)])

    def _check_ram(self, nbytes: int) -> None:
        """Nothing is raised where a processor's memory runs out: the kernel ends the process."""
        if not nbytes or self.backend.device.type != "cpu":
            return
        if nbytes > self._free():
            self.backend.prefix_cache.clear()
        if nbytes > (free := self._free()):
            sizes = f"{readable_size(nbytes)} are wanted and {readable_size(free)} free"
            raise MemoryError(f"RAM does not suffice: {sizes}")

    def _free(self) -> int:
        return self.backend.memory.free(self.backend.device)

    def _step(self) -> None:
        """One more round, and note of one that is over."""
        self._close_ranks()
        if not self._running:
            return
        self._check_ram(self._rounds.slots.growth(1 + MAX_DRAFT_TOKENS))
        start = time.perf_counter()
        if self._lookups() or self._may(self._foresight):
            self._note(all_of_them=True)  # what is under way may prove the guesses wrong
        worth, guesses = self._guesses()
        if guesses:
            pairs = list(zip(self._running, self._rounds.check(guesses), strict=True))
            for running, tokens in pairs:
                self._gain(running, tokens)
            counts = [len(tokens) for running, tokens in pairs if running]
            if self._rounds.typical:
                worth.record_verify(time.perf_counter() - start, sum(counts) / len(counts))
            (self._worth if worth is self._foresight else self._foresight).record_skip()
        elif self._running:
            self._rounds.launch()
            self._launched.append(list(self._running))
            self._note()
            for worth in (self._worth, self._foresight):
                if self._rounds.typical:
                    worth.record_decode(time.perf_counter() - start)

    def _note(self, all_of_them: bool = False) -> None:
        while (tokens := self._rounds.collect(all_of_them)) is not None:
            for running, token in zip(self._launched.popleft(), tokens, strict=True):
                self._gain(running, [token])

    def _gain(self, running: ActiveRequest | None, tokens: list[int]) -> None:
        for token in tokens:
            if running is not None and running.row.finish_reason is None:
                self._take(running, token)

    def _guesses(self) -> tuple[AdaptiveSpeculation, list[list[int]]]:
        """For each slot what its row may write next, and what tells whether such guesses pay;
        nothing where they would not."""
        if guesses := self._lookups():
            self._guessing = self._worth
        elif self._may(self._foresight):
            self._guessing, guesses = self._foresight, self._rounds.foresee()
        elif self._rounds.owes:
            guesses = [[] for _ in self._running]
        return self._guessing, guesses

    def _lookups(self) -> list[list[int]]:
        if not self._may(self._worth):
            return []
        guesses = [running.draft() if running else [] for running in self._running]
        return guesses if any(guesses) else []

    def _may(self, worth: AdaptiveSpeculation) -> bool:
        """Whether guesses of a kind can be checked now, and pay as far as is known."""
        open_rows = self._open()
        return (
            worth.pays
            and 0 < len(open_rows) <= _FEW
            and self._rounds.can_check
            and (worth is not self._foresight or self._rounds.foresees)
            and all(running.row.is_plain for running in open_rows)
        )

    def _close_ranks(self) -> None:
        """Empty slots cost time: where nobody waits for them, the others move together."""
        empty = sum(running is None for running in self._running)
        if empty > self._rounds.pace.idle * len(self._running):
            self._keep([place for place, running in enumerate(self._running) if running])

    def _keep(self, places: list[int]) -> None:
        if not places:
            self._start_over()
            return
        self._rounds.keep(places)
        self._running = [self._running[place] for place in places]

    def _start_over(self) -> None:
        self._running, self._joining = [], []
        self._launched.clear()
        self._rounds.clear()

    def _take(self, running: ActiveRequest, token: int) -> None:
        """Notes what a row wrote; one that is finished leaves its slot."""
        checked([token])
        row = running.row
        row.accept(token)
        place = self._running.index(running) if running in self._running else None
        if row.finish_reason is None:
            self.observer.token(row.index, running.stream.grow(row.ids))
            if row.circling and row.thinking and place is not None:
                self._rounds.end_thought(place)
            return
        if place is not None:
            self._running[place] = None
            self._rounds.leave(place)
        self._done(row.index, self.backend.response(row, running.prompt))

    def _done(self, index: int, response: Response) -> None:
        self._answered[index] = response
        self.observer.done(index, response)

    def _retreat(self) -> None:
        """After memory ran out: what is under way begins anew, half as many at once; one that was
        alone is shown smaller, or given up."""
        count = self._at_once
        left = sorted(running.row.index for running in self._under_way())
        if self._reading is not None:
            left.append(self._reading)
        self._reading = None
        self._start_over()
        self.backend.prefix_cache.clear()
        self.backend.recover_memory()
        for index in left:
            self.observer.restart(index)
        if count > 1:
            self._budget = dataclasses.replace(self._budget, rows=(count + 1) // 2)
        else:
            left = [index for index in left if self._shrinks(index)]
        self._waiting.extendleft(reversed(left))

    def _shrinks(self, index: int) -> bool:
        """Whether a request that did not fit alone can be asked again with fewer pixels."""
        smaller = self.prompts[index].shrunk()
        if smaller is None:
            self._done(index, Response("", finish_reason="error", error=self._advice(index)))
            return False
        self.prompts[index] = smaller
        return True

    def _advice(self, index: int) -> OutOfMemory:
        backend = self.backend
        free = self._free()
        factor = backend.family.patch_factor
        return out_of_memory_error(self.prompts[index].need, self.costs, free, factor)

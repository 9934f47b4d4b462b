"""Prefill: runs the prompts of waiting requests, behind cached prefixes and vision features.

While the model computes on a device, a thread of its own hashes and transfers the pictures of the
requests that come next.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import compress

from torch import Tensor

from ..media.image_processor import pinned
from ..media.spans import Span
from ..observer import Observer
from ..prompting.prompt import Prompt, pixels_of
from ..types import Audio, Image, Video
from . import prefix_cache
from .active_request import ActiveRequest
from .batch import NewRow
from .detokenizer import Detokenizer
from .loaded_model import LoadedModel
from .logits import is_greedy
from .model_runner import ModelRunner, Prefill, interruptible
from .prefetch import Prefetcher
from .sampler import Sampler
from .sequence import SampledToken, new_row
from .speculative import mtp
from .speculative.verify import MAX_DRAFT_TOKENS
from .vision_encoder import MediaInput, VisionFeatures

KeyedMedia = list[tuple[Hashable, Image | Video | Audio]]
"""The media of a prompt, each with its key in the prefix cache."""


class Prefiller:
    """Prefills ``prompts``, by the index of their request. To be closed by whoever made it."""

    def __init__(
        self,
        loaded: LoadedModel,
        runner: ModelRunner,
        prompts: Mapping[int, Prompt],
        observer: Observer,
    ):
        self._runner, self._prompts, self._observer = runner, prompts, observer
        self._cache, self._device = loaded.prefix_cache, loaded.device
        self._digests: dict[int, bytes] = {}  # by the id of a tensor: requests hold theirs
        self._reused: dict[int, int] = {}  # tokens of each prompt that were in the prefix cache
        # A CPU that computes has no time to spare.
        threaded = loaded.device.type != "cpu"
        self._prefetcher = Prefetcher(self._prepare, lambda i: prompts[i].nbytes, threaded)

    def close(self) -> None:
        self._prefetcher.close()
        del self._prefetcher  # it knows this object

    def schedule(self, indices: Iterable[int]) -> None:
        """The prompts at ``indices`` come next, in this order: their media are prepared."""
        self._prefetcher.schedule(indices)

    def forget(self, index: int) -> None:
        """The request at ``index``, whose prompt is still there, is answered."""
        for medium in self._prompts[index].request.media:
            self._digests.pop(id(pixels_of(medium)), None)
        self._reused.pop(index, None)

    def prefill(self, index: int) -> tuple[ActiveRequest, NewRow]:
        """Runs a prompt, and samples the first token."""
        prompt, runner = self._prompts[index], self._runner
        prefill, position = self.read(index)
        row = new_row(prompt, index)
        sampler = Sampler([row], runner.device, len(prefill.logits))
        sampler.prepare()
        tokens, logprobs = sampler.sample(prefill.logits[None])
        token = SampledToken(int(tokens), None if logprobs is None else float(logprobs))
        sampler.accept(0, token.id)
        max_length = len(prompt.ids) + row.max_output + MAX_DRAFT_TOKENS
        detokenizer = Detokenizer(prompt.chat_template.decode)
        active = ActiveRequest(row, prompt, detokenizer, self._reused[index])
        draft = mtp.new_draft(runner, prompt.ids, token.id) if is_greedy(row) else None
        return active, NewRow(prefill, sampler, token, position, max_length, draft)

    def read(self, index: int) -> tuple[Prefill, float]:
        """Runs a prompt behind its longest cached prefix, and caches the prefixes of it that other
        prompts may share. Gives also the M-RoPE position of the next token."""
        prompt, runner = self._prompts[index], self._runner
        with interruptible(runner.model, self._observer.check):
            keyed_media = self._prefetcher.take(index, self._observer.check)
            keys = [key for key, _ in keyed_media]
            prefix = self._cached_prefix(prompt, keys)
            start, whole = prefix.length if prefix else 0, len(prompt.ids)
            self._reused[index] = start
            shared = [length for length in _boundaries(prompt) if length > start]
            if not runner.can_cut:  # a pass of its own for each prefix
                for length in shared:
                    prefix, _ = self._run(prompt, keyed_media, length, prefix)
                    self._store(prompt, keys, prefix)
                return self._run(prompt, keyed_media, whole, prefix)
            prefill, position = self._run(prompt, keyed_media, whole, prefix)
            for length in shared:
                # A copy that the cache would refuse is not made: a long video's is gigabytes.
                if prefill.nbytes * length <= self._cache.max_bytes * prefill.length:
                    self._store(prompt, keys, prefill.beginning(length))
            return prefill, position

    def _run(
        self, prompt: Prompt, keyed_media: KeyedMedia, length: int, prefix: Prefill | None
    ) -> tuple[Prefill, float]:
        """Runs the tokens of ``prompt`` from the end of ``prefix`` up to ``length``."""
        start = prefix.length if prefix else 0
        media = self._inputs(
            prompt, keyed_media, [start < end <= length for end in prompt.image_ends]
        )
        return self._runner.prefill(prompt.ids[:length], prompt.spans, media, prefix)

    def _store(self, prompt: Prompt, keys: Sequence[Hashable], prefix: Prefill) -> None:
        key = prefix_cache.prefix_key(prompt.ids, prefix.length, keys, prompt.image_ends)
        self._cache.put(key, prefix)

    def _cached_prefix(self, prompt: Prompt, keys: Sequence[Hashable]) -> Prefill | None:
        """The longest cached beginning of ``prompt``, None where there is none."""
        found = self._cache.longest(prompt.ids, keys, prompt.image_ends)
        return self._cache.get(found, self._runner.device) if found else None

    def store_answer(self, active: ActiveRequest, answered: Prefill) -> None:
        """Caches a conversation up to ``answered``, the end of the answer of ``active``."""
        prompt, row = active.prompt, active.row
        ids = [*prompt.ids, *row.output_ids, *row.end_ids]
        if answered.length <= len(ids):
            keys = self._keys(prompt)
            key = prefix_cache.prefix_key(ids, answered.length, keys, prompt.image_ends)
            self._cache.put(key, answered)

    def _inputs(
        self, prompt: Prompt, keyed_media: KeyedMedia, wanted: Sequence[bool]
    ) -> list[MediaInput]:
        """A prompt's media that are ``wanted``. One without cached features has its patches, and
        its features are cached as soon as they are encoded."""
        if not any(wanted):  # a model that reads text only has no vision tower to ask
            return []
        cache, weight = self._cache, self._runner.vision_weight
        inputs: dict[Hashable, MediaInput] = {}
        given = list(compress(zip(keyed_media, prompt.spans, strict=True), wanted))
        for (key, medium), span in given:
            if key in inputs:
                continue
            features: VisionFeatures | None = cache.get(key, self._runner.device)
            # Patches are made one part after the other, when the tower is ready for them.
            patches = (
                _patches(prompt, medium, span, weight, self._observer.check)
                if features is None
                else ()
            )
            put = partial(cache.put, key)
            inputs[key] = MediaInput(span.kind, span.grid, patches, features, put)
        return [inputs[key] for (key, _), _ in given]

    def _prepare(self, index: int, check: Callable[[], None]) -> KeyedMedia:
        """What can be done for a prompt before the model's turn: each medium with its key, pictures
        in pinned memory unless they are not needed."""
        prompt = self._prompts[index]
        keys = self._keys(prompt, check)
        found = self._cache.longest(prompt.ids, keys, prompt.image_ends)
        seen = len(found.ids) if found else 0
        return [
            (key, medium if end <= seen or key in self._cache else self._pinned(medium))
            for key, medium, end in zip(keys, prompt.request.media, prompt.image_ends, strict=True)
        ]

    def _pinned(self, medium: Image | Video | Audio) -> Image | Video | Audio:
        # A video's frames are too many to lie in pinned memory.
        if isinstance(medium, Image):
            return Image(pinned(medium.pixels, self._device))
        return medium

    def _keys(self, prompt: Prompt, check: Callable[[], None] = lambda: None) -> list[Hashable]:
        keys: list[Hashable] = []
        for medium, span in zip(prompt.request.media, prompt.spans, strict=True):
            check()  # a large photograph takes a while
            pixels = pixels_of(medium)
            digest = self._digests.get(id(pixels))
            if digest is None:
                digest = self._digests[id(pixels)] = prefix_cache.image_digest(pixels)
            # Times of a video can be in positions, which tokens do not show.
            keys.append((digest, span.input_size, span.steps))
        return keys


def _patches(
    prompt: Prompt,
    medium: Image | Video | Audio,
    span: Span,
    weight: Tensor,
    check: Callable[[], None],
) -> Iterator[tuple[Tensor, tuple[int, int, int]]]:
    """Patches of a medium, or features of a sound, in parts, each with its grid."""
    if isinstance(medium, Audio):
        assert prompt.audio_processor is not None
        mels = prompt.audio_processor.features(medium, check)
        for part in prompt.audio_processor.parts(mels):
            check()
            yield part.to(weight.device, weight.dtype), (1, 1, part.shape[1])
    if isinstance(medium, Video):
        assert prompt.video_processor is not None
        yield from prompt.video_processor.pixel_values(medium, weight.device, weight.dtype, check)
    elif isinstance(medium, Image):
        yield (
            prompt.image_processor.pixel_values(
                [medium.pixels], weight.device, weight.dtype, check
            ),
            span.grid,
        )


def _boundaries(prompt: Prompt) -> list[int]:
    """Lengths of the prefixes of ``prompt`` that other prompts may share."""
    ends = [prompt.image_prefix]
    if prompt.request.continues:
        ends.append(prompt.last_message_end or 0)
    return [end for end in sorted(set(ends)) if end]

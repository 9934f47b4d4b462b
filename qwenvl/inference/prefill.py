"""Prefill: runs the prompts of waiting requests, behind cached prefixes and vision features.

While the model computes on a device, a thread of its own hashes and transfers the images of the
requests that come next.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial

from torch import Tensor

from ..media.image_processor import pinned
from ..observer import Observer
from ..prompting.prompt import Prompt
from . import prefix_cache
from .active_request import ActiveRequest
from .batch import NewRow
from .detokenizer import Detokenizer
from .loaded_model import LoadedModel
from .logits import can_verify
from .model_runner import ModelRunner, Prefill, interruptible
from .prefetch import Prefetcher
from .sampler import Sampler
from .sequence import SampledToken, new_row
from .speculative import mtp
from .speculative.verify import MAX_DRAFT_TOKENS
from .vision_encoder import ImageInput

KeyedImages = list[tuple[Hashable, Tensor]]
"""The images of a prompt, each with its key in the prefix cache."""


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
        self._digests: dict[int, bytes] = {}  # by the id of an image: requests hold their images
        # A CPU that computes has no time to spare.
        threaded = loaded.device.type != "cpu"
        self._prefetcher = Prefetcher(self._prepare, lambda i: prompts[i].nbytes, threaded)

    def close(self) -> None:
        self._prefetcher.close()
        del self._prefetcher  # it knows this object

    def schedule(self, indices: Iterable[int]) -> None:
        """The prompts at ``indices`` come next, in this order: their images are prepared."""
        self._prefetcher.schedule(indices)

    def prefill(self, index: int) -> tuple[ActiveRequest, NewRow]:
        """Runs a prompt: up to the end of its images unless that prefix is cached, then the text
        behind them, and samples the first token."""
        prompt, runner = self._prompts[index], self._runner
        with interruptible(runner.model, self._observer.check):
            prefix = self._image_prefix(index)
            prefill, position = runner.prefill(prompt.ids, prompt.spans, prefix=prefix)
        row = new_row(prompt, index)
        sampler = Sampler([row], runner.device, len(prefill.logits))
        sampler.prepare()
        tokens, logprobs = sampler.sample(prefill.logits[None])
        token = SampledToken(int(tokens), None if logprobs is None else float(logprobs))
        sampler.accept(0, token.id)
        max_length = len(prompt.ids) + row.max_output + MAX_DRAFT_TOKENS
        active = ActiveRequest(row, prompt, Detokenizer(prompt.chat_template.decode))
        draft = mtp.new_draft(runner, prompt.ids, token.id) if can_verify(row) else None
        return active, NewRow(prefill, sampler, token, position, max_length, draft)

    def _image_prefix(self, index: int) -> Prefill | None:
        """The prefix that ends with the prompt's last image; None without images."""
        prompt = self._prompts[index]
        if not prompt.image_prefix:
            return None
        key, keyed_images = self._prefetcher.take(index, self._observer.check)
        prefix = self._cache.get(key, self._runner.device)
        if prefix is None:
            images = self._image_inputs(prompt, keyed_images)
            ids = prompt.ids[: prompt.image_prefix]
            prefix, _ = self._runner.prefill(ids, prompt.spans, images)
            self._cache.put(key, prefix)
        return prefix

    def _image_inputs(self, prompt: Prompt, keyed_images: KeyedImages) -> list[ImageInput]:
        """A prompt's images. One without cached features has its patches, and its features are
        cached as soon as they are encoded."""
        cache, weight = self._cache, self._runner.vision_weight
        inputs: dict[Hashable, ImageInput] = {}
        for (key, image), span in zip(keyed_images, prompt.spans, strict=True):
            if key in inputs:
                continue
            features, pixel_values = cache.get(key, self._runner.device), None
            if features is None:
                pixel_values = prompt.image_processor.pixel_values(
                    [image], weight.device, weight.dtype, self._observer.check
                )
            inputs[key] = ImageInput(span.grid, pixel_values, features, partial(cache.put, key))
        return [inputs[key] for key, _ in keyed_images]

    def _prepare(self, index: int, check: Callable[[], None]) -> tuple[Hashable, KeyedImages]:
        """What can be done for a prompt before the model's turn: the cache key of its image prefix,
        and each image with its own key, in pinned memory unless it is not needed."""
        prompt = self._prompts[index]
        digests = []
        for image in prompt.request.images:
            check()  # a large photograph takes a while
            if id(image) not in self._digests:
                self._digests[id(image)] = prefix_cache.image_digest(image)
            digests.append(self._digests[id(image)])
        ids = prompt.ids[: prompt.image_prefix]
        prefix_key = prefix_cache.prefix_key(ids, digests, prompt.input_sizes)
        keyed_images: KeyedImages = []
        keys = zip(digests, prompt.input_sizes, strict=True)
        for key, image in zip(keys, prompt.request.images, strict=True):
            cached = prefix_key in self._cache or key in self._cache
            keyed_images.append((key, image if cached else pinned(image, self._device)))
        return prefix_key, keyed_images

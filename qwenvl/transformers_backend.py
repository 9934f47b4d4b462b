"""Runs checkpoints through transformers, which is imported only when a model is loaded."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import checkpoints
from .backend import Watch
from .errors import IncompleteCheckpoint, QwenVLError
from .families import family_of, is_default
from .generation import Batch, Budget, Row, TextStream, check_sampling, plan
from .images import Preprocessing
from .loading import check_runnable, load_model
from .messages import OPEN_THOUGHT, Template
from .replies import split_thinking
from .shards import settings
from .types import Family, ModelSpec, Request, Response, Usage

log = logging.getLogger(__name__)


def load(spec: ModelSpec) -> TransformersBackend:
    """Loads the checkpoint of ``spec``.

    Raises ``CheckpointError`` (missing, incomplete, unsupported, or needing remote code) and
    ``Unavailable`` (an explicit precision, quantization, attention or device this machine lacks).
    """
    path = Path(spec.checkpoint)
    checkpoints.require_complete(path)
    family = family_of(settings(path, "config.json"))
    if is_default(family):
        log.warning("%s: unknown model_type %r. %s", path.name, family.model_type, family.notes)
    check_runnable(path, spec, family)
    # Small files first: what is wrong with them should not be told after minutes of loading.
    template = Template.load(path, family, spec.trust_remote_code)
    rule = preprocessing(path)
    # Nothing made here may be an inference tensor: ComfyUI runs nodes inside inference mode, and
    # such weights could never be used outside it again.
    with torch.inference_mode(False), torch.no_grad():
        model = load_model(path, spec, family)
    return TransformersBackend(model, template, family, rule)


def preprocessing(path: Path) -> Preprocessing:
    """How the checkpoint in ``path`` wants its pictures. Newer files keep it inside
    ``processor_config.json``. Raises ``IncompleteCheckpoint`` where neither file says it."""
    name = "preprocessor_config.json"
    if (path / name).is_file():
        found: Any = settings(path, name)
    else:
        name = "processor_config.json"
        found = settings(path, name).get("image_processor")
    try:
        return Preprocessing.from_config(found)
    except (AttributeError, TypeError, ValueError) as error:
        raise IncompleteCheckpoint(
            f"{name} of {path.name} does not say how pictures are prepared ({error}). Download it "
            "again; only what is missing or damaged is fetched.",
            (name,),
        ) from error


class TransformersBackend:
    """One loaded model. Calls queue behind a lock; see ``backend.Backend``."""

    def __init__(
        self,
        model: Any,
        template: Template,
        family: Family,
        preprocessing: Preprocessing,
        budget: Budget | None = None,
    ):
        self.model = model
        self.template = template
        self.family = family
        self.preprocessing = preprocessing
        self.budget = budget or Budget()
        self._lock = threading.Lock()
        # Which inputs a model takes differs between families and transformers releases.
        self._accepted = frozenset(inspect.signature(model.forward).parameters)

    @property
    def nbytes(self) -> int:
        if self.model is None:
            return 0
        tensors: Iterable[Tensor] = (*self.model.parameters(), *self.model.buffers())
        return sum({t.data_ptr(): t.nbytes for t in tensors}.values())

    @property
    def max_pixels(self) -> int:
        return self.preprocessing.max_pixels

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def close(self) -> None:
        with self._lock:
            self.model = None

    def thinks(self, wish: bool | None = None) -> bool:
        """Whether an answer will begin with a thought, given the caller's wish. Raises
        ``BadOption`` where the model cannot do as wished."""
        return self.template.thinks(wish)

    def generate(self, requests: Sequence[Request], watch: Watch | None = None) -> list[Response]:
        """See ``backend.Backend.generate``. Raises ``BadOption`` and ``BadImage`` before any
        work is done."""
        watch = watch or Watch()
        for request in requests:
            check_sampling(request.sampling)
        prompts = [_Prompt(request, self) for request in requests]
        rows = [prompt.row(index) for index, prompt in enumerate(prompts)]
        watch.start([len(prompt.ids) for prompt in prompts], [row.longest for row in rows])
        responses: dict[int, Response] = {}
        batches = plan(
            [len(prompt.ids) for prompt in prompts], [row.longest for row in rows], self.budget
        )
        for batch in batches:
            watch.check()
            with self._lock, torch.inference_mode(False), torch.no_grad():
                if self.model is None:
                    raise QwenVLError("This model was unloaded while requests were waiting.")
                self._run([rows[i] for i in batch], [prompts[i] for i in batch], watch, responses)
        return [responses[index] for index in range(len(requests))]

    def _run(
        self,
        rows: list[Row],
        prompts: list[_Prompt],
        watch: Watch,
        responses: dict[int, Response],
    ) -> None:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        inputs = self._inputs(prompts)
        batch = Batch(rows, watch, [TextStream(self.template.decode) for _ in rows])

        def choose(_ids: Tensor, scores: Tensor) -> Tensor:
            return batch.choose(scores)

        def stop(ids: Tensor, _scores: Tensor, **_: Any) -> Tensor:
            done = batch.advance()
            for row, prompt in zip(rows, prompts, strict=True):
                if row.finish_reason and row.index not in responses:
                    responses[row.index] = self._response(row, prompt)
                    watch.done(row.index, responses[row.index])
            return torch.tensor(done, device=ids.device)

        owner = getattr(self.model, "model", self.model)
        if hasattr(owner, "rope_deltas"):
            owner.rope_deltas = None  # left over from the last batch, and wrong for this one
        self.model.generate(
            **inputs,
            max_new_tokens=max(row.longest for row in rows) + 1,
            do_sample=False,
            eos_token_id=sorted(self.template.eos_ids),
            pad_token_id=self.template.pad_id,
            logits_processor=LogitsProcessorList([choose]),
            stopping_criteria=StoppingCriteriaList([stop]),
        )

    def _inputs(self, prompts: list[_Prompt]) -> dict[str, Tensor]:
        width = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), width), self.template.pad_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[row, width - len(prompt.ids) :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask}
        if "mm_token_type_ids" in self._accepted:
            inputs["mm_token_type_ids"] = (ids == self.template.image_id).long()
        # Prepared batch by batch, so that a thousand pictures need the memory of one batch.
        pixels = [p.preprocessing.patches(image) for p in prompts for image in p.request.images]
        if pixels:
            inputs["pixel_values"] = torch.cat([rows for rows, _ in pixels])
            inputs["image_grid_thw"] = torch.tensor([grid for _, grid in pixels])
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def _response(self, row: Row, prompt: _Prompt) -> Response:
        close = self.template.close_ids
        cut = row.thought if prompt.thinking else 0
        thought, answer = row.ids[:cut], row.ids[cut:]
        if cut and tuple(thought[-len(close) :]) == close:
            thought = thought[: -len(close)]
        thinking, text = self.template.decode(thought).strip(), self.template.decode(answer).strip()
        if text.startswith(OPEN_THOUGHT):  # as some fine-tunes do of their own accord
            thinking, text = split_thinking(text)
        return Response(
            text=text,
            thinking=thinking,
            finish_reason=row.finish_reason or "length",
            input_sizes=prompt.input_sizes,
            usage=Usage(len(prompt.ids), sum(prompt.image_tokens), len(row.ids)),
        )


class _Prompt:
    """A request made into tokens, its pictures still pictures."""

    def __init__(self, request: Request, backend: TransformersBackend):
        self.request = request
        self.preprocessing = backend.preprocessing.bounded(request.min_pixels, request.max_pixels)
        self.image_tokens = [self.preprocessing.tokens(image) for image in request.images]
        self.input_sizes = tuple(self.preprocessing.input_size(i) for i in request.images)
        self.template = backend.template
        self.thinking = backend.thinks(request.thinking)
        self.ids = self.template.encode(request, self.image_tokens)

    def row(self, index: int) -> Row:
        image_id = self.template.image_id
        return Row(
            index=index,
            sampling=self.request.sampling,
            prompt_ids=[token for token in self.ids if token != image_id],
            eos_ids=self.template.eos_ids,
            close_ids=self.template.close_ids,
            thinking=self.thinking,
        )

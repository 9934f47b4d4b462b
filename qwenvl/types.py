"""The values that travel from a question to an answer.

Everything here is a frozen dataclass of plain values, so it can be compared, hashed (where it
holds no picture), logged and stored. Standard library only: tasks and parsers are usable
without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .errors import BadOption, QwenVLError
from .unicode import well_formed

Size = tuple[int, int]
"""Height and width in pixels, in this order, as everywhere in the engine."""

CoordinateSpace = Literal["relative", "absolute"]
"""``relative``: 0-1000 of the picture's width and height. ``absolute``: pixels of the resized
picture that the model saw."""

FinishReason = Literal["stop", "length", "repetition", "error"]
"""``stop``: the model ended its answer. ``length``: ``max_new_tokens`` was reached.
``repetition``: the answer fell into a loop, was cut, and one period of the loop was kept.
``error``: there is no answer."""


THINKING_TOKENS = 4096
"""Room for a thought where the caller set none."""


@dataclass(frozen=True)
class LocalSpec:
    """Which weights, loaded how. The whole key of the model cache: equal specs are one model.

    ``checkpoint`` is a folder that holds ``config.json``. ``precision``: ``auto``, ``bf16``,
    ``fp16``, ``fp32``. ``quantization``: ``none``, ``8bit``, ``4bit`` (bitsandbytes).
    ``attention``: ``auto`` or one of transformers' ``attn_implementation`` names. ``device``:
    ``auto``, a torch device such as ``cuda:1``, or ``split``: all CUDA devices, each with a part
    of the model. ``trust_remote_code`` runs Python that comes with the checkpoint; it is off
    unless the user asked for it by name.
    """

    checkpoint: str
    precision: str = "auto"
    quantization: str = "none"
    attention: str = "auto"
    device: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 is greedy: the likeliest token, no chance.

    ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 switch those filters off. ``repetition_penalty`` 1
    and ``presence_penalty`` 0 change nothing. ``presence_penalty`` is subtracted once from the
    logit of every token already written (the OpenAI definition). ``max_thinking_tokens`` bounds
    the thought of a thinking model, apart from the answer (None: 4096).
    Equal ``seed`` gives equal text, whatever else is in the batch; in half precision rounding may,
    rarely, still tip a choice when the batch around a request changes.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    seed: int = 0
    max_thinking_tokens: int | None = None

    def validate(self) -> None:
        """Raises ``BadOption`` for a value outside its range, naming the range."""
        for name, (low, high) in _SAMPLING_RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise BadOption(f"{name} is {value}; it may be {low:g} to {high:g}.")
        if self.max_thinking_tokens is not None and self.max_thinking_tokens < 0:
            raise BadOption(f"max_thinking_tokens is {self.max_thinking_tokens}; use 0 or more.")


_SAMPLING_RANGES: dict[str, tuple[float, float]] = {
    "max_new_tokens": (1, 1_000_000),
    "temperature": (0, 10),
    "top_p": (0, 1),
    "top_k": (0, 1_000_000),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
    "presence_penalty": (-2, 2),
}


@dataclass(frozen=True)
class Turn:
    """One earlier message of a conversation; ``role`` is ``user`` or ``assistant``."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, eq=False)
class Request:
    """Everything that decides one answer.

    ``images``: uint8 RGB tensors ``[3, H, W]`` (see ``images.pictures``), shown before the first
    words so that questions about one picture share a prefix. ``min_pixels``/``max_pixels``
    bound the area of each resized picture; None keeps the checkpoint's own bound.
    ``thinking``: True or False asks a switchable model to think or not, None leaves its default.
    ``may_shrink`` allows to show the pictures with ever fewer pixels where memory does not suffice.
    """

    images: tuple[Any, ...] = ()
    prompt: str = ""
    system: str = ""
    history: tuple[Turn, ...] = ()
    sampling: Sampling = Sampling()
    min_pixels: int | None = None
    max_pixels: int | None = None
    thinking: bool | None = None
    may_shrink: bool = False


@dataclass(frozen=True)
class Usage:
    """Token counts of one request."""

    prompt_tokens: int = 0
    image_tokens: int = 0
    new_tokens: int = 0


@dataclass(frozen=True)
class Response:
    """What a model wrote. ``input_sizes``: the size the model saw of each picture of the request,
    which some families' boxes are in. ``error``: why there is no answer to this one request, while
    others of its batch were answered. ``notes``: what a person should know of how it ended."""

    text: str
    thinking: str = ""
    finish_reason: FinishReason = "stop"
    input_sizes: tuple[Size, ...] = ()
    usage: Usage = Usage()
    error: QwenVLError | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the original picture, x to the right and y down, inside the
    picture, ``x1 < x2`` and ``y1 < y2``. ``score`` is None unless one was really computed.
    ``label`` can be drawn and saved whatever it was made of (see ``unicode.well_formed``)."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str = ""
    score: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", well_formed(self.label))


@dataclass(frozen=True)
class Point:
    """A place in pixels of the original picture, inside the picture."""

    x: float
    y: float
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", well_formed(self.label))


@dataclass(frozen=True)
class Result:
    """One answer, read. ``text`` is what a person wants to see; ``data`` what a program wants
    (parsed JSON, document blocks, ...). No boxes means that nothing was found; a reply that
    could not be read raises ``errors.UnreadableReply`` instead. ``error`` is set only where a
    caller asked to go on past unreadable replies (``run.answer``); ``text`` is then the raw
    reply. ``notes``: what a person should know of this answer, a sentence each (it was cut at
    ``max_new_tokens``; boxes reached outside the picture)."""

    text: str
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    data: Any = None
    thinking: str = ""
    finish_reason: FinishReason = "stop"
    error: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """What the engine must know of one ``model_type`` and cannot read from its files.

    ``model_type`` as in ``config.json``. ``coordinates``: the space of boxes in replies.
    ``patch_factor``: side in pixels of what becomes one token (patch times merge).
    ``transformers_class``: None lets ``AutoModelForImageTextToText`` choose.
    ``since``: the first transformers release that has the class. ``sampling`` and
    ``thinking_sampling``: the makers' values for free text about pictures. Whether a checkpoint
    thinks is its chat template's word, not the family's.
    """

    model_type: str
    title: str
    coordinates: CoordinateSpace
    patch_factor: int
    since: str
    sampling: Sampling
    thinking_sampling: Sampling
    transformers_class: str | None = None
    image_token: str = "<|image_pad|>"
    vision_start: str = "<|vision_start|>"
    vision_end: str = "<|vision_end|>"
    notes: str = ""


@dataclass(frozen=True)
class ReplyContext:
    """What a reply's reader must know of the picture: the family that answered, the original
    ``image_size`` and the ``input_size`` the model saw, both (height, width) in pixels. ``cut``:
    the reply is known to have been cut off (``finish_reason`` other than stop)."""

    family: Family
    image_size: Size
    input_size: Size
    cut: bool = False


@dataclass(frozen=True)
class Task:
    """A kind of question: the words to ask, and how to read the reply.

    ``parse(text, context)`` turns a reply's text (thinking already split off) into a ``Result`` and
    raises ``errors.UnreadableReply``. ``greedy`` tasks need the likeliest answer (reading,
    finding); others use the family's own sampling. ``max_new_tokens`` is the task's default.
    """

    name: str
    prompt: str
    parse: Callable[[str, ReplyContext], Result]
    system: str = ""
    greedy: bool = False
    max_new_tokens: int = 1024

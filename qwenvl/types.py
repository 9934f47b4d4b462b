"""Value types of the engine: specs, sampling, requests, responses, boxes, results, families, tasks.

Frozen dataclasses of plain values, which can be compared, hashed (unless they hold pictures),
logged and stored. Standard library only: tasks and reply parsers work without torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import BadOption, QwenVLError
from .unicode import well_formed

Size = tuple[int, int]
"""Height and width in pixels, in this order, as everywhere in the engine."""

CoordinateSpace = Literal["relative", "absolute"]
"""``relative``: 0 to ``Family.box_scale``, 1000 as a rule, of the picture's width and height.
``absolute``: pixels of the resized picture, the model's input."""

Place = Literal["disk", "ram", "device"]
"""Where weights are: only on disk, in RAM, or on the device that computes."""

FinishReason = Literal["stop", "length", "repetition", "error"]
"""``stop``: the model ended its answer. ``length``: ``max_new_tokens`` was reached.
``repetition``: the answer fell into a loop and was cut, with one period of the loop kept.
``error``: there is no answer."""


THINKING_TOKENS = 4096
"""Default limit of thinking tokens."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that is put on a local model. ``path``: its folder, which holds
    ``adapter_config.json``. ``strength``: the factor of what it changes; 1 as it was trained, 0
    off, below 0 away from it."""

    path: str
    strength: float = 1.0


@dataclass(frozen=True)
class LocalSpec:
    """A local model: which checkpoint, loaded how. The key of the model cache: specs that differ in
    ``adapters`` alone are one loaded model, whose adapters are switched.

    ``checkpoint`` is a folder that holds ``config.json``. ``precision``: ``auto``, ``bf16``,
    ``fp16``, ``fp32``. ``quantization``: ``none``, ``8bit``, ``4bit`` (bitsandbytes).
    ``attention``: ``auto`` or one of transformers' ``attn_implementation`` names. ``device``:
    ``auto``, a torch device such as ``cuda:1``, or ``split``: all CUDA devices, each with a part
    of the model. ``trust_remote_code`` runs Python code that comes with the checkpoint; off unless
    the user turned it on. ``optimize``: ``auto``, or ``off`` for transformers' own ``generate`` on
    the model as it comes. ``yarn``: the factor by which YaRN stretches the model's context (see
    ``Family.yarn``); 1 leaves it as it is. ``adapters`` are on it all at once.
    """

    checkpoint: str
    precision: str = "auto"
    quantization: str = "none"
    attention: str = "auto"
    device: str = "auto"
    trust_remote_code: bool = False
    optimize: str = "auto"
    yarn: float = 1.0
    adapters: tuple[Adapter, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the checkpoint's path: some fine-tunes are known by it."""
        return os.path.basename(os.path.normpath(self.checkpoint))


PICTURE_FORMATS = ("png", "jpeg")


@dataclass(frozen=True)
class ServerSpec:
    """A model behind servers that speak the OpenAI protocol. The key of the model cache, as
    ``LocalSpec``.

    ``urls``: base addresses that paths such as ``/chat/completions`` are appended to, usually
    ending in ``/v1``, slashes at their ends dropped; several are replicas of one server. A string
    is one or more of them, with blanks or commas between. ``model``: what the server calls it;
    empty: the only one that it lists. ``family``: the model's ``model_type``; empty: told by its
    name, or refused. ``kind``: of the server, one of ``servers.kinds``; ``auto``: found out.
    ``concurrency``: requests under way at once at each address. ``timeout``: seconds that one may
    take. ``allow_http``: addresses without TLS on other machines are used. ``picture_format``: in
    which pictures are sent, one of ``PICTURE_FORMATS``: ``png`` shows the model the exact pixels,
    ``jpeg`` (quality 95, colours not subsampled) takes about a quarter of the bytes and a tenth of
    the time to write.

    Specs are compared, logged and saved with workflows, so no key is ever in one (see
    ``servers.keys``): raises ``BadOption`` for an address with a password or a query, for one that
    is not http or https, for none at all, and for another picture format.
    """

    urls: tuple[str, ...]
    model: str = ""
    family: str = ""
    kind: str = "auto"
    concurrency: int = 8
    timeout: float = 300.0
    allow_http: bool = False
    picture_format: str = "png"

    def __post_init__(self) -> None:
        if self.picture_format not in PICTURE_FORMATS:
            raise BadOption(
                f"There is no picture format {self.picture_format!r}; use one of: "
                f"{', '.join(PICTURE_FORMATS)}."
            )
        given = self.urls
        found = given.replace(",", " ").split() if isinstance(given, str) else given
        urls = tuple(dict.fromkeys(url.strip().rstrip("/") for url in found))
        object.__setattr__(self, "urls", urls)
        if not urls:
            raise BadOption(
                "There is no server address. Give one, such as http://127.0.0.1:8000/v1."
            )
        for url in urls:
            # The messages do not quote: what is wrong here may be a secret.
            scheme, mark, address = url.partition("://")
            if "@" in (address if mark else url).partition("/")[0] or "?" in url or "#" in url:
                raise BadOption(
                    "The server's address holds a name or password (before an @, or after a ? or "
                    "#). Leave them out: keys are kept apart, for each host."
                )
            if scheme not in ("http", "https") or not address.partition("/")[0]:
                raise BadOption(
                    "The server's address must begin with http:// or https:// and name a host, "
                    "such as http://127.0.0.1:8000/v1."
                )
        if self.concurrency < 1:
            raise BadOption(f"concurrency is {self.concurrency}; use 1 or more.")
        if not self.timeout > 0:
            raise BadOption(f"The time limit is {self.timeout:g} seconds; use more than 0.")

    @property
    def name(self) -> str:
        """What the server calls the model; empty where only it knows."""
        return self.model


@dataclass(frozen=True)
class GgufSpec:
    """A GGUF model, answered by a llama-server that is started for it on this machine. The key of
    the model cache, as ``LocalSpec``.

    ``model``: its file, of several parts the first; ``mmproj``: its vision tower's. ``family``: its
    ``model_type``. ``context``: tokens of a prompt and its answer; ``concurrency``: requests that
    it answers at once, each with such a context. ``device``: a torch device, where room is made
    for it. ``program``: the llama-server; empty: the one on PATH. ``options``: more of its own
    command line. ``log_folder``: where what it says is written. ``timeout``: seconds that an answer
    may take; long, since a CPU is slow, and whether the process lives is known.
    """

    model: str
    mmproj: str
    family: str
    context: int = 16_384
    concurrency: int = 2
    device: str = "auto"
    program: str = ""
    options: tuple[str, ...] = ()
    log_folder: str = ""
    timeout: float = 86_400.0

    def __post_init__(self) -> None:
        if self.context < 1:
            raise BadOption(f"context is {self.context}; use 1 token or more.")
        if self.concurrency < 1:
            raise BadOption(f"concurrency is {self.concurrency}; use 1 or more.")

    @property
    def name(self) -> str:
        """The name of its file, without the ending."""
        return os.path.splitext(os.path.basename(self.model))[0]


@dataclass(frozen=True)
class HostSpec:
    """A model whose weights the host holds and manages, such as a text encoder in its graph. It is
    never in the model cache: the host's own code gives its backend. ``name``: what it is called.
    ``key``: tells it from others for as long as they exist. ``model``: what tells it from others of
    that name at any time."""

    name: str
    key: int
    model: str = ""


Spec = LocalSpec | ServerSpec | GgufSpec | HostSpec
"""Which model is meant, and how it is run."""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters. ``temperature`` 0 is greedy decoding.

    ``top_k`` 0, ``top_p`` 1, ``min_p`` 0, ``repetition_penalty`` 1 and ``presence_penalty`` 0 have
    no effect. ``presence_penalty`` is subtracted once from the logit of every token that was
    generated before (the OpenAI definition). ``max_thinking_tokens`` limits the thinking of a
    thinking model, apart from the answer (None: 4096).
    Equal ``seed`` gives equal text, whatever else is in the batch; in half precision, rounding may
    rarely change a token when the batch around a request changes.
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


@dataclass(frozen=True, eq=False)
class Image:
    """A picture: ``pixels``, a uint8 RGB tensor ``[3, H, W]`` (see ``media.images``)."""

    pixels: Any


@dataclass(frozen=True, eq=False)
class Video:
    """A video: ``frames``, a uint8 RGB tensor ``[T, 3, H, W]``, each shown at its one of ``times``
    in seconds, which rise. ``audio``: the sound that goes with it, from time 0 on; a model without
    hearing refuses it. ``notes``: what the user should know of how it was read, a sentence each."""

    frames: Any
    times: tuple[float, ...]
    audio: Audio | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Audio:
    """Sound: ``samples``, a float tensor ``[channels, N]`` of -1 to 1, ``rate`` of them a second
    in each channel. ``notes``: what results about it tell of how it was read."""

    samples: Any
    rate: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generated:
    """An earlier answer in a conversation, as the token ids that the model generated: its text
    might not become the same tokens again. See ``Response.ids``. ``thought``: of the thought before
    it, up to its end mark, which only a request that preserves thinking shows the model again; see
    ``Response.thought_ids``."""

    ids: tuple[int, ...]
    thought: tuple[int, ...] = ()


Part = str | Image | Video | Audio | Generated
"""A part of a message."""


@dataclass(frozen=True)
class Constraint:
    """What an answer is held to: text of the form that ``source`` describes, a JSON schema as JSON
    text, a regular expression or a Lark grammar. See ``constraints`` for ways to make one.

    ``opening``: the answer is free until its text holds one of these, and held from there on; where
    it never does, or goes on in another way, or a backend cannot do that, it stays free. Empty: the
    answer is held from its first token."""

    kind: Literal["json_schema", "regex", "lark"]
    source: str
    opening: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Message:
    """A message of a conversation: ``parts`` in the order in which the model reads them."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, eq=False)
class Request:
    """A conversation to be continued, with everything that determines the answer.

    ``min_pixels``/``max_pixels`` bound the area of each resized picture,
    ``least_frame_pixels``/``frame_pixels`` that of each frame of a video, and ``video_tokens`` the
    tokens of each video, before its frames' least; None keeps the checkpoint's own bound.
    ``thinking``: True or False turns a switchable model's thinking on or off, None keeps its
    default. ``may_shrink``: resize the pictures to fewer pixels, step by step, if memory does not
    suffice. ``logprobs``: compute the log-probability of each token of the answer (see ``Token``).
    ``continues``: the conversation will go on, so what the model has computed of it is kept in the
    prefix cache, the answer included. ``constraint``: what the answer, a thought before it left
    out, is held to; None: nothing. ``preserve_thinking``: thoughts of earlier answers stay in the
    conversation; ``reasoning_effort``: how much to think, in a word of the chat template's own,
    empty for its default. Where a checkpoint's template knows no such variable, asking for it is a
    ``BadOption``. ``voice``: in which the answer is spoken too, by name; empty: the model's own
    default; None: it is not spoken.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    min_pixels: int | None = None
    max_pixels: int | None = None
    thinking: bool | None = None
    may_shrink: bool = False
    logprobs: bool = False
    continues: bool = False
    constraint: Constraint | None = None
    preserve_thinking: bool = False
    reasoning_effort: str = ""
    voice: str | None = None
    frame_pixels: int | None = None
    video_tokens: int | None = None
    least_frame_pixels: int | None = None

    @classmethod
    def ask(
        cls, images: Sequence[Any] = (), prompt: str = "", system: str = "", **fields: Any
    ) -> Request:
        """One question about ``images``, uint8 RGB tensors ``[3, H, W]`` or other media as parts,
        which stand before it so that questions about one picture share a prefix. ``fields``: the
        other fields."""
        media = (part if isinstance(part, Video | Audio) else Image(part) for part in images)
        user = Message("user", (*media, prompt))
        before = (Message("system", (system,)),) if system else ()
        return cls((*before, user), **fields)

    @property
    def media(self) -> tuple[Image | Video | Audio, ...]:
        """All pictures, videos and sounds, in order; a video's own sound stands behind it."""
        found: list[Image | Video | Audio] = []
        for part in (part for message in self.messages for part in message.parts):
            if isinstance(part, (Image, Video, Audio)):
                found.append(part)
            if isinstance(part, Video) and part.audio is not None:
                found.append(part.audio)
        return tuple(found)

    @property
    def images(self) -> tuple[Any, ...]:
        """The pixels of all pictures, in order."""
        return tuple(part.pixels for part in self.media if isinstance(part, Image))

    @property
    def videos(self) -> tuple[Video, ...]:
        """All videos, in order."""
        return tuple(part for part in self.media if isinstance(part, Video))

    @property
    def sounds(self) -> tuple[Audio, ...]:
        """All sounds, those of videos too, in order."""
        return tuple(part for part in self.media if isinstance(part, Audio))

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return self.messages[-1].text

    @property
    def system(self) -> str:
        """The text of the system message; empty without one."""
        return self.messages[0].text if self.messages[0].role == "system" else ""


@dataclass(frozen=True)
class Usage:
    """Token counts of one request. ``reused_tokens``: those of the prompt whose states were in the
    prefix cache; the others were read anew. It says how an answer came about, not what it is, and
    has no part in comparisons."""

    prompt_tokens: int = 0
    image_tokens: int = 0
    new_tokens: int = 0
    reused_tokens: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Token:
    """A generated token: its ``id``, -1 where only its text is known (as of a server), and where
    its characters stand in the answer, from ``start`` up to but not including ``end``. Tokens that
    share a character have the same place, a token without any (an end token, blanks that were
    stripped) an empty one.

    ``logprob``: natural logarithm of the probability that the model itself gave it: of the softmax
    of the logits, before penalties, bans and temperature. None unless the request asked for it."""

    id: int
    start: int
    end: int
    logprob: float | None = None


@dataclass(frozen=True)
class Response:
    """The generated text of one request. ``input_sizes``: the resized size of each of its
    pictures, in whose pixels some families write boxes. ``error``: why this request has no answer,
    while others of its batch were answered. ``notes``: what the user should know about its end.
    ``tokens``: those of ``text``, thinking left out; a backend that does not know them gives
    none. ``held``: the answer was held to the request's constraint, token by token; False of a
    backend that cannot. ``thought_ids``: token ids of the thought, up to its end mark, for
    ``Generated``; empty where there was none, or where it was not closed. ``speech``: the answer,
    spoken, where that was asked for."""

    text: str
    thinking: str = ""
    finish_reason: FinishReason = "stop"
    input_sizes: tuple[Size, ...] = ()
    usage: Usage = Usage()
    error: QwenVLError | None = None
    notes: tuple[str, ...] = ()
    tokens: tuple[Token, ...] = ()
    held: bool = False
    thought_ids: tuple[int, ...] = ()
    speech: Audio | None = None

    @classmethod
    def failed(cls, error: QwenVLError) -> Response:
        """The response to a request that has no answer, for ``error``."""
        return cls("", finish_reason="error", error=error)

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids of the answer, for ``Generated``."""
        return tuple(token.id for token in self.tokens)


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the original picture, x to the right and y down, inside the
    picture, ``x1 < x2`` and ``y1 < y2``. ``score``, 0 to 1, is None unless one was computed (see
    ``replies.scores``). ``label`` is always valid Unicode (see ``unicode.well_formed``)."""

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
    """A point in pixels of the original picture, inside the picture. ``score`` as in ``Box``."""

    x: float
    y: float
    label: str = ""
    score: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", well_formed(self.label))


@dataclass(frozen=True)
class Cuboid:
    """A box in the space before the camera. ``numbers``: nine, as ``camera`` describes them.
    ``corners``: their projections in pixels of the picture, possibly outside it; empty where there
    are none. ``box``: the rectangle around these, as far as it lies in the picture."""

    numbers: tuple[float, ...]
    label: str = ""
    corners: tuple[tuple[float, float], ...] = ()
    box: Box | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", well_formed(self.label))


@dataclass(frozen=True)
class Event:
    """What happens in a video from ``start`` to ``end``, seconds from its beginning; both are the
    same of a moment. ``label`` is always valid Unicode."""

    start: float
    end: float
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", well_formed(self.label))


@dataclass(frozen=True)
class Result:
    """A parsed reply. ``text`` is for people, ``data`` for programs (parsed JSON, document blocks,
    ...). No boxes means that nothing was found; an unreadable reply raises
    ``errors.UnreadableReply`` instead. ``error`` is set only if the caller asked to keep
    unreadable replies (``run.Query``); ``text`` is then the raw reply. ``notes``: what the user
    should know about this answer, a sentence each (it was cut at ``max_new_tokens``; boxes
    reached outside the picture). ``reply``: the model's own words; ``tokens``: these, token by
    token, where log-probabilities were asked for. ``cuboids``: boxes in space; ``boxes`` are then
    the rectangles around them. ``events``: of a video, within its length. ``speech``: the answer,
    spoken, where that was asked for."""

    text: str
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    data: Any = None
    thinking: str = ""
    finish_reason: FinishReason = "stop"
    error: str = ""
    notes: tuple[str, ...] = ()
    reply: str = ""
    tokens: tuple[Token, ...] = ()
    cuboids: tuple[Cuboid, ...] = ()
    events: tuple[Event, ...] = ()
    speech: Audio | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the model ended this answer itself, and it could be read."""
        return self.finish_reason == "stop" and not self.error


@dataclass(frozen=True)
class Retrieval:
    """How a model that was made to compare texts with pictures is asked, in the words that
    ``makers_prompts`` has under its ``title``. Such a model writes no text.

    ``kind``: a ``reranker`` reads text and picture together and says yes or no; an ``embedding``
    model turns each into a vector. ``base``: the title of its family. ``names``: whole words in the
    names of its checkpoints, lower case; ``classes``: beginnings of class names in their
    ``config.json``. ``pixel_bounds``: the least and the most pixels that it sees of a picture;
    ``max_tokens``: of a prompt. ``ending``: behind the opened turn of the model. ``ends_in_point``:
    whether an instruction without punctuation at its end gets a full stop."""

    title: str
    kind: Literal["reranker", "embedding"]
    base: str
    names: tuple[str, ...]
    pixel_bounds: tuple[int, int]
    max_tokens: int
    classes: tuple[str, ...] = ()
    ending: str = ""
    ends_in_point: bool = False


@dataclass(frozen=True)
class Watching:
    """How a family watches videos: two frames at a time, which are a step.

    ``times``: how the model is told when a step is shown. ``text``: in words before each, which is
    then a picture of its own; ``steps``: not at all, positions count the steps; ``seconds``:
    positions count time, in whole units; ``fractions``: likewise, and are not rounded.
    ``per_second``: such units a second, and ``unit``, where the model's config says how many.

    ``pixel_bounds``: the least and the most pixels of each frame, or ``of_all`` frames together,
    unless the checkpoint says so. ``alone_before``: the first transformers release whose code can
    show a model of the family pictures and videos in one prompt; empty: every one."""

    times: Literal["text", "steps", "seconds", "fractions"]
    pixel_bounds: tuple[int, int]
    of_all: bool = False
    per_second: float = 0.0
    unit: str = ""
    alone_before: str = ""


@dataclass(frozen=True)
class Hearing:
    """How a family hears sounds, at 16 kHz. ``start`` and ``end``: the special tokens around one.

    Features: ``pads``: the makers' processor fills a sound up with silence to ``max_seconds``, and
    takes no more of it (0: it takes all). ``window``: half the columns of features that the tower's
    convolutions see at a time, unless its config says so. ``pooled``: the tower halves features
    once and takes the mean of each two, else halves them three times. ``tower_window``: columns in
    chunks that attend to one another, unless its config says so (0: one chunk).

    Positions: ``per_second``, that many a second, unless the config says so; ``interleaved``:
    seconds of a video that stand before the same seconds of its sound (0: each frame stands before
    what is heard with it); ``pairs_marks``: the two tokens before a video with its sound, which
    begin the picture and the sound, have one position, and so have the two behind."""

    start: str
    end: str
    pads: bool
    max_seconds: int
    window: int
    pooled: bool
    tower_window: int
    per_second: int
    interleaved: float
    pairs_marks: bool


@dataclass(frozen=True)
class Speech:
    """How whole checkpoints of a family speak. ``transformers_class``: of the whole model;
    ``voice``: the makers' default; ``voices_file``: what holds the voices beside the weights
    (empty: ``config.json`` names them); ``prompt``: whose system prompt speech was trained with, of
    those in ``makers_prompts``; ``rate``: samples a second."""

    transformers_class: str
    voice: str
    voices_file: str = ""
    prompt: str = ""
    rate: int = 24_000


@dataclass(frozen=True)
class ChatForm:
    """What the makers' chat templates of a family add to plain ChatML, for models that come without
    their template (see ``prompting.chatml``). ``system``: of conversations without a system prompt.
    ``thinking``: ``never``; ``edition``: the Thinking editions always and the others never;
    ``switch``: as the caller wishes, with an empty thought where he does not."""

    system: str = ""
    thinking: Literal["never", "edition", "switch"] = "never"


@dataclass(frozen=True)
class Family:
    """A model family: all that the engine must know of a ``model_type`` beyond its files.

    ``model_type`` as in ``config.json``. ``since``: the first transformers release that runs it;
    ``transformers_class``: None lets ``AutoModelForImageTextToText`` choose. ``config_section``:
    where in ``config.json`` the vision-language model's own config lies, empty where that is all
    of it (see ``families.model_config``). ``sampling`` and ``thinking_sampling``: the model
    makers' values for free text about pictures; ``text_sampling`` and ``text_thinking_sampling``:
    for requests without any, where they are others. Whether a checkpoint thinks is decided by its
    chat template, not by its family. ``is_original``: Qwen-VL of 2023, which ran only through
    Python code of its own: its replies can be read, the model cannot be loaded.
    ``scheduler_verified``: whether the batch scheduler was tested on this architecture against the
    library's own ``generate``. ``yarn``: the largest factor by which the makers' cards stretch the
    context with YaRN (Peng et al. 2023), and the length in tokens that it stretches; None where
    they give none.

    ``leaves_thought_open``: its templates turn thinking off by an empty thought and on by nothing:
    the model begins its answer with the tag of a thought.

    Pictures: ``patch_factor`` is the side in pixels of the square that becomes one token (patch
    times merge); ``pixel_bounds`` the least and the most pixels that the makers' checkpoints show
    of a picture; ``image_token``, ``vision_start`` and ``vision_end`` its special tokens, of which
    the first is repeated; ``video_token`` and ``audio_token`` those repeated for videos and sounds.

    Replies: ``coordinates`` is their coordinate space, ``box_scale`` what each side of the picture
    measures in a ``relative`` one. ``tool_calls``: the form of their tool calls.

    Weights: ``towers`` are the modules that encode media, none in models that read text only;
    ``kept_whole`` those that quantization leaves as they are, by the last part of their names.
    ``not_loaded`` are name prefixes of weights beside the model that is loaded (a speaking half);
    ``mtp_prefix`` that of a head for multi-token prediction, empty where checkpoints have none that
    can be used. ``buffers``: name suffixes of tensors that are no weights and may be integers in a
    plain checkpoint.

    ``retrieval``: what a fine-tune of the family is asked that compares texts with pictures and
    writes nothing; None of models that write. ``hearing``: how it hears sounds; None of models
    without an audio tower. ``watching``: how it watches videos; None of models that see none.
    ``speech``: how whole checkpoints speak; None of those that cannot. ``chat``: its conversations,
    where a model comes without its template.
    """

    model_type: str
    title: str
    coordinates: CoordinateSpace
    patch_factor: int
    since: str
    sampling: Sampling
    thinking_sampling: Sampling
    pixel_bounds: tuple[int, int]
    box_scale: int = 1000
    tool_calls: Literal["json", "xml"] = "json"
    transformers_class: str | None = None
    config_section: str = ""
    image_token: str = "<|image_pad|>"
    video_token: str = "<|video_pad|>"
    audio_token: str = "<|audio_pad|>"
    vision_start: str = "<|vision_start|>"
    vision_end: str = "<|vision_end|>"
    towers: tuple[str, ...] = ("visual",)
    kept_whole: tuple[str, ...] = ("visual", "lm_head", "embed_tokens")
    not_loaded: tuple[str, ...] = ()
    mtp_prefix: str = ""
    buffers: tuple[str, ...] = ("position_ids", "num_batches_tracked", "inv_freq")
    notes: str = ""
    is_original: bool = False
    scheduler_verified: bool = True
    retrieval: Retrieval | None = None
    hearing: Hearing | None = None
    watching: Watching | None = None
    text_sampling: Sampling | None = None
    text_thinking_sampling: Sampling | None = None
    yarn: tuple[float, int] | None = None
    leaves_thought_open: bool = False
    speech: Speech | None = None
    chat: ChatForm = ChatForm()

    @property
    def sees(self) -> bool:
        """Whether its models can be shown pictures; else they read text only."""
        return bool(self.towers)


@dataclass(frozen=True)
class ReplyContext:
    """What parsing a reply depends on besides its text: the family of the model, the original
    ``image_size`` and the resized ``input_size``, both (height, width) in pixels. ``cut``: the
    reply is known to have been cut off (``finish_reason`` other than stop). ``tokens``: those of
    the text; where they have log-probabilities, what is found in it gets a score. ``held``: it was
    held to the task's constraint (see ``Response``)."""

    family: Family
    image_size: Size
    input_size: Size
    cut: bool = False
    tokens: tuple[Token, ...] = ()
    held: bool = False


@dataclass(frozen=True)
class Task:
    """A task: a prompt, and a parser of the replies to it.

    ``parse(text, context)`` turns a reply's text (thinking already split off) into a ``Result`` and
    raises ``errors.UnreadableReply``. ``greedy`` tasks (OCR, grounding) are decoded greedily;
    others use the family's sampling. ``max_new_tokens`` is the task's default. ``longest_side``:
    pixels that the sides of a picture shown to the model should not exceed (0: any).
    ``constraint``: what replies are held to; ``constraint_of``: where that depends on the model's
    family, in its place. ``instructions``: what stands behind the system
    prompt, for a model of a family that sees the picture in a (height, width) in pixels.
    ``logprobs``: whether ``parse`` needs the tokens' log-probabilities, which cost a little time,
    for scores. ``sampling``: fields of ``Sampling`` that the task sets whatever the model's own
    values are. ``thinking``: whether a model that has the choice is to think first; None: as usual.
    """

    name: str
    prompt: str
    parse: Callable[[str, ReplyContext], Result]
    system: str = ""
    greedy: bool = False
    max_new_tokens: int = 1024
    longest_side: int = 0
    constraint: Constraint | None = None
    constraint_of: Callable[[Family], Constraint | None] | None = None
    instructions: Callable[[Family, Size], str] | None = None
    logprobs: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict, hash=False)
    thinking: bool | None = None

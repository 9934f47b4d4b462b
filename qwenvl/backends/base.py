"""Backends: protocols of what answers requests, in this process or elsewhere.

``Backend`` is what every one can do. The others are what only some can, asked for with
``isinstance``: ``Continuous`` (it takes in requests while it answers others), ``Planner`` (it
knows how large it sees media), ``Resizer`` (it resizes pictures within bounds of its own),
``Resident`` (its weights lie in this machine's memory), ``Remote`` (it has to ask what it is),
``Scorer``, ``Embedder``, ``Vocabulary`` (its tokens are known), and ``Adaptable`` (it takes LoRA
adapters).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ..errors import BadOption, QwenVLError
from ..observer import Observer
from ..source import Source
from ..types import Adapter, Family, Place, Request, Response, Size


class Backend(Protocol):
    """A model that answers requests. Thread-safe: calls queue behind one another."""

    @property
    def family(self) -> Family: ...

    @property
    def max_pixels(self) -> int | None:
        """The most pixels of one image that the model sees unless a request says otherwise; None
        where that is not known, as of a model behind a server."""
        ...

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """Whether an answer begins with a thought, given the caller's wish (None: the model's
        default) and ``effort``, the ``Request.reasoning_effort``. Raises ``BadOption`` where the
        model cannot do as wished."""
        ...

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """Answers in the order of ``requests``, each as if it were asked alone, with the
        ``input_sizes`` of all its pictures. A request that fails has its error in its own
        response. Raises ``UnsuitableModel`` for a model that writes no text (see ``retrieval``),
        before anything is loaded."""
        ...

    def close(self) -> None:
        """Releases the model for good. A closed backend refuses further requests."""
        ...


@runtime_checkable
class Continuous(Protocol):
    """A backend that takes in requests while it answers others (continuous batching), so that its
    batch stays full from the first answer to the last."""

    def generate_from(self, source: Source, observer: Observer) -> None:
        """Answers all that ``source`` gives. ``observer`` gets each response, by the number of its
        request in the order in which they were given; ``start`` is not called, and nothing is kept
        of what is answered. A request that cannot be asked has the error in its response. No answer
        is spoken. Where a server of its own has ended, it returns sooner, with a response to all
        that were given: another call, which counts from 0 again, answers the rest. Raises as
        ``generate``, and what ``source`` raises."""
        ...


@runtime_checkable
class Planner(Protocol):
    """A backend that knows how large it will see media before it is asked about them."""

    def media_tokens(self, request: Request) -> int:
        """Tokens that the pictures, videos and sounds of ``request`` will take in the prompt; no
        pixel is touched. Raises ``BadImage`` and ``BadOption`` as ``generate`` has them in
        responses."""
        ...


@runtime_checkable
class Resizer(Protocol):
    """A backend that shows the model pictures within bounds that ``max_pixels`` does not tell, as
    those of a kind of server."""

    def shown_size(self, size: Size, min_pixels: int | None, max_pixels: int | None) -> Size:
        """The (height, width) to which a picture of ``size`` is resized for a request with these
        bounds. Raises ``BadImage`` and ``BadOption`` as ``generate`` has them in responses."""
        ...


@runtime_checkable
class Resident(Protocol):
    """A backend whose weights lie in the memory of this machine, and can be moved out of it."""

    @property
    def nbytes(self) -> int:
        """Bytes that the weights occupy now, tied tensors counted once; 0 while they are on disk
        only."""
        ...

    @property
    def place(self) -> Place:
        """Where the weights are now."""
        ...

    def offload(self) -> None:
        """Moves the weights from their device to RAM; the next request brings them back."""
        ...

    def release(self) -> None:
        """Takes the weights out of memory; the next request reads them from disk again."""
        ...


@runtime_checkable
class Remote(Protocol):
    """A backend that has to ask another machine what it is."""

    def prepare(self, observer: Observer) -> None:
        """Asks that, where it is not known yet, so that afterwards ``family`` and ``thinks`` answer
        at once: these have no observer that could stop them. Raises ``ServerError`` and
        ``BadOption``."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A backend that can tell how likely it is to say given words."""

    def score(
        self,
        requests: Sequence[Request],
        candidates: Sequence[str],
        observer: Observer | None = None,
    ) -> list[list[float] | QwenVLError]:
        """For each of ``requests``, in order, one number for each of ``candidates``, in order: the
        probability that the answer begins with that text, thinking left out, normalised over the
        candidates. Numbers are 0 to 1 and sum to 1 for each request. Temperature, penalties and
        token limits of the requests have no effect. In the place of a request that fails stands its
        error.

        Raises ``BadOption`` as ``check_candidates`` does, and, as ``generate``, where no request
        can be asked at all."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """A backend that turns requests into vectors whose dot products compare what they show."""

    def embed(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[list[float] | QwenVLError]:
        """For each of ``requests``, in order, the hidden state of its last token, divided by its
        L2 norm: as many numbers as the model's hidden size, their squares summing to 1. Sampling
        and limits have no effect. Errors are as those of ``Scorer.score``."""
        ...


@runtime_checkable
class Vocabulary(Protocol):
    """A backend whose answers tell the tokens that they are made of."""

    def reads(self, ids: Sequence[int], text: str) -> bool:
        """Whether ``ids`` are tokens that an answer of this model may be made of, and ``text`` is
        what they say, blanks around it left out, or the mark that ends a thought: then they can be
        ``Generated``. False of another vocabulary's, as of an answer that was edited."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A backend that answers with LoRA adapters on, too."""

    def with_adapters(self, adapters: Sequence[Adapter]) -> Backend:
        """This model with ``adapters`` on, sharing its weights. Raises ``BadOption`` for adapters
        that cannot be put on together."""
        ...


def check_candidates(candidates: Sequence[str]) -> None:
    """Raises ``BadOption`` for candidates that cannot be compared: none, an empty one, or one
    that is there twice."""
    if not candidates:
        raise BadOption("There are no candidates to score. Give at least one text.")
    if "" in candidates:
        number = list(candidates).index("") + 1
        raise BadOption(f"Candidate {number} of {len(candidates)} is empty; give it a text.")
    for text in candidates:
        if list(candidates).count(text) > 1:
            raise BadOption(f"The candidate {text!r} is there twice; give each once.")

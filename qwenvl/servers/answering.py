"""Answering: one request to a server, from its first try to a response whose form is checked and
whose picture sizes are verified."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..errors import ServerError
from ..types import Request, Response
from .addresses import Address
from .calibration import Calibration
from .client import Chunks, Client
from .dispatch import Progress
from .form_history import REFUSALS, FormHistory
from .scoring import FIRST_TOKEN, candidate_scores
from .served_model import ServedModel
from .server_request import ServerRequest
from .streaming import LoopStart, Reply, token_count, usage_of
from .videos import refuses_times

T = TypeVar("T")


class Answering:
    """Asks the server of ``model``, and remembers what its answers show of it: how it treats
    pictures, which forms it refuses, whether it sends thoughts apart. Used in its event loop.
    ``loop_start``: see ``streaming``."""

    def __init__(self, model: ServedModel, loop_start: LoopStart):
        self._model, self._loop_start = model, loop_start
        self.forget()

    def forget(self) -> None:
        """Another server may be there: what answers have shown of the last one no longer holds."""
        self._forms = FormHistory()
        self._sends_thoughts_apart = False
        self._calibrated_by: Client | None = None

    async def answer(self, asked: ServerRequest, client: Client, progress: Progress) -> Response:
        """The response to ``asked``, whose text goes to ``progress`` as it comes. Raises
        ``ServerError``."""
        if asked.kind.video == self._model.kind.video:
            try:
                return await self._held(asked, client, progress)
            except ServerError as error:
                if not refuses_times(error, asked.plan.fields):
                    raise
                self._model.show_videos_as_pictures()
        return await self._held(self._model.request(asked.request), client, progress)

    async def _held(self, asked: ServerRequest, client: Client, progress: Progress) -> Response:
        """The response, held to its form where the server can do that."""
        fields = asked.form.fields
        # Servers differ in what forms they can hold: the answer is free, and its reader checks.
        refusal = self._forms.refusal(fields)
        if refusal is None:
            try:
                response = await self._verified(asked, client, progress)
                self._forms.was_held(fields)
                return asked.finished(response)
            except ServerError as error:
                if error.status not in REFUSALS or not fields:
                    raise
                refusal = error
        asked = asked.without_form(refusal)
        response = await self._verified(asked, client, progress)
        self._forms.was_refused(fields, refusal)
        return asked.finished(response)

    async def score(
        self, asked: ServerRequest, client: Client, progress: Progress, candidates: Sequence[str]
    ) -> list[float]:
        """See ``scoring.candidate_scores``. Raises ``ServerError``."""
        asked = dataclasses.replace(asked, fields={**asked.fields, **FIRST_TOKEN})
        reply, _ = await self._reply(asked, client, progress, lambda reply: reply)
        return candidate_scores(reply.logprobs, candidates)

    async def _verified(self, asked: ServerRequest, client: Client, progress: Progress) -> Response:
        """The answer, with the sizes in which the model saw the pictures; see ``calibration``."""

        def read(reply: Reply) -> Response:
            return reply.response(asked.plan.input_sizes, asked.plan.tokens)

        async def count(request: Request) -> int | None:
            body = {**await self._model.request(request).body(), "max_tokens": 1}
            usage = await client.ask_once(address, body, usage_of)
            return token_count(usage.get("prompt_tokens")) or None

        response, address = await self._reply(asked, client, progress, read)
        model, server = self._model, (address.url, self._model.name)
        return await self._calibration_of(client).verified(
            response, asked.request, model.family, model.kind, server, count
        )

    async def _reply(
        self,
        asked: ServerRequest,
        client: Client,
        progress: Progress,
        use: Callable[[Reply], T],
    ) -> tuple[T, Address]:
        """Asks until there is a whole reply: what ``use`` makes of it, and the address that gave
        it."""

        async def read(chunks: Chunks) -> T:
            reply = Reply(asked.thinks, self._sends_thoughts_apart, self._loop_start)
            async for chunk in chunks:
                if text := reply.add(chunk):
                    progress.token(text)
                if reply.is_repeating:
                    break
            self._sends_thoughts_apart |= bool(reply.thought)
            return use(reply)

        final = self._forms.final(asked.form.fields)
        return await client.chat(await asked.body(), read, progress.restart, final)

    def _calibration_of(self, client: Client) -> Calibration:
        """A calibration's locks belong to one event loop, as ``client`` does: a forked process has
        others."""
        if self._calibrated_by is not client:
            self._calibrated_by, self._calibration = client, Calibration()
        return self._calibration

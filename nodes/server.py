"""Server node: chooses a model behind a server that speaks the OpenAI protocol."""

from __future__ import annotations

import math
import time
from typing import Any

from comfy_api.latest import io

from ..qwenvl.errors import BadOption, QwenVLError, ServerError, Unavailable
from ..qwenvl.observer import Observer
from ..qwenvl.servers import kinds
from ..qwenvl.servers.kinds import AUTO
from ..qwenvl.types import PICTURE_FORMATS, ServerSpec
from . import host, panels, servers, sockets
from .model import ModelHandle


class Server(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Server",
            display_name="Qwen-VL Server",
            description="Chooses a Qwen vision-language model that runs elsewhere: behind vLLM, "
            "SGLang, llama.cpp, Ollama, LM Studio or another server that speaks the OpenAI "
            "protocol. All Qwen-VL nodes that ask a model can use it.",
            search_aliases=[
                "remote model",
                "openai",
                "vllm",
                "ollama",
                "lm studio",
                "llama.cpp",
                "sglang",
                "api",
            ],
            panels=panels.server(["servers", "allow_http"], "model", servers.ROUTE),
            inputs=[
                io.String.Input(
                    "servers",
                    default="http://127.0.0.1:8000/v1",
                    multiline=True,
                    tooltip="The server's base address, which as a rule ends in /v1. Several, one "
                    "a line: replicas of one server, which share the work. Keys never go here: "
                    "see this node's help.",
                ),
                io.String.Input(
                    "model",
                    default="",
                    tooltip="What the server calls the model; the button lists those that it has. "
                    "Empty: the only one.",
                ),
                io.Combo.Input(
                    "family",
                    options=servers.families(),
                    default=AUTO,
                    tooltip="The generation that the model is of, by which its boxes are read. "
                    "auto: told by its name, and an error where that does not tell it.",
                ),
                *sockets.pixel_bounds(),
                io.Combo.Input(
                    "server_kind",
                    options=_kinds(),
                    default=AUTO,
                    tooltip="Which server it is: each resizes pictures in its own way and knows "
                    "other settings. auto: found out when it is first asked.",
                    **sockets.ADVANCED,
                ),
                io.Int.Input(
                    "concurrency",
                    default=ServerSpec.concurrency,
                    min=1,
                    max=1024,
                    tooltip="How many requests are under way at once at each address. More than "
                    "the server answers at once only wait there.",
                    **sockets.ADVANCED,
                ),
                io.Float.Input(
                    "time_limit",
                    default=ServerSpec.timeout,
                    min=1.0,
                    max=86_400.0,
                    step=1.0,
                    tooltip="Seconds that one try of a request may take. One that is stalled is "
                    "tried several times.",
                    **sockets.ADVANCED,
                ),
                io.Boolean.Input(
                    "allow_http",
                    default=False,
                    tooltip="Asks servers on other machines unencrypted too, by http: anybody on "
                    "the way can read the pictures and change the answers. This machine's own are "
                    "asked in any case.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "picture_format",
                    options=list(PICTURE_FORMATS),
                    default=ServerSpec.picture_format,
                    tooltip="How pictures are sent. png: exactly as they are. jpeg: about a "
                    "quarter of the bytes and a tenth of the time to write, and next to no "
                    "difference to be seen; for slow networks and big folders.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[sockets.model_output()],
        )

    @classmethod
    def validate_inputs(
        cls, servers: str | None = None, allow_http: bool | None = None
    ) -> bool | str:
        """Looks at the addresses alone: no server is asked before the workflow runs."""
        if servers is None or allow_http is None:  # known when it runs
            return True
        try:
            _spec(servers, allow_http)
        except BadOption as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls,
        servers: Any = None,
        model: Any = None,
        allow_http: bool | None = None,
        **_: Any,
    ) -> str | float:
        """Where no model is named, the name of the server's only one, so that another one runs the
        graph anew. NaN, which equals nothing, where the server does not say it soon: the run asks
        once more."""
        if model is None or sockets.words(model).strip():
            return ""
        from ..qwenvl.backends.openai_server import with_model

        try:
            return with_model(_spec(sockets.words(servers), bool(allow_http)), _ShortWait()).model
        except QwenVLError:
            return math.nan

    @classmethod
    def execute(
        cls,
        servers: str,
        model: str,
        family: str,
        min_pixels: int = 0,
        max_pixels: int = 0,
        server_kind: str = AUTO,
        concurrency: int = ServerSpec.concurrency,
        time_limit: float = ServerSpec.timeout,
        allow_http: bool = False,
        picture_format: str = ServerSpec.picture_format,
    ) -> io.NodeOutput:
        from ..qwenvl.backends.openai_server import with_model

        sockets.choice("family", family, _families())
        sockets.choice("server_kind", server_kind, _kinds())
        if not math.isfinite(time_limit):
            raise BadOption(f"time_limit is {time_limit}; give a number of seconds.")
        spec = _spec(
            sockets.words(servers),
            allow_http,
            model=sockets.words(model).strip(),
            family="" if family == AUTO else family,
            kind=server_kind,
            concurrency=concurrency,
            timeout=time_limit,
            picture_format=picture_format,
        )
        named = with_model(spec, host.NodeObserver())
        return io.NodeOutput(ModelHandle(named, *sockets.bounds(min_pixels, max_pixels)))


class _ShortWait(Observer):
    """Observer that ends a wait after ``_MOMENT``."""

    def __init__(self) -> None:
        self._end = time.monotonic() + _MOMENT

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise ServerError("The server does not answer at once.")


_MOMENT = 2.0
"""Seconds."""


# The inputs have the names of the module and its function.
_spec, _families = servers.spec, servers.families


def _kinds() -> list[str]:
    try:
        return list(kinds.names())
    except Unavailable:  # without pyyaml; what runs says so
        return [AUTO]

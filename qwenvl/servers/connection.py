"""Connection to one server address by the official ``openai`` client: keys, limits and redirects in
one place.

The client itself tries once; ``retries`` decides whether to try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from types import ModuleType
from typing import Any

from ..errors import Unavailable
from . import faults, log_filter
from .addresses import DEFAULT_PORTS, Address
from .keys import Key

MAX_BYTES = 64 * 2**20
"""Size limit of one answer, decompressed: more than any model writes."""
CONNECT_SECONDS = 10.0
SHORT_SECONDS = 10.0
"""Seconds that a server may take to answer a question about itself."""

_HEADERS = {
    "accept", "accept-encoding", "connection", "content-length", "content-type", "host",
    "transfer-encoding", "user-agent",
}  # fmt: skip


class TooLong(Exception):
    """An answer larger than ``MAX_BYTES``."""


def library() -> ModuleType:
    """The ``openai`` module. Raises ``Unavailable`` where it is not installed, or too old."""
    try:
        import openai
    except ImportError as error:
        raise Unavailable(
            "Models on servers are asked by the package openai, which is not installed: "
            "pip install openai"
        ) from error
    if int(openai.__version__.split(".")[0]) < 2:
        raise Unavailable(
            f"Models on servers need openai 2 or newer, and {openai.__version__} is installed: "
            "pip install -U openai"
        )
    return openai


class Connection:
    """Asks one ``address``, from one event loop. ``key``: finds its key, anew for each request."""

    def __init__(self, address: Address, key: Callable[[], Key | None], timeout: float):
        self.address = address
        self._find_key = key
        self._timeout = timeout
        self._openai = openai = library()
        log_filter.install()
        limits = openai.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
        self._client = openai.AsyncOpenAI(
            base_url=address.url,
            # The environment's key, organisation and headers are for OpenAI's own host: what the
            # client would send of them is taken out again in _authorize.
            api_key="none",
            max_retries=0,
            timeout=limits,
            http_client=_http_client(
                openai,
                follow_redirects=False,
                # To a proxy of the environment https is a tunnel; http would show it all.
                trust_env=address.is_encrypted and not address.is_loopback,
                verify=address.is_encrypted,  # there is no TLS else, and certificates to be read
                timeout=limits,
                event_hooks={"request": [self._authorize], "response": [_limit_size]},
            ),
        )

    async def close(self) -> None:
        await self._client.close()

    async def chat(self, body: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
        """The chunks of a streamed chat completion, as parsed JSON. Raises ``Fault``, with no key
        in its words."""
        key, is_sent = self._find_key(), False
        try:
            stream = await self._client.post(
                "/chat/completions",
                cast_to=object,
                body={**body, "stream": True},
                stream=True,
                stream_cls=self._openai.AsyncStream[object],
            )
            is_sent = True
            try:
                _check_stream(stream.response.headers.get("content-type", ""))
                async for chunk in stream:
                    if not isinstance(chunk, Mapping):
                        raise faults.Fault("broken", "its answer is not of the chat protocol")
                    yield chunk
            finally:
                await stream.close()
        except Exception as error:
            if not is_sent and isinstance(error, _NOT_SERIALISED):
                raise _not_serialised(error) from None
            raise self._fault(error, key) from None

    async def models(self) -> list[str]:
        """What the server calls its models, without names that would do something to a terminal
        they are printed to. Raises ``Fault``."""
        found = await self._json("models")
        data = found.get("data") if isinstance(found, Mapping) else None
        if not isinstance(data, list):
            raise faults.Fault(
                "foreign",
                "it lists no models. The address of the API ends in /v1 as a rule",
            )
        names = [str(one["id"]) for one in data if isinstance(one, Mapping) and "id" in one]
        return [name for name in names if name.isprintable()]

    async def get(self, path: str) -> Any:
        """What the server answers at ``path``, below its host or the prefix before ``/v1``, as
        parsed JSON; None where it answers with an error or with anything else. Raises ``Fault``
        where it cannot be reached."""
        try:
            return await self._json(self.address.url.removesuffix("/v1") + path)
        except faults.Fault as fault:
            if fault.kind in ("unreachable", "slow", "busy"):
                raise
            return None

    async def _json(self, url: str) -> Any:
        """The JSON at ``url``, absolute or below the base address; None where it is neither an
        object nor a list. Raises ``Fault``."""
        key = self._find_key()
        limit = min(SHORT_SECONDS, self._timeout)
        asked = self._client.get(url, cast_to=object, options={"timeout": limit})
        try:
            found = await asyncio.wait_for(asked, limit)  # the client's limit is of each read
        except asyncio.TimeoutError:
            raise faults.Fault("slow", f"it did not tell in {limit:g} seconds") from None
        except Exception as error:
            raise self._fault(error, key) from None
        return found if isinstance(found, (dict, list)) else None

    def _fault(self, error: Exception, key: Key | None) -> faults.Fault:
        """``error`` as a fault, without the key, which some servers quote, and without the
        library's exception, which holds it."""
        own = error.__cause__ if isinstance(error, self._openai.APIConnectionError) else error
        if isinstance(own, faults.Fault):
            return own
        if isinstance(own, TooLong):
            return faults.Fault("refused", f"its answer is larger than {MAX_BYTES >> 20} MB")
        return faults.of_exception(error, self._openai, key.hidden if key else str)

    async def _authorize(self, request: Any) -> None:
        """Request hook: removes headers that are not needed and adds the key, which is thus in no
        object that the client keeps or logs."""
        for name in set(request.headers) - _HEADERS:
            del request.headers[name]
        url, address = request.url, self.address
        place = url.scheme, url.host, url.port or DEFAULT_PORTS.get(url.scheme)
        if place != (address.scheme, address.host.strip("[]"), address.port):
            raise faults.Fault("refused", "its address is read in two ways. Write it more plainly")
        key = self._find_key()
        log_filter.hide.set(key.hidden if key else str)
        if key:
            request.headers["Authorization"] = f"Bearer {key.value}"


def _http_client(openai: ModuleType, **options: Any) -> Any:
    """The client's own HTTP client. Raises ``Unavailable`` for a proxy, or certificates, of the
    environment that cannot be used; without their words, which may hold a password."""
    try:
        return openai.DefaultAsyncHttpxClient(**options)
    except ImportError:
        raise Unavailable(
            "The environment (ALL_PROXY, HTTPS_PROXY) names a SOCKS proxy, for which a package is "
            "missing: pip install socksio, or unset the variable."
        ) from None
    except OSError as error:
        raise Unavailable(
            "The certificates that the environment names (SSL_CERT_FILE) cannot be read: "
            f"{error.strerror or error}. Correct the variable, or unset it."
        ) from None
    except Exception:  # ValueError, or InvalidURL of whichever httpx openai uses
        raise Unavailable(
            "The proxy that the environment names (ALL_PROXY, HTTPS_PROXY) cannot be used. Write "
            "it as http://HOST:PORT or socks5://HOST:PORT, or unset the variable."
        ) from None


_NOT_SERIALISED = (TypeError, ValueError, RecursionError)


def _not_serialised(error: Exception) -> faults.Fault:
    """The fault of a request that cannot be serialised, for which no server is to blame."""
    what = type(error).__name__
    if isinstance(error, UnicodeEncodeError):
        what = "it holds half of a character, a surrogate"
    return faults.Fault("refused", f"the request cannot be written as JSON ({what})")


def _check_stream(content_type: str) -> None:
    """Raises ``Fault`` for what is no stream, such as the page of another program."""
    if content_type and not content_type.startswith("text/event-stream"):
        raise faults.Fault(
            "foreign",
            f"it answers with {content_type.partition(';')[0][:80]!r} and not with a stream. The "
            "address of the API ends in /v1 as a rule",
        )


async def _limit_size(response: Any) -> None:
    """Response hook: reading more than ``MAX_BYTES`` of an answer raises ``TooLong``."""
    read = response.aiter_bytes

    async def counted(*args: Any, **options: Any) -> AsyncIterator[bytes]:
        size = 0
        async for piece in read(*args, **options):
            size += len(piece)
            if size > MAX_BYTES:
                raise TooLong
            yield piece

    response.aiter_bytes = counted

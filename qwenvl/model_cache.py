"""Model cache: one backend per model specification, shared by the whole process."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .backends.base import Adaptable, Backend, Resident
from .errors import BadOption
from .types import GgufSpec, LocalSpec, ServerSpec, Spec

if TYPE_CHECKING:
    from .models.memory import Memory

log = logging.getLogger(__name__)

Load = Callable[[Spec], Backend]


@dataclass(frozen=True)
class CacheStats:
    """Statistics of a model cache. ``hits`` and ``misses`` count leases, ``evictions``
    models closed for ``max_bytes``. ``models``: how many are open now; ``bytes``: what those
    whose weights are in this machine's memory occupy, as they measure it."""

    hits: int
    misses: int
    evictions: int
    bytes: int
    models: int


@dataclass(eq=False)
class _Entry:
    """``backend`` is resolved once, for all threads that wait. ``leases``: current users.
    ``removed``: it left the cache, and is closed when its last lease ends."""

    backend: Future[Backend] = field(default_factory=Future)
    leases: int = 0
    removed: bool = False

    @property
    def is_open(self) -> bool:
        return self.backend.done() and self.backend.exception() is None


class Reference:
    """Keeps a model wanted; see ``ModelCache.reference``."""


class ModelCache:
    """LRU cache of models by their spec, checkpoints compared by their real path. Thread-safe.
    Adapters have no part in the key: the model of a spec with adapters is a view of the one
    without, and only that is loaded and counted.

    A request for a model that is being opened waits for it; one for another open model does not.
    ``memory``: the memory manager of the models (None: torch alone).

    With ``max_bytes``, the least recently used models are evicted once all together occupy more,
    except leased ones and the most recently used one. A model is measured when its lease ends, so
    until then there must be room for it as well.
    """

    def __init__(self, load: Load, max_bytes: int | None = None):
        self.max_bytes = max_bytes
        self.memory: Memory | None = None
        self._load = load
        self._discarded: deque[Spec] = deque()
        self._references: weakref.WeakValueDictionary[Spec, Reference] = (
            weakref.WeakValueDictionary()
        )
        # Guards all below; never held while a model loads or closes.
        self._lock = threading.Lock()
        self._entries: OrderedDict[Spec, _Entry] = OrderedDict()
        self._hits = self._misses = self._evictions = 0

    @contextmanager
    def lease(self, spec: Spec) -> Iterator[Backend]:
        """The model of ``spec``, which is neither evicted nor closed while the block runs.

        What opening raises reaches every thread that waited for it, and is not cached.
        """
        entry, is_new = self._acquire(spec)
        try:
            if is_new:
                self._open(spec, entry)
            yield _adapted(entry.backend.result(), spec)
        finally:
            self._release(entry)

    def get(self, spec: Spec) -> Backend:
        """The model of ``spec``. It can be closed at any later time by ``unload``, ``clear`` or
        eviction: hold a ``lease`` for as long as work lasts where these may happen."""
        with self.lease(spec) as backend:
            return backend

    def unload(self, spec: Spec) -> bool:
        """Closes the model of ``spec`` once its last lease ends. Returns whether there was one."""
        with self._locked():
            entry, idle = self._remove(spec)
        _close(idle)
        return entry is not None

    def discard(self, spec: Spec) -> None:
        """As ``unload``, for finalizers, which may run at any point of any thread, even one that
        holds this cache's lock: the thread that holds it then unloads as it lets go."""
        self._discarded.append(_key(spec))
        self._unload_discarded()

    def reference(self, spec: Spec) -> Reference:
        """A reference to the model of ``spec``, which it neither loads nor locks: when the last
        one is garbage-collected, the model is unloaded."""
        key = _key(spec)
        found = self._references.get(key)
        if found is None:
            found = self._references.setdefault(key, Reference())
            weakref.finalize(found, self._dereference, key).atexit = False
        return found

    def _dereference(self, key: Spec) -> None:
        if key not in self._references:
            self.discard(key)

    def clear(self) -> None:
        """Closes all models, leased ones when their last lease ends."""
        with self._locked():
            idle = self._mark_removed(list(self._entries.values()))
            self._entries.clear()
        _close(idle)

    def loaded(self, spec: Spec | None = None) -> list[Backend]:
        """The open models, the most recently used one last; of ``spec`` only, if one is given."""
        only = _key(spec) if spec else None
        with self._locked():
            return [
                entry.backend.result()
                for key, entry in self._entries.items()
                if entry.is_open and only in (None, key)
            ]

    def stats(self) -> CacheStats:
        with self._locked():
            opened = [entry for entry in self._entries.values() if entry.is_open]
            nbytes = sum(_nbytes(entry.backend.result()) for entry in opened)
            return CacheStats(self._hits, self._misses, self._evictions, nbytes, len(opened))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        finally:
            self._unload_discarded()

    def _unload_discarded(self) -> None:
        """Unloads what was discarded, unless another thread holds the lock, which then does it."""
        while self._discarded and self._lock.acquire(blocking=False):
            try:
                _, idle = self._remove(self._discarded.popleft())
            except IndexError:  # another thread was faster
                idle = []
            finally:
                self._lock.release()
            _close(idle)

    def _remove(self, spec: Spec) -> tuple[_Entry | None, list[_Entry]]:
        """Removes a model; the second part is what can be closed at once."""
        entry = self._entries.pop(_key(spec), None)
        if entry is not None:
            log.info("Unloading %s", _title(spec))
        return entry, self._mark_removed([entry] if entry else [])

    def _acquire(self, spec: Spec) -> tuple[_Entry, bool]:
        key = _key(spec)
        with self._locked():
            is_new = key not in self._entries
            entry = self._entries.setdefault(key, _Entry())
            entry.leases += 1
            self._entries.move_to_end(key)
            self._hits += not is_new
            self._misses += is_new
        return entry, is_new

    def _open(self, spec: Spec, entry: _Entry) -> None:
        try:
            backend = self._load(_without_adapters(spec))
        except BaseException as error:  # a host's interrupt too must not leave others waiting
            with self._locked():
                if self._entries.get(_key(spec)) is entry:
                    del self._entries[_key(spec)]
            entry.backend.set_exception(error)
        else:
            entry.backend.set_result(backend)

    def _release(self, entry: _Entry) -> None:
        with self._locked():
            entry.leases -= 1
            idle = [entry] if entry.removed and not entry.leases and entry.is_open else []
            idle += self._mark_removed(self._evict())
        _close(idle)

    def _evict(self) -> list[_Entry]:
        """Removes what exceeds ``max_bytes``, the least recently used first."""
        if self.max_bytes is None:
            return []
        opened = [(key, entry) for key, entry in self._entries.items() if entry.is_open]
        nbytes = sum(_nbytes(entry.backend.result()) for _, entry in opened)
        evicted = []
        for key, entry in opened[:-1]:
            if nbytes > self.max_bytes and not entry.leases:
                nbytes -= _nbytes(entry.backend.result())
                evicted.append(self._entries.pop(key))
        self._evictions += len(evicted)
        return evicted

    def _mark_removed(self, entries: list[_Entry]) -> list[_Entry]:
        """Marks entries that left the cache; returns those that are not leased."""
        for entry in entries:
            entry.removed = True
        return [entry for entry in entries if not entry.leases and entry.is_open]


def _key(spec: Spec) -> Spec:
    if not isinstance(spec, LocalSpec):
        return spec
    real = os.path.normcase(os.path.realpath(spec.checkpoint))
    return dataclasses.replace(spec, checkpoint=real, adapters=())


def _without_adapters(spec: Spec) -> Spec:
    return dataclasses.replace(spec, adapters=()) if isinstance(spec, LocalSpec) else spec


def _adapted(backend: Backend, spec: Spec) -> Backend:
    """``backend`` with the adapters of ``spec`` on. Raises ``BadOption`` where it takes none."""
    adapters = spec.adapters if isinstance(spec, LocalSpec) else ()
    if not adapters:
        return backend
    if not isinstance(backend, Adaptable):
        raise BadOption(f"{_title(spec)} takes no adapters: use it without LoRA.")
    return backend.with_adapters(adapters)


def _title(spec: Spec) -> str:
    if isinstance(spec, LocalSpec):
        return spec.checkpoint
    return spec.name or (spec.urls[0] if isinstance(spec, ServerSpec) else "")


def _nbytes(backend: Backend) -> int:
    return backend.nbytes if isinstance(backend, Resident) else 0


def _close(entries: list[_Entry]) -> None:
    for entry in entries:
        entry.backend.result().close()


def _open_checkpoint(spec: LocalSpec) -> Backend:
    from .backends.local import open_checkpoint

    return open_checkpoint(spec, CACHE.memory)


def _open_server(spec: ServerSpec) -> Backend:
    from .backends.openai_server import OpenAIServerBackend

    return OpenAIServerBackend(spec)


def _open_gguf(spec: GgufSpec) -> Backend:
    from .backends.gguf import open_gguf

    return open_gguf(spec, CACHE.memory)


_OPEN: Mapping[type, Callable[[Any], Backend]] = {
    LocalSpec: _open_checkpoint,
    ServerSpec: _open_server,
    GgufSpec: _open_gguf,
}


def _load(spec: Spec) -> Backend:
    return _OPEN[type(spec)](spec)


CACHE = ModelCache(_load)
"""The cache of this process."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from qwen_vl_suite.qwenvl.backends.scripted import ResidentScriptedBackend, ScriptedBackend
from qwen_vl_suite.qwenvl.errors import (
    BadOption,
    CheckpointNotFound,
    IncompleteCheckpoint,
)
from qwen_vl_suite.qwenvl.model_cache import CACHE, ModelCache
from qwen_vl_suite.qwenvl.types import Adapter, LocalSpec, ServerSpec

A, B, C = (LocalSpec(f"/models/{name}") for name in "abc")
SERVER = ServerSpec(("http://localhost:8000/v1",), "Qwen3-VL-8B")


class Loader:
    """Counts loads; ``gate`` holds them, ``fail`` breaks them."""

    def __init__(self):
        self.loads, self.opened, self.fail = [], [], None
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)

    def __call__(self, spec):
        self.loads.append(spec)
        self.begun.release()
        assert self.gate.wait(10)
        if self.fail:
            raise self.fail
        backend = ResidentScriptedBackend(size=10, place="ram")
        self.opened.append((spec, backend))
        return backend

    def spec_of(self, backend):
        return next(spec for spec, opened in self.opened if opened is backend)


@pytest.fixture
def loader():
    found = Loader()
    yield found
    assert all(backend.close_count <= 1 for _, backend in found.opened), "closed twice"


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def counts(cache):
    return dataclasses.astuple(cache.stats())


def test_equal_specs_are_one_model(loader):
    cache = ModelCache(loader)
    assert cache.get(A) is cache.get(LocalSpec("/models/a"))
    assert counts(cache) == (1, 1, 0, 10, 1)


def test_a_checkpoint_is_known_by_its_real_path(loader, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    cache = ModelCache(loader)
    paths = (tmp_path / "real", tmp_path / "link", "real", "./link/", "real/../real")
    assert len({id(cache.get(LocalSpec(str(path)))) for path in paths}) == 1


def test_a_server_is_known_by_its_addresses_and_model(loader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = ModelCache(loader)
    backend = cache.get(SERVER)
    assert cache.get(dataclasses.replace(SERVER, urls=(f"{SERVER.urls[0]}/",))) is backend
    assert cache.loaded(SERVER) == [backend]
    for other in ({"urls": ("http://other",)}, {"model": "other"}, {"family": "qwen3_vl"}):
        assert cache.get(dataclasses.replace(SERVER, **other)) is not backend
    assert cache.unload(SERVER) and backend.closed


def test_a_model_without_weights_here_takes_no_room(loader):
    cache = ModelCache(loader, max_bytes=20)
    a = cache.get(A)
    elsewhere = ScriptedBackend("a cat")
    cache._load = lambda spec: elsewhere
    with cache.lease(SERVER) as backend:
        assert backend is elsewhere
    assert counts(cache) == (0, 2, 0, 10, 2)
    cache._load = loader
    cache.get(B)
    assert not a.closed and not elsewhere.closed, "20 bytes are within the limit"
    cache.get(C)
    assert a.closed
    cache.clear()
    assert elsewhere.closed


def test_a_server_is_not_asked_before_it_has_to_be():
    with CACHE.lease(SERVER) as backend:  # nothing listens there
        assert backend.family.model_type == "qwen3_vl"
    assert CACHE.unload(SERVER)


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(LocalSpec) if f.name != "adapters"]
)
def test_every_field_of_the_spec_matters(loader, field):
    cache = ModelCache(loader)
    other = {"trust_remote_code": True}.get(field, "other")
    assert cache.get(A) is not cache.get(dataclasses.replace(A, **{field: other}))
    assert len(loader.loads) == 2


def test_adapters_are_put_on_the_one_model_that_there_is(loader):
    class Adaptable(ScriptedBackend):
        def with_adapters(self, adapters):
            return self, adapters

    cache, adapters = ModelCache(loader), (Adapter("/loras/a", 0.5),)
    adapted = dataclasses.replace(A, adapters=adapters)
    with pytest.raises(BadOption, match=r"/models/a takes no adapters"):
        cache.get(adapted)
    model = Adaptable("a cat")
    cache._load = lambda spec: model if spec == B else pytest.fail(f"loaded {spec}")
    assert cache.get(dataclasses.replace(B, adapters=adapters)) == (model, adapters)
    assert cache.get(B) is model and cache.loaded(dataclasses.replace(B, adapters=adapters))


def test_threads_that_ask_for_one_model_load_it_once(loader, pool):
    cache = ModelCache(loader)
    loader.gate.clear()
    waiting = [pool.submit(cache.get, A) for _ in range(8)]
    assert loader.begun.acquire(timeout=10)
    loader.gate.set()
    assert len({id(f.result(10)) for f in waiting}) == 1
    assert len(loader.loads) == 1
    assert counts(cache)[:2] == (7, 1)


def test_a_loaded_model_does_not_wait_for_another_load(loader, pool):
    cache = ModelCache(loader)
    backend = cache.get(A)
    loader.gate.clear()
    slow = pool.submit(cache.get, B)
    for _ in range(2):
        assert loader.begun.acquire(timeout=10)
    assert pool.submit(cache.get, A).result(5) is backend
    assert cache.stats().models == 1
    assert not slow.done()
    loader.gate.set()
    assert loader.spec_of(slow.result(10)) == B


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("error", [IncompleteCheckpoint("half"), Interrupt()])
def test_a_failed_load_reaches_every_waiter_and_is_not_kept(loader, pool, error):
    cache = ModelCache(loader)
    loader.fail = error
    loader.gate.clear()
    waiting = [pool.submit(cache.get, A) for _ in range(4)]
    assert loader.begun.acquire(timeout=10)
    while cache.stats().hits < 3:
        time.sleep(0.001)
    loader.gate.set()
    assert [f.exception(10) for f in waiting] == [error] * 4
    assert len(loader.loads) == 1
    assert cache.stats().models == 0
    loader.fail = None
    assert loader.spec_of(cache.get(A)) == A


def test_the_longest_unused_goes_first(loader):
    cache = ModelCache(loader, max_bytes=20)
    a, b = cache.get(A), cache.get(B)
    cache.get(A)
    c = cache.get(C)
    assert (a.closed, b.closed, c.closed) == (False, True, False)
    assert counts(cache) == (1, 3, 1, 20, 2)
    assert cache.get(B) is not b


def test_no_limit_evicts_nothing(loader):
    cache = ModelCache(loader)
    assert not any(backend.closed for backend in [cache.get(LocalSpec(str(i))) for i in range(50)])


def test_one_that_is_larger_than_the_limit_still_serves(loader):
    cache = ModelCache(loader, max_bytes=5)
    a = cache.get(A)
    assert not a.closed and cache.get(A) is a
    b = cache.get(B)
    assert a.closed and not b.closed


def test_bytes_are_measured_not_remembered(loader):
    cache = ModelCache(loader, max_bytes=20)
    a = cache.get(A)
    b = cache.get(B)
    a.size = 100
    assert cache.stats().bytes == 110
    c = cache.get(C)
    assert (a.closed, b.closed, c.closed) == (True, False, False)


def test_one_in_use_is_never_evicted(loader):
    cache = ModelCache(loader, max_bytes=10)
    with cache.lease(A) as a:
        b = cache.get(B)
        assert not a.closed and cache.get(A) is a
        c = cache.get(C)
        assert not a.closed and b.closed
    assert a.closed, "room is made as soon as the lease ends"
    assert not c.closed


def test_unload_waits_for_those_who_use_it(loader):
    cache = ModelCache(loader)
    with cache.lease(A) as first, cache.lease(A) as second:
        assert first is second
        assert cache.unload(A)
        assert not first.closed
        assert cache.get(A) is not first
    assert first.closed
    assert not cache.get(A).closed
    assert cache.unload(A)
    assert not cache.unload(A)
    assert cache.stats().models == 0


def test_discard_unloads_at_once_where_nobody_is_inside(loader):
    cache = ModelCache(loader)
    backend = cache.get(A)
    cache.discard(A)
    assert backend.closed
    cache.discard(A)


def test_discard_from_inside_the_cache_is_done_on_leaving_it(loader):
    """As when the garbage collector runs a finalizer amid the cache's own work."""
    cache = ModelCache(loader)
    backend = cache.get(A)

    class Sizes(ResidentScriptedBackend):
        @property
        def nbytes(self):
            cache.discard(A)
            assert not backend.closed
            return 1

    cache._load = lambda spec: Sizes()
    with cache.lease(B):
        cache.stats()
        assert backend.closed


def test_discard_waits_for_those_who_use_it(loader):
    cache = ModelCache(loader)
    with cache.lease(A) as backend:
        cache.discard(A)
        assert not backend.closed
    assert backend.closed


def test_dropping_the_last_reference_unloads(loader, tmp_path):
    real, link = tmp_path / "model", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    cache = ModelCache(loader)
    references = [cache.reference(LocalSpec(str(path))) for path in (real, link, real)]
    backend = cache.get(LocalSpec(str(real)))
    while references:
        assert not backend.closed
        references.pop()
        gc.collect()
    assert backend.closed


def test_a_reference_loads_nothing_and_unloads_no_other_model(loader):
    cache = ModelCache(loader)
    other = cache.get(B)
    cache.reference(A)
    gc.collect()
    assert loader.loads == [B] and not other.closed


def test_what_is_loaded_can_be_listed(loader):
    cache = ModelCache(loader)
    a, b = cache.get(A), cache.get(B)
    assert cache.loaded() == [a, b]
    assert cache.loaded(B) == [b]
    assert cache.loaded(C) == []


def test_clear_closes_everything(loader):
    cache = ModelCache(loader)
    idle = cache.get(A)
    with cache.lease(B) as used:
        cache.clear()
        assert idle.closed and not used.closed
    assert used.closed
    assert counts(cache)[3:] == (0, 0)


def test_unload_while_it_loads(loader, pool):
    cache = ModelCache(loader)

    def work():
        with cache.lease(A) as backend:
            return backend, backend.closed

    loader.gate.clear()
    running = pool.submit(work)
    assert loader.begun.acquire(timeout=10)
    assert cache.unload(A)
    loader.gate.set()
    backend, was_closed = running.result(10)
    assert not was_closed and backend.closed
    assert cache.get(A) is not backend


def test_an_error_in_the_work_ends_the_lease(loader):
    cache = ModelCache(loader)
    with pytest.raises(KeyError), cache.lease(A) as backend:
        raise KeyError
    assert cache.unload(A) and backend.closed


def test_many_threads_under_a_small_limit(loader, pool):
    cache = ModelCache(loader, max_bytes=20)

    def work(number):
        with cache.lease(LocalSpec(str(number % 5))) as backend:
            assert not backend.closed
            time.sleep(0.001)
            assert not backend.closed

    list(pool.map(work, range(200)))
    stats = cache.stats()
    assert stats.hits + stats.misses == 200
    assert stats.misses - stats.evictions == stats.models <= 2


def test_the_processs_cache_loads_through_the_backend(tmp_path):
    before = CACHE.stats().models  # other tests may have loaded some
    with pytest.raises(CheckpointNotFound):
        CACHE.get(LocalSpec(str(tmp_path / "nothing")))
    assert CACHE.stats().models == before

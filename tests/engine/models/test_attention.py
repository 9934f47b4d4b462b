"""Attention kernels that are left out while prompts run."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from qwen_vl_suite.qwenvl.models.attention import without_cudnn
from torch.backends.cuda import cudnn_sdp_enabled, enable_cudnn_sdp


@pytest.fixture(params=[True, False])
def before(request: pytest.FixtureRequest) -> Iterator[bool]:
    own = cudnn_sdp_enabled()
    enable_cudnn_sdp(request.param)
    yield request.param
    enable_cudnn_sdp(own)


def test_cudnn_is_off_in_the_block_and_as_before_behind_it(before: bool) -> None:
    with pytest.raises(ZeroDivisionError), without_cudnn():
        assert not cudnn_sdp_enabled()
        raise ZeroDivisionError
    assert cudnn_sdp_enabled() == before


def test_blocks_of_two_threads_overlap(before: bool) -> None:
    """The second begins before the first ends, and ends after it."""
    inside, leave, seen = threading.Event(), threading.Event(), []

    def second() -> None:
        with without_cudnn():
            inside.set()
            leave.wait(30)
            seen.append(cudnn_sdp_enabled())

    thread = threading.Thread(target=second)
    with without_cudnn():
        thread.start()
        assert inside.wait(30)
    assert not cudnn_sdp_enabled(), "the other block runs on"
    leave.set()
    thread.join()
    assert seen == [False]
    assert cudnn_sdp_enabled() == before

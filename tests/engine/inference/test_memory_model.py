"""Memory model and admission limits: no model needed."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits, TokenNeed


@given(
    sizes=st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=12),
    rows=st.integers(1, 8),
    nbytes=st.none() | st.integers(1, 5000),
)
def test_limits_admit_what_is_within_all_of_them(sizes, rows, nbytes) -> None:
    needs = [TokenNeed(prompt, answer) for prompt, answer in sizes]

    def peak_bytes(batch: Sequence[TokenNeed]) -> int:
        return sum(need.prompt for need in batch)

    fits = len(needs) <= rows and (nbytes is None or peak_bytes(needs) <= nbytes)
    assert BatchLimits(rows, nbytes).admit(needs, peak_bytes) == fits

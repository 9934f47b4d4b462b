"""Tensors of a checkpoint by type."""

from __future__ import annotations

FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
"""Plain floating-point types, as safetensors headers name them."""

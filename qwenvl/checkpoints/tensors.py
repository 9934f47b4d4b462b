"""Tensors of a checkpoint by name and type: which are floats, and which are not part of the model
that is loaded."""

from __future__ import annotations

MTP_PREFIX = "mtp."
"""Name prefix of multi-token-prediction (MTP) weights, the draft head of speculative decoding."""

NOT_LOADED_PREFIXES = (MTP_PREFIX, "talker.", "token2wav.")
"""Name prefixes of what checkpoints hold beside the model itself: the MTP head, and the speaking
half of Qwen2.5-Omni."""

FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
"""Plain floating-point types, as safetensors headers name them."""

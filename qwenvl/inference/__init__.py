"""Inference: continuous batching over a KV cache, sampling, speculative decoding."""

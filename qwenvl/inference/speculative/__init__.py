"""Speculative decoding: drafts of several tokens, verified in one pass."""

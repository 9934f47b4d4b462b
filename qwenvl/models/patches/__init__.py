"""Patches: modules of the library replaced by faster ones that compute the same."""

"""Patches: changes to the modules of the library's models that compute the same, faster."""

"""Command line: ``python -m qwenvl``."""

"""Prompts: chat templates and tokens."""

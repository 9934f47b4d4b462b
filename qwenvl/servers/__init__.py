"""Servers: models behind the OpenAI chat protocol, asked from this machine."""

"""Conversations: values that go on turn by turn, how they are asked, and their form as JSON."""

from .asking import Ask, Reply, ask_all, will_think
from .conversation import Attachment, Conversation, Media, Reference, Turn, digest
from .history import Kind, dumps, loads, references

__all__ = [
    "Ask",
    "Attachment",
    "Conversation",
    "Kind",
    "Media",
    "Reference",
    "Reply",
    "Turn",
    "ask_all",
    "digest",
    "dumps",
    "loads",
    "references",
    "will_think",
]

"""ChatML prompts: a conversation as text, for models that come without their chat template.

A text encoder in a host's graph has a tokenizer but no template of its makers' own. What their
templates add to plain ChatML is in the family's row (``types.ChatForm``).
"""

from __future__ import annotations

import re

from ..errors import BadOption
from ..types import Family, Image, Message, Part, Request
from ..unicode import well_formed
from .chat_template import THINK_END, THINK_START

# What would be read as a control token: "<|…|>", and the tags of thoughts and tools.
_CONTROL = re.compile(r"<(?=\|\w+\|>|/?(?:think|tool_call|tool_response)>)")


class ChatML:
    """Prompts for a model of ``family``. ``thinking_edition``: it is the edition that always
    thinks, of a family that has two; nothing in its weights tells."""

    def __init__(self, family: Family, thinking_edition: bool = False):
        self.family = family
        self._always = thinking_edition and family.chat.thinking == "edition"

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """See ``Backend.thinks``."""
        if effort:
            raise BadOption(
                f"{self.family.title} has no reasoning_effort: leave it at the model's default."
            )
        if self.family.chat.thinking == "switch":
            return bool(wish)
        if wish is not None and wish != self._always:
            raise BadOption(
                "This model cannot think before it answers: set thinking to the model's default."
                if wish
                else "The Thinking edition always thinks before it answers: set thinking to the "
                "model's default, or use the Instruct edition."
            )
        return self._always

    def prompt(self, request: Request) -> str:
        """The text of the conversation, with one image token for each picture, up to the beginning
        of the answer. Raises ``BadOption`` for what ``request`` shows beside pictures, and as
        ``thinks`` does."""
        thinks = self.thinks(request.thinking, request.reasoning_effort)
        if request.preserve_thinking:
            raise BadOption(
                f"{self.family.title} drops the thoughts of earlier answers: turn "
                "preserve_thinking off."
            )
        messages = request.messages
        if self.family.chat.system and messages[0].role != "system":
            messages = (Message("system", (self.family.chat.system,)), *messages)
        turns = "".join(
            f"<|im_start|>{message.role}\n{''.join(map(self._content, message.parts))}<|im_end|>\n"
            for message in messages
        )
        return f"{turns}<|im_start|>assistant\n{self._thought(thinks)}"

    def _thought(self, thinks: bool) -> str:
        """What stands at the beginning of an answer."""
        if thinks:
            return f"{THINK_START}\n"
        is_off = self.family.chat.thinking == "switch"
        return f"{THINK_START}\n\n{THINK_END}\n\n" if is_off else ""

    def _content(self, part: Part) -> str:
        if isinstance(part, str):
            return _CONTROL.sub("< ", well_formed(part))
        if isinstance(part, Image):
            family = self.family
            return f"{family.vision_start}{family.image_token}{family.vision_end}"
        raise BadOption(
            "This model is shown pictures only, no videos or sounds. Give frames of the video as "
            "pictures, or choose a model in the Qwen-VL Loader."
        )

"""Writing of prompts: an idea and pictures to a prompt for an image or video model. What a target
model wants is data, in ``targets/``."""

from .choices import choose
from .order import MOST_TRIES, Order
from .target import Target, Targets, read_targets
from .wishes import Wishes, listed

__all__ = ["MOST_TRIES", "Order", "Target", "Targets", "Wishes", "choose", "listed", "read_targets"]

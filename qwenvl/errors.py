"""Exceptions of the engine, worded for the user: what is wrong, with what value, what to do.

::

    QwenVLError
    ├── CheckpointError
    │   ├── CheckpointNotFound      no such folder or catalogue name
    │   ├── IncompleteCheckpoint    files are missing, short or unreadable
    │   ├── UnsupportedModel        this model_type cannot be loaded here
    │   ├── RemoteCodeRefused       needs Python from the checkpoint, which was not allowed
    │   └── DownloadError           the hub did not give the files
    ├── UnsuitableModel             this model cannot do what it is asked for; another one can
    ├── BadOption                   an option's value is invalid (also a ValueError)
    ├── BadImage                    a picture that no model can take (also a ValueError)
    │   ├── BadAudio                a sound that no model can hear
    │   ├── BadDocument             a file of pages none of which can be read
    │   └── BadVideo                a video of which no frame can be read
    ├── NumericalError              the model computed NaN instead of an answer
    ├── OutOfMemory                 weights or a request are too large for the free memory
    ├── Unavailable                 something this machine lacks (attention, quantization, ...)
    ├── ServerError                 a server cannot be reached, or gives no answer
    └── UnreadableReply             the model answered, but not in the form asked for
"""

from __future__ import annotations

from typing import TypeVar

from .unicode import well_formed

E = TypeVar("E", bound=BaseException)


class QwenVLError(Exception):
    """Base of all errors that the engine raises on purpose. The message is valid Unicode, whatever
    it quotes."""

    def __init__(self, message: str = ""):
        super().__init__(well_formed(message))


class CheckpointError(QwenVLError):
    """Something is wrong with a checkpoint on disk or on the hub."""


class CheckpointNotFound(CheckpointError):
    """There is no folder with a ``config.json`` under the given name."""


class IncompleteCheckpoint(CheckpointError):
    """A checkpoint lacks files or holds cut-off ones. ``missing`` names them."""

    def __init__(self, message: str, missing: tuple[str, ...] = ()):
        super().__init__(message)
        self.missing = missing


class UnsupportedModel(CheckpointError):
    """The checkpoint is intact, but the engine cannot run it."""


class RemoteCodeRefused(CheckpointError):
    """The checkpoint needs its own Python code, which the user has not allowed."""


class DownloadError(CheckpointError):
    """A download failed or was refused. Files that are complete are kept for the next try."""


class UnsuitableModel(QwenVLError):
    """A model was asked for what it cannot do, such as an embedding model for a description."""


class BadOption(QwenVLError, ValueError):
    """An option's value is outside its range or set."""


class BadImage(QwenVLError, ValueError):
    """A picture has a shape, type or content that no model can take."""


class BadDocument(BadImage):
    """A document that cannot be opened: encrypted, damaged, empty, or missing."""


class BadAudio(BadImage):
    """A sound that cannot be read, is empty, or too short or too long for a model to hear."""


class BadVideo(BadImage):
    """A video of which no frame can be read: no video at all, damaged, empty, or missing."""


class Unavailable(QwenVLError):
    """An explicit choice (attention, quantization, precision, device) is not possible here."""


class NumericalError(QwenVLError, ArithmeticError):
    """The model's values overflowed, so that its output would be noise."""


class OutOfMemory(QwenVLError):
    """Memory does not suffice, even for one request by itself."""


class ServerError(QwenVLError):
    """A server cannot be reached, refuses what it is asked, or gives no answer in time.
    ``status``: the HTTP status that it gave last; 0 where it gave none."""

    def __init__(self, message: str = "", status: int = 0):
        super().__init__(message)
        self.status = status


class UnreadableReply(QwenVLError):
    """A reply is not in the form that was asked for. ``raw`` is the whole reply."""

    def __init__(self, message: str, raw: str):
        super().__init__(message)
        self.raw = raw


def unloaded() -> QwenVLError:
    """The error of requests to a model that is closed before they are answered."""
    return QwenVLError("This model was unloaded while requests were waiting.")


def without_frames(error: E) -> E:
    """``error``, which is kept, without its traceback: that would keep what was read, such as a
    video's frames, as long, and by a circle until Python looks for such."""
    part: BaseException | None = error
    while part is not None:
        part.__traceback__ = None
        part = part.__cause__ or part.__context__
    return error

"""The engine's errors, worded for the person at the graph: what is wrong, the value, what to do.

::

    QwenVLError
    ├── CheckpointError
    │   ├── CheckpointNotFound      no such folder or catalogue name
    │   ├── IncompleteCheckpoint    files are missing, short or unreadable
    │   ├── UnsupportedModel        this model_type cannot be loaded here
    │   ├── RemoteCodeRefused       needs Python from the checkpoint, which was not allowed
    │   └── DownloadError           the hub did not give the files
    ├── BadOption                   a value outside what it may be (also a ValueError)
    ├── BadImage                    a picture no model can be given (also a ValueError)
    ├── NumericalError              the model computed NaN instead of an answer
    ├── OutOfMemory                 weights or a request are too large for the free memory
    ├── Unavailable                 a wish this machine cannot meet (attention, quantization, ...)
    └── UnreadableReply             the model answered, but not in the form asked for
"""

from __future__ import annotations

from .unicode import well_formed


class QwenVLError(Exception):
    """Base of all errors that the engine raises on purpose. Its words can be printed and saved,
    whatever they quote."""

    def __init__(self, message: str = ""):
        super().__init__(well_formed(message))


class CheckpointError(QwenVLError):
    """Something is wrong with a checkpoint on disk or on the hub."""


class CheckpointNotFound(CheckpointError):
    """No folder with a ``config.json`` stands where one was named."""


class IncompleteCheckpoint(CheckpointError):
    """A checkpoint lacks files or holds cut-off ones. ``missing`` names them."""

    def __init__(self, message: str, missing: tuple[str, ...] = ()):
        super().__init__(message)
        self.missing = missing


class UnsupportedModel(CheckpointError):
    """The checkpoint is sound, but nothing here can run it."""


class RemoteCodeRefused(CheckpointError):
    """The checkpoint brings its own Python code, and nobody allowed it to run."""


class DownloadError(CheckpointError):
    """A download failed or was refused. What already came is kept for the next try."""


class BadOption(QwenVLError, ValueError):
    """An option's value is outside its range or set."""


class BadImage(QwenVLError, ValueError):
    """A picture has a shape, type or content that no model can be given."""


class Unavailable(QwenVLError):
    """An explicit wish (attention, quantization, precision, device) cannot be met here."""


class NumericalError(QwenVLError, ArithmeticError):
    """The model's numbers overflowed; whatever it would write is noise."""


class OutOfMemory(QwenVLError):
    """Memory does not suffice, even for one request by itself."""


class UnreadableReply(QwenVLError):
    """A reply is not in the form that was asked for. ``raw`` is the whole reply."""

    def __init__(self, message: str, raw: str):
        super().__init__(message)
        self.raw = raw

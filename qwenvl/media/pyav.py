"""PyAV: options with which a file is opened and no other beside it, and samples of its frames."""

from __future__ import annotations

from typing import Any

NAMING_OTHERS = {
    *("applehttp", "avisynth", "concat", "dash", "hls", "imf", "lavfi"),
    *("rtp", "rtsp", "sap", "sdp", "vapoursynth", "vobsub"),
}
"""Formats of FFmpeg whose files name others, wherever these are, or addresses or commands."""


def container_options(av: Any) -> dict[str, str]:
    """``container_options`` of ``av.open``: a file that names others is refused before any of them
    is opened, with ``ArgumentError``."""
    formats = sorted(av.formats_available - NAMING_OTHERS)
    return {"format_whitelist": ",".join(formats), "protocol_whitelist": "file"}


def container_of(av: Any, file: Any) -> Any:
    """The container of ``file``, a path or a file object. Old tags are in any encoding: PyAV 19
    reads them all, older ones must be told not to fail."""
    older = int(av.__version__.split(".")[0]) < 19
    told = {"metadata_errors": "replace"} if older else {}
    return av.open(file, container_options=container_options(av), **told)


def channels_of(frame: Any) -> Any:
    """A frame of floats ``flt``, one channel after the other in each sample, as a float32 array
    ``[channels, N]``. PyAV crashes on planes of their own (``fltp``) where they are eight."""
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T

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


def channels_of(frame: Any) -> Any:
    """A frame of floats ``flt``, one channel after the other in each sample, as a float32 array
    ``[channels, N]``. PyAV crashes on planes of their own (``fltp``) where they are eight."""
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T

"""The host: everything that talks to ComfyUI itself, such as folders, devices, memory, progress
and the page.

Each part of ComfyUI is imported on its own and only when it is needed, so that a missing one (an
older release, a runtime without a server) costs only the feature that uses it.
"""

from .clip_backend import ClipBackend
from .folder_progress import FolderProgress
from .folders import (
    FOLDER_KEY,
    adapter_library,
    consents,
    download_folder,
    input_file,
    input_names,
    known_file,
    media_folder,
    model_library,
    model_roots,
    place_of,
    private_folder,
    register_folders,
    text_tokenizers,
    user_folder,
)
from .graph import execution_blocker, pairs_with_whole_batch
from .machine import device, devices, movable_memory, total_memory
from .memory import manager
from .page import picked_boxes_ui, results_ui, send_live, send_results
from .progress import DownloadProgress, NodeObserver, ProgressBar, check_interrupt
from .routes import accept_json, serve_json
from .video import clip_of, components, of_frames, trimmed

__all__ = [
    "FOLDER_KEY",
    "ClipBackend",
    "DownloadProgress",
    "FolderProgress",
    "NodeObserver",
    "ProgressBar",
    "accept_json",
    "adapter_library",
    "check_interrupt",
    "clip_of",
    "components",
    "consents",
    "device",
    "devices",
    "download_folder",
    "execution_blocker",
    "input_file",
    "input_names",
    "known_file",
    "manager",
    "media_folder",
    "model_library",
    "model_roots",
    "movable_memory",
    "of_frames",
    "pairs_with_whole_batch",
    "picked_boxes_ui",
    "place_of",
    "private_folder",
    "register_folders",
    "results_ui",
    "send_live",
    "send_results",
    "serve_json",
    "text_tokenizers",
    "total_memory",
    "trimmed",
    "user_folder",
]

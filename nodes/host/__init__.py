"""The only room that talks to ComfyUI itself: folders, devices, memory, progress, pages.

Each part of ComfyUI is fetched by itself and when it is needed, so that one that is missing (an
older release, a runtime without a server) costs only what it was for.
"""

from .folders import FOLDER_KEY, download_folder, model_library, model_roots, register_folders
from .graph import blocked, pairs_with_whole_batch
from .machine import device, devices, movable_memory, total_memory
from .memory import manager
from .page import live, picked, report, shown
from .progress import Bar, DownloadProgress, NodeWatch, check_interrupt
from .routes import serve

__all__ = [
    "FOLDER_KEY",
    "Bar",
    "DownloadProgress",
    "NodeWatch",
    "blocked",
    "check_interrupt",
    "device",
    "devices",
    "download_folder",
    "live",
    "manager",
    "model_library",
    "model_roots",
    "movable_memory",
    "pairs_with_whole_batch",
    "picked",
    "register_folders",
    "report",
    "serve",
    "shown",
    "total_memory",
]

"""The pack's ComfyUI extension: the list of its nodes, and what is set up at start."""

from __future__ import annotations

import logging

from comfy_api.latest import ComfyExtension, io

from ..qwenvl.model_cache import CACHE
from ..qwenvl.servers import keys_file
from ..qwenvl.servers.keys import KEYS
from . import forecast, gguf, host, servers, styles

log = logging.getLogger(__name__)


def nodes() -> list[type[io.ComfyNode]]:
    """Every node class, in the order of the menu."""
    from .box_format import BoxFormat
    from .caption_folder import CaptionFolder
    from .chat import Chat
    from .describe import Describe
    from .example_picture import ExamplePicture
    from .extract import Extract
    from .from_clip import FromCLIP
    from .gguf import GGUF
    from .grounding import Grounding
    from .layout import Layout
    from .listen import Listen
    from .load_pdf import LoadPDF
    from .loader import Loader
    from .lora import LoRA
    from .ocr import OCR
    from .pick_boxes import PickBoxes
    from .prompt import Prompt
    from .score import Score
    from .server import Server
    from .unload import Unload
    from .video import Video

    return [
        Loader,
        LoRA,
        FromCLIP,
        Server,
        GGUF,
        Describe,
        Chat,
        OCR,
        Grounding,
        Extract,
        Layout,
        Score,
        Video,
        Listen,
        Prompt,
        CaptionFolder,
        PickBoxes,
        BoxFormat,
        LoadPDF,
        Unload,
        ExamplePicture,
    ]


class QwenVLSuite(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        try:
            # Not in on_load, which only ComfyUI 0.14 and later calls.
            host.register_folders()
            CACHE.memory = host.manager()
            KEYS.file = host.private_folder() / keys_file.NAME
            host.serve_json(forecast.ROUTE, forecast.forecast)
            host.serve_json(gguf.ROUTE, gguf.forecast)
            host.serve_json(styles.ROUTE, styles.words)
            host.accept_json("/qwen_vl/download_size", forecast.download_size)
            host.accept_json("/qwen_vl/allow_download", forecast.allow_download)
            host.accept_json(servers.ROUTE, servers.listed, is_slow=True)
            return nodes()
        except Exception:
            # Some hosts swallow the exception, and the nodes would just be missing.
            log.exception("Qwen-VL Suite could not load its nodes")
            raise

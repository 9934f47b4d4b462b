"""An extension for tests: makes ComfyUI believe that it has one small graphics card.

``cpu:0`` is a device of its own to ComfyUI and the CPU to torch, so models are "moved" there and
back and ComfyUI keeps its books of it, while the tensors stay in RAM. The card's free memory is
its size less what ComfyUI believes is loaded there.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
from typing import Any

import comfy.model_management as management
import psutil
import torch
from aiohttp import web
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import ComfyExtension, io
from server import PromptServer

CARD = torch.device("cpu", 0)
MB = 1024 * 1024
# ComfyUI wants this much free for the work of any model, whatever its size.
BESIDE = int(management.minimum_inference_memory())

size = BESIDE + 300 * MB
really_cpu = management.is_device_cpu
really_free = management.get_free_memory


def get_free_memory(device: Any = None, torch_free_too: bool = False) -> Any:
    device = CARD if device is None else device
    if device != CARD:
        return really_free(device, torch_free_too)
    loaded = (item for item in management.current_loaded_models if item.device == CARD)
    free = size - sum(item.model_loaded_memory() for item in loaded if item.model is not None)
    return (free, 0) if torch_free_too else free


management.get_torch_device = lambda: CARD
management.get_free_memory = get_free_memory
management.is_device_cpu = lambda device: device != CARD and really_cpu(device)

# What the command line says of memory, which ComfyUI passed over for want of a card.
STATES = {
    "gpu_only": "HIGH_VRAM",
    "highvram": "HIGH_VRAM",
    "lowvram": "LOW_VRAM",
    "novram": "NO_VRAM",
}
asked = (state for option, state in STATES.items() if getattr(args, option))
management.vram_state = management.VRAMState[next(asked, "NORMAL_VRAM")]


class Diffusion(torch.nn.Module):
    """As large as is asked, and as idle."""

    def __init__(self, megabytes: int):
        super().__init__()
        self.weights = torch.nn.Linear(MB // 4, megabytes, bias=False)


kept: dict[int, ModelPatcher] = {}


class PretendSampling(io.ComfyNode):
    """Brings a diffusion model to the card, as sampling does first of all."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PretendSampling",
            inputs=[
                io.AnyType.Input("after", optional=True),
                io.Int.Input("megabytes", default=298),
                io.Int.Input("seed", default=0),
            ],
            outputs=[io.Int.Output("loaded")],
        )

    @classmethod
    def execute(cls, megabytes: int, seed: int, after: Any = None) -> io.NodeOutput:
        if megabytes not in kept:
            elsewhere = management.unet_offload_device()
            kept[megabytes] = ModelPatcher(Diffusion(megabytes), CARD, elsewhere)
        management.load_models_gpu([kept[megabytes]])
        return io.NodeOutput(kept[megabytes].loaded_size())


class PretendStyle(io.ComfyNode):
    """A style of description that is known only after ``after``."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PretendStyle",
            inputs=[io.AnyType.Input("after")],
            outputs=[io.AnyType.Output("style")],
        )

    @classmethod
    def execute(cls, after: Any) -> io.NodeOutput:
        return io.NodeOutput("detailed")


def _cache() -> Any:
    """The cache of the pack under test, which ComfyUI imported under a name made of its path."""
    (name,) = (name for name in sys.modules if name.endswith("qwen-vl-suite.qwenvl.model_cache"))
    return sys.modules[name].CACHE


@PromptServer.instance.routes.get("/pretend_card")
async def state(request: web.Request) -> web.Response:
    """What is loaded where: by ComfyUI's books and by ours."""
    books = [
        {
            "model": type(item.model.model).__name__,
            "on_card": item.device == CARD,
            "bytes": item.model_loaded_memory(),
        }
        for item in management.current_loaded_models
        if item.model is not None
    ]
    ours = [
        {"place": backend.weights.place, "bytes": backend.nbytes} for backend in _cache().loaded()
    ]
    return web.json_response(
        {
            "vram_state": management.vram_state.name,
            "comfyui": books,
            "ours": ours,
            "requests": dataclasses.asdict(_cache().stats()),
            "resident": psutil.Process(os.getpid()).memory_info().rss,
            "free": get_free_memory(CARD),
        }
    )


@PromptServer.instance.routes.get("/pretend_card/tensors")
async def tensors(request: web.Request) -> web.Response:
    """Bytes of all tensors that are alive in this process, each piece of memory counted once."""
    gc.collect()
    storages = (item.untyped_storage() for item in gc.get_objects() if _is_tensor(item))
    return web.json_response(sum({item.data_ptr(): item.nbytes() for item in storages}.values()))


def _is_tensor(item: Any) -> bool:
    # By type: some libraries' objects import or compute something when they are asked for more.
    plain = issubclass(type(item), torch.Tensor) and item.layout == torch.strided
    return plain and item.device.type != "meta"


class PretendCard(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [PretendSampling, PretendStyle]


async def comfy_entrypoint() -> PretendCard:
    return PretendCard()

"""Example Picture node: the pictures that come with the pack, for trying its nodes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from comfy_api.latest import io

from ..qwenvl.errors import BadOption
from ..qwenvl.media import images
from . import panels, sockets

FOLDER = Path(__file__).resolve().parents[1] / "example_workflows" / "pictures"


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.png"))


class ExamplePicture(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_ExamplePicture",
            display_name="Qwen-VL Example Picture",
            description="A picture that comes with the pack and that the bundled demo model "
            "understands: plain shapes, printed words. For pictures of your own use Load Image.",
            search_aliases=["demo image", "sample image", "test picture", "nano"],
            panels=panels.ERRORS | panels.example_picture("picture"),
            inputs=[
                io.Combo.Input(
                    "picture",
                    options=names(),
                    default="both",
                    tooltip="both: shapes and a word. page: three printed lines. shapes: four "
                    "shapes. sign: two shapes and a word. words: two words and a number.",
                )
            ],
            outputs=[io.Image.Output("image", tooltip="The picture, a batch of one.")],
        )

    @classmethod
    def fingerprint_inputs(cls, picture: str) -> str:
        return hashlib.sha256(_file(picture).read_bytes()).hexdigest()

    @classmethod
    def execute(cls, picture: str) -> io.NodeOutput:
        return io.NodeOutput(images.to_image([images.read(_file(picture))]))


def _file(picture: str) -> Path:
    """Path of the picture. Raises ``BadOption`` for any other name, such as a path."""
    if picture not in names():
        raise BadOption(f"There is no example picture {picture!r}: choose {', '.join(names())}.")
    return FOLDER / f"{picture}.png"

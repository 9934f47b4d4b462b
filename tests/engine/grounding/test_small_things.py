"""Tiles with the bundled model: small things in a large picture that it does not see at once."""

from __future__ import annotations

import random
from contextlib import closing

import numpy as np
import torch
from PIL import Image, ImageDraw
from qwen_vl_suite.qwenvl.backends.local import open_checkpoint
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.doctor.matching import matched
from qwen_vl_suite.qwenvl.doctor.scenes.scene import Occupied
from qwen_vl_suite.qwenvl.doctor.scenes.shapes import draw_shape
from qwen_vl_suite.qwenvl.grounding import search
from qwen_vl_suite.qwenvl.run import Query, answer_all
from qwen_vl_suite.qwenvl.types import LocalSpec

SIDE, SCALE = 1024, 4


def test_tiles_find_what_the_whole_picture_is_too_small_for() -> None:
    rng = random.Random("i")
    picture = Image.new("RGB", (SIDE, SIDE), (240, 240, 235))
    pen, occupied = ImageDraw.Draw(picture), Occupied()
    unit = SIDE / 224 / SCALE
    drawn = [draw_shape(rng, pen, unit, picture.size, occupied) for _ in range(8)]
    kinds = sorted({shape.kind for shape in drawn if shape})[:2]
    truth = [(shape.kind, shape.box) for shape in drawn if shape and shape.kind in kinds]
    pixels = torch.from_numpy(np.array(picture)).movedim(-1, 0)

    def found(tile: int) -> tuple[int, int]:
        how = search("\n".join(kinds), tile=tile)
        (result,) = answer_all(backend, [Query(how.task, pixels, method=how.method)])
        boxes = [(box.label, (box.x1, box.y1, box.x2, box.y2)) for box in result.boxes]
        return sum(iou >= 0.5 for iou in matched(truth, boxes)), len(boxes)

    with closing(open_checkpoint(LocalSpec(str(library.BUNDLED), device="cpu"))) as backend:
        whole, _ = found(0)
        hits, boxes = found(SIDE // 2)
    assert whole <= len(truth) / 2
    assert hits >= 0.75 * len(truth)
    assert boxes <= len(truth) + 1, "each thing once"

"""VIDEOs of a real ComfyUI, trimmed and made of frames, to the Video node and back."""

from __future__ import annotations

import json
import shutil
from typing import Any

import av
import pytest
from graphs import loader, preview
from real import ROOT, Server

pytestmark = pytest.mark.comfyui


def graph(source: dict[str, Any], video: list[Any]) -> dict[str, Any]:
    return {
        **source,
        "model": loader(),
        "watch": {
            "class_type": "QVL_Video",
            "inputs": {
                "model": ["model", 0],
                "video": video,
                "task": "track",
                "task.thing": "red circle",
                "task.gaps": "leave",
                "frames": "interval",
                "frames.seconds": 0.5,
                "seed": 0,
            },
        },
        "events": preview("watch", 1),
        "times": preview("watch", 2),
        "clips": {
            "class_type": "SaveVideo",
            "inputs": {
                "video": ["watch", 4],
                "filename_prefix": "clip",
                "format": "auto",
                "codec": "auto",
            },
        },
    }


def said(outputs: dict[str, Any], node: str) -> Any:
    return json.loads(outputs[node]["text"][0])


def seconds(server: Server, outputs: dict[str, Any]) -> float:
    (saved,) = outputs["clips"]["images"]
    path = server.base / "output" / saved["subfolder"] / saved["filename"]
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        return float(stream.duration * stream.time_base)


def test_a_trimmed_video_is_watched_as_it_was_trimmed(server: Server) -> None:
    """The circle is there for the first four seconds of the file."""
    folder = server.base / "input"
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "example_workflows/videos/example.mp4", folder / "watched.mp4")
    source = {
        "load": {"class_type": "LoadVideo", "inputs": {"file": "watched.mp4"}},
        "trim": {
            "class_type": "Video Slice",
            "inputs": {
                "video": ["load", 0],
                "start_time": 2.0,
                "duration": 3.0,
                "strict_duration": False,
            },
        },
    }
    outputs = server.run(graph(source, ["trim", 0]))
    assert said(outputs, "times") == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5], abs=0.1)
    (event,) = said(outputs, "events")
    assert (event["start"], event["end"]) == pytest.approx((0.0, 2.0), abs=0.1)
    assert seconds(server, outputs) == pytest.approx(2.0, abs=0.2)


def test_a_video_made_of_frames_keeps_its_rate(server: Server) -> None:
    source = {
        "picture": {"class_type": "QVL_ExamplePicture", "inputs": {"picture": "shapes"}},
        "frames": {
            "class_type": "RepeatImageBatch",
            "inputs": {"image": ["picture", 0], "amount": 8},
        },
        "made": {"class_type": "CreateVideo", "inputs": {"images": ["frames", 0], "fps": 4.0}},
    }
    outputs = server.run(graph(source, ["made", 0]))
    assert said(outputs, "times") == [0, 0.5, 1, 1.5]
    (event,) = said(outputs, "events")
    assert (event["start"], event["end"]) == (0, 1.5)
    assert seconds(server, outputs) == pytest.approx(1.5, abs=0.3)

"""The bundled demo model: trains a tiny Qwen3-VL on drawn scenes, evaluates it.

The scenes are the engine's own (`qwenvl/doctor/scenes`). See README.md.
"""

if __package__ == "nano":  # python -m nano.train, in the pack's folder
    from qwenvl import constraints, model_cache, run, score, types
    from qwenvl.doctor import matching, scenes
    from qwenvl.media import frame_times as video
    from qwenvl.tasks.describe import describe
    from qwenvl.tasks.describe_video import describe_video
    from qwenvl.tasks.events import events
    from qwenvl.tasks.extract import extract
    from qwenvl.tasks.ground import ground
else:  # a part of the pack
    from ..qwenvl import constraints, model_cache, run, score, types
    from ..qwenvl.doctor import matching, scenes
    from ..qwenvl.media import frame_times as video
    from ..qwenvl.tasks.describe import describe
    from ..qwenvl.tasks.describe_video import describe_video
    from ..qwenvl.tasks.events import events
    from ..qwenvl.tasks.extract import extract
    from ..qwenvl.tasks.ground import ground

__all__ = [
    "constraints",
    "describe",
    "describe_video",
    "events",
    "extract",
    "ground",
    "matching",
    "model_cache",
    "run",
    "scenes",
    "score",
    "types",
    "video",
]

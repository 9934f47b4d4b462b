"""The bundled demo model: trains a tiny Qwen3-VL on drawn scenes, evaluates it.

The scenes are the engine's own (`qwenvl/doctor/scenes`). See README.md.
"""

if __package__ == "nano":  # python -m nano.train, in the pack's folder
    from qwenvl.doctor import matching, scenes
else:  # a part of the pack
    from ..qwenvl.doctor import matching, scenes

__all__ = ["matching", "scenes"]

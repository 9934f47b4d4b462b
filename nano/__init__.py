"""The bundled demo model: draws scenes, trains a tiny Qwen3-VL on them, evaluates it.

See README.md.
"""

"""Runs before ComfyUI looks for a graphics card, and keeps it from looking.

As ``--cpu`` does, which ComfyUI does not take together with ``--gpu-only`` and its like.
"""

from comfy.cli_args import args

args.cpu = True

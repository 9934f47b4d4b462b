"""Checkpoints: names, folders, files and downloads. No torch."""

"""Reading of pages in several requests: tiles of large ones, and their lines put together. What one
request asks, and how its reply is read, is ``tasks.ocr``."""

from .tiling import AUTO, OFF, TileReading, tile_reading

__all__ = ["AUTO", "OFF", "TileReading", "tile_reading"]

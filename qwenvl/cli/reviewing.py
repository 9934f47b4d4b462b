"""The review command: captions of a folder on a local page."""

from __future__ import annotations

import argparse
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from .captioning import job_of
from .model_options import spec_of
from .output import print_message

if TYPE_CHECKING:
    from ..reviewing import Asker, Collection

WAIT = 5.0
"""Seconds that a model gets to end what it writes, when the page is ended."""


def review(options: argparse.Namespace) -> None:
    """Serves the page until it is stopped."""
    from ..folders import trainer
    from ..reviewing import Collection, ReviewServer

    collection = Collection(Path(options.folder), trainer(options.trainer, options.caption_ext))
    asker = _asker(options, collection)
    with ReviewServer(collection, asker, options.port) as server:
        collection.start()
        print_message(f"{server.url}\nCtrl-C ends it. Whoever knows the address can use it.")
        if not options.no_browser:
            # In a thread: a browser in the terminal returns when it is left.
            threading.Thread(
                target=webbrowser.open, args=(server.opening_url,), daemon=True
            ).start()
        try:
            server.serve_forever()
        finally:
            collection.close()
            if asker:
                asker.stop()
                asker.wait(WAIT)


def _asker(options: argparse.Namespace, collection: Collection) -> Asker | None:
    """None where no model is named: this command loads none unless it is asked to."""
    from ..model_cache import CACHE
    from ..reviewing import Asker

    spec = spec_of(options)
    if options.model is None and options.server is None:
        return None
    return Asker(collection, job_of(options, spec), lambda: CACHE.lease(spec), spec.name)

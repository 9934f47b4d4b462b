"""Caption review: pictures beside their captions on a local page, to be searched and corrected.

::

    collection = Collection(Path("pictures"), trainer("kohya"))
    with ReviewServer(collection) as server:
        print(server.url)
        server.serve_forever()

``Collection`` lists, searches, edits and undoes; ``Asker`` asks a model again; ``ReviewServer``
shows both to a browser on this machine.
"""

from .asker import Asker
from .collection import Collection
from .edits import Conflict
from .server import ReviewServer

__all__ = ["Asker", "Collection", "Conflict", "ReviewServer"]

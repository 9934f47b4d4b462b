"""Whole folders: every picture and clip captioned, in the files and the form that trainers read.

The road of the command line and of the node is one call::

    job = Job(Path("pictures"), Asking(describe("training")), trainer("kohya"))
    summary = caption_folder(backend, job, reporter, observer)

``Job`` says what is wanted, ``Reporter`` is told of each file, ``Summary`` holds the counts;
``survey(job, reporter)`` only tells what would be done. What
was captioned is safe at any moment: a run that was stopped, killed or switched off goes on where it
was when the same job is given again.
"""

from .asking import Asking
from .bundled_model import check_bundled
from .captioning import caption_folder, survey
from .job import Job, Reporter, Summary, model_of
from .listing import Item, Shard, listing
from .reading import Sizes
from .sidecars import Existing
from .templates import Template
from .trainers import Trainer, trainer, trainers

__all__ = [
    "Asking",
    "Existing",
    "Item",
    "Job",
    "Reporter",
    "Shard",
    "Sizes",
    "Summary",
    "Template",
    "Trainer",
    "caption_folder",
    "check_bundled",
    "listing",
    "model_of",
    "survey",
    "trainer",
    "trainers",
]

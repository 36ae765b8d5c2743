"""All that is checked about the data sets that a config names, before training.

registered.py  which it may name
contents.py    what their files say
pictures.py    the pictures, and those that are in several
judging.py     what models are judged on, also after training
everything.py  all of it, and what follows for the phases
"""

from .contents import check_contents
from .everything import check_run_data
from .judging import check_judging_sets
from .pictures import check_pictures
from .registered import check_data_sets

__all__ = [
    "check_contents",
    "check_data_sets",
    "check_judging_sets",
    "check_pictures",
    "check_run_data",
]

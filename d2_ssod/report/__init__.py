"""``report.html``: what a run did, as a page to look at, from the files that it has left.

collect.py       the run's numbers, read from its folder
images.py        its pictures, predictions and labels, as far as they are there
results.py       how good the models are, and what to use, in a sentence
labels.py        where the pseudo-labels come from: thresholds, classes, counts
review.py        which unlabeled images are worth a person's look
label_errors.py  which labels of the labeled images a model contradicts
sealed.py        files to work with, which stay as a person has changed them
pictures.py      small pictures with boxes on them
sheets.py        which pictures are shown
figures.py       curves and bars
steps.py         what the run has done, and how long it took
making.py        how the run was made: machine, versions, settings
page.py          all of that as one file
"""

from .page import report_run, write_report, write_yolo

__all__ = ["report_run", "write_report", "write_yolo"]

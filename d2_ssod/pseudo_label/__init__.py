"""From a model's detections to the pseudo labels of a phase, in the order of Algorithm 1.

detections.py   the boxes of one image (``Detections``) and of a data set (``Predictions``)
predict.py      1. what a model sees on the unlabeled images
threshold.py    2. one score threshold per class, by matching counts
consensus.py    3. what the models of all phases so far agree on
select.py       4. the images that are easy, that is, certain
store.py        5. the files between the phases
build.py        steps 2-4 in one pure function
"""

from .build import PseudoLabels, build_pseudo_labels
from .consensus import consensus, intersect, vote
from .corrected import load_pseudo_labels
from .detections import (
    Detections,
    ImageId,
    Predictions,
    concatenate,
    from_instances,
    to_instances,
)
from .predict import evaluation_mode, predict
from .select import Selection, easy_fraction, select_easiest
from .store import (
    load_predictions,
    save_predictions,
    save_pseudo_labels,
    write_manifest,
)
from .threshold import Thresholds, keep_best, match_counts, objects_per_image

__all__ = [
    "Detections",
    "ImageId",
    "Predictions",
    "PseudoLabels",
    "Selection",
    "Thresholds",
    "build_pseudo_labels",
    "concatenate",
    "consensus",
    "easy_fraction",
    "evaluation_mode",
    "from_instances",
    "intersect",
    "keep_best",
    "load_predictions",
    "load_pseudo_labels",
    "match_counts",
    "objects_per_image",
    "predict",
    "save_predictions",
    "save_pseudo_labels",
    "select_easiest",
    "to_instances",
    "vote",
    "write_manifest",
]

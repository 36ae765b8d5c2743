"""From detections of several models to the pseudo-labels of a phase, in the order of Algorithm 1.

Pure functions: no files, no model.

threshold.py    1. one score threshold per class, by matching counts
sources.py      what all models found, before and after that
consensus.py    2. what the models of all phases so far agree on
tiers.py        1., 2. instead: fused boxes of all models, in two tiers of certainty, by ...
fuse.py         ... weighted boxes fusion that counts the models
pairs.py        the boxes of many images compared at once
rules.py        which of these two makes the labels, or a rule of one's own
select.py       3. the images that are easy, that is, certain (Eq. 1)
build.py        these steps in one function
shares.py       parts of a number, rounded down as in decimals
guards.py       signs that the labels do harm
quality.py      how right they are, where the truth is known
"""

from .build import PseudoLabels, build_pseudo_labels
from .consensus import Consensus
from .guards import Guard
from .quality import JudgedBoxes, LabelQuality, TrueObjects, judge_boxes, measure_labels
from .rules import LABEL_RULES, LabelRule, MakesLabels
from .select import IMAGE_SCORES, Selection, easy_fraction, select_easiest
from .sources import Sources
from .threshold import Thresholds, keep_best, match_counts, objects_per_image
from .tiers import Tiers

__all__ = [
    "IMAGE_SCORES",
    "LABEL_RULES",
    "Consensus",
    "Guard",
    "JudgedBoxes",
    "LabelQuality",
    "LabelRule",
    "MakesLabels",
    "PseudoLabels",
    "Selection",
    "Sources",
    "Thresholds",
    "Tiers",
    "TrueObjects",
    "build_pseudo_labels",
    "easy_fraction",
    "judge_boxes",
    "keep_best",
    "match_counts",
    "measure_labels",
    "objects_per_image",
    "select_easiest",
]

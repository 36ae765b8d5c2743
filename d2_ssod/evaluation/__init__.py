"""How good the phases are, alone and together.

fusion.py       weighted boxes fusion of the boxes of several models in one image (``Fusion``)
ensemble.py     several detectors that look like one (``EnsembleRCNN``)
coco_metrics.py COCO's metrics of boxes
ground_truth.py by what a data set is judged
evaluators.py   COCO's metrics and Pascal VOC's, and which of them judges a data set
label_truth.py  the objects of the unlabeled images, where they are known
difficulty.py   which images are easy, for a model or by the data set
evaluate.py     one pass over the test images for all phases and ensembles
summary.py      the results as ``summary.json`` and as a table
yardstick.py    which figures may be compared
run.py          all of that for what a run has left in its folder
"""

from .coco_metrics import Metrics
from .difficulty import difficulty_subsets, easy_images
from .ensemble import EnsembleRCNN, fuse_outputs
from .evaluate import PhaseResults, evaluate_phases, evaluate_rows
from .evaluators import BoxEvaluator, VocEvaluator, build_evaluator
from .fusion import Fusion
from .ground_truth import evaluator_kind, ground_truth, read_voc_truth
from .label_truth import load_truth
from .run import evaluate_run, judged_on, validate
from .summary import format_metrics, format_table, summarize
from .yardstick import yardstick

__all__ = [
    "BoxEvaluator",
    "EnsembleRCNN",
    "Fusion",
    "Metrics",
    "PhaseResults",
    "VocEvaluator",
    "build_evaluator",
    "difficulty_subsets",
    "easy_images",
    "evaluate_phases",
    "evaluate_rows",
    "evaluate_run",
    "evaluator_kind",
    "format_metrics",
    "format_table",
    "fuse_outputs",
    "ground_truth",
    "judged_on",
    "load_truth",
    "read_voc_truth",
    "summarize",
    "validate",
    "yardstick",
]

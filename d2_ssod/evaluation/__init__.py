"""How good the phases are, alone and together.

fusion.py       weighted boxes fusion of the boxes of several models in one image
ensemble.py     several detectors that look like one (``EnsembleRCNN``)
evaluate.py     one pass over the test images for all phases and ensembles
summary.py      the results as ``summary.json`` and as a table
difficulty.py   which images are easy for a model
"""

from .difficulty import easy_images
from .ensemble import EnsembleRCNN, fuse_outputs
from .evaluate import (
    BoxEvaluator,
    PhaseResults,
    build_evaluator,
    difficulty_subsets,
    evaluate_phases,
    evaluator_kind,
)
from .fusion import TUNED_WEIGHTS, fuse, preset_weights
from .summary import format_table, summarize

__all__ = [
    "TUNED_WEIGHTS",
    "BoxEvaluator",
    "EnsembleRCNN",
    "PhaseResults",
    "build_evaluator",
    "difficulty_subsets",
    "easy_images",
    "evaluate_phases",
    "evaluator_kind",
    "format_table",
    "fuse",
    "fuse_outputs",
    "preset_weights",
    "summarize",
]

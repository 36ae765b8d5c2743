"""Everything that a run leaves on disk: one file for each kind of file.

layout.py                which file lies where in ``OUTPUT_DIR``
checkpoints.py           models: written whole or not at all, loaded by phase
predictions.py           ``predictions.json``: a model's raw detections, as COCO results
partial_predictions.py   those of a pass over the images that has not ended
provenance.py            ``predictions_source.json``: which images and settings they are of
pseudo_labels.py         ``pseudo_labels.json``: what a phase trains on, as COCO instances
manifest.py              ``manifest.json``: how the pseudo-labels came about
"""

from .checkpoints import AtomicCheckpointer, load_phase_model
from .layout import PhaseFolder, RunFolder
from .manifest import write_manifest
from .partial_predictions import (
    discard_partial_predictions,
    keep_partial_predictions,
    load_partial_predictions,
)
from .predictions import load_predictions, save_predictions
from .provenance import check_predictions, prediction_source
from .pseudo_labels import load_pseudo_labels, save_pseudo_labels

__all__ = [
    "AtomicCheckpointer",
    "PhaseFolder",
    "RunFolder",
    "check_predictions",
    "discard_partial_predictions",
    "keep_partial_predictions",
    "load_partial_predictions",
    "load_phase_model",
    "load_predictions",
    "load_pseudo_labels",
    "prediction_source",
    "save_predictions",
    "save_pseudo_labels",
    "write_manifest",
]

"""Everything that a run leaves on disk: one file for each kind of file.

layout.py                which file lies where in ``OUTPUT_DIR``
checkpoints.py           models: written whole or not at all, loaded by phase
checkpoint_files.py      ... what their files must be to be read
predictions.py           ``predictions.json``: a model's raw detections, as COCO results
partial_predictions.py   those of a pass over the images that has not ended
earlier_predictions.py   those that were made before images were added
provenance.py            ``predictions_source.json``: which images and settings they are of
moved_files.py           ... which images these are now
pseudo_labels.py         ``pseudo_labels.json``: what a phase trains on, as COCO instances
label_files.py           ... or as a labeling tool has them: reading these
image_names.py           ... and which images their names mean
digests.py               hashes of images' objects and of files
file_lengths.py          lengths of pictures' files
settings.py              which config keys detections, labels, a training, metrics depend on
differences.py           what differs between the settings of before and now
yolo.py                  boxes as YOLO's text files, for other tools
trained_with.py          ``trained_with.json``: settings, labels and weights of a phase's training
initial_weights.py       ... which weights from elsewhere these are
architecture.py          ... whether a model is the one that a config describes
taken_from.py            ``taken_from.json``: which model from elsewhere phase 0 is
history.py               ``history.jsonl``: what the run did and how long it took
summary.py               ``summary.json``: how good the models are on the test images
validation.py            ``validation.json``: metrics on the validation images, and the best phase
run_classes.py           ``classes.json``: the classes that the models find
lock.py                  one run at a time in a folder
manifest.py              ``manifest.json``: how the pseudo-labels came about
"""

from .architecture import differences_unseen
from .checkpoint_files import DamagedCheckpoint
from .checkpoints import (
    AtomicCheckpointer,
    half_written_files,
    load_model,
    load_phase_model,
)
from .differences import differences_between, refuse
from .digests import digest_of, digest_of_file
from .earlier_predictions import (
    load_earlier_predictions,
    load_predictions_by_file,
    set_aside_predictions,
)
from .file_lengths import forget_lengths
from .history import read_history, record_event, timed_event
from .label_files import (
    correction_files,
    count_pseudo_labels,
    load_labels,
    load_pseudo_labels,
)
from .layout import PhaseFolder, RunFolder
from .lock import lock_folder, release_folder
from .manifest import check_label_settings, were_changed, write_manifest
from .moved_files import match_files
from .partial_predictions import (
    discard_partial_predictions,
    keep_partial_predictions,
    load_partial_predictions,
)
from .predictions import load_predictions, save_predictions
from .provenance import (
    check_predictions,
    noted_files,
    prediction_source,
    read_source,
)
from .pseudo_labels import is_of_models, save_pseudo_labels
from .run_classes import check_classes, class_differences, load_classes, save_classes
from .settings import evaluation_settings, judging_settings, label_settings
from .summary import (
    Summary,
    load_own_summary,
    load_summaries,
    load_summary,
    numbers_in,
    summaries_of_phase,
    summary_path,
)
from .taken_from import TakenFrom, read_taken_from, write_taken_from
from .trained_with import (
    check_training,
    counts_of_training,
    digest_of_learned,
    had_teacher,
    has_learned,
    has_learned_unlabeled,
    record_training,
)
from .validation import (
    best_of,
    best_phase,
    best_phases,
    better_ensemble,
    discard_validations,
    ensembles_of,
    keep_best_model,
    load_validated,
    load_validated_ensembles,
    load_validation,
    save_ensemble_validation,
    save_validation,
    title_of_ensemble,
    yardstick_of,
)
from .yolo import (
    check_has_no_yolo_data,
    labels_of_a_person,
    save_yolo,
    save_yolo_data,
    unique_stems,
)

__all__ = [
    "AtomicCheckpointer",
    "DamagedCheckpoint",
    "PhaseFolder",
    "RunFolder",
    "Summary",
    "TakenFrom",
    "best_of",
    "best_phase",
    "best_phases",
    "better_ensemble",
    "check_classes",
    "check_has_no_yolo_data",
    "check_label_settings",
    "check_predictions",
    "check_training",
    "class_differences",
    "correction_files",
    "count_pseudo_labels",
    "counts_of_training",
    "differences_between",
    "differences_unseen",
    "digest_of",
    "digest_of_file",
    "digest_of_learned",
    "discard_partial_predictions",
    "discard_validations",
    "ensembles_of",
    "evaluation_settings",
    "forget_lengths",
    "had_teacher",
    "half_written_files",
    "has_learned",
    "has_learned_unlabeled",
    "is_of_models",
    "judging_settings",
    "keep_best_model",
    "keep_partial_predictions",
    "label_settings",
    "labels_of_a_person",
    "load_classes",
    "load_earlier_predictions",
    "load_labels",
    "load_model",
    "load_own_summary",
    "load_partial_predictions",
    "load_phase_model",
    "load_predictions",
    "load_predictions_by_file",
    "load_pseudo_labels",
    "load_summaries",
    "load_summary",
    "load_validated",
    "load_validated_ensembles",
    "load_validation",
    "lock_folder",
    "match_files",
    "noted_files",
    "numbers_in",
    "prediction_source",
    "read_history",
    "read_source",
    "read_taken_from",
    "record_event",
    "record_training",
    "refuse",
    "release_folder",
    "save_classes",
    "save_ensemble_validation",
    "save_predictions",
    "save_pseudo_labels",
    "save_validation",
    "save_yolo",
    "save_yolo_data",
    "set_aside_predictions",
    "summaries_of_phase",
    "summary_path",
    "timed_event",
    "title_of_ensemble",
    "unique_stems",
    "were_changed",
    "write_manifest",
    "write_taken_from",
    "yardstick_of",
]

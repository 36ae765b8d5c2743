"""Files that are damaged or by another hand: each is read, or refused in one line."""

import copy
import json
import os

import pytest
from fuzz import damages
from hypothesis import HealthCheck, given, settings
from runs import bare_config
from samples import CATEGORY_IDS, FOUND

from d2_ssod.artifacts import (
    RunFolder,
    check_predictions,
    check_training,
    load_predictions,
    load_pseudo_labels,
    prediction_source,
    record_training,
    save_predictions,
    save_pseudo_labels,
)
from d2_ssod.errors import ConfigError

IMAGES = [
    {"image_id": i, "file_name": f"/data/{i}.png", "width": 100, "height": 80} for i in (1, 3, 5)
]
CLASSES = ["cat", "dog"]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 50))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Phase 0 of a run, whose files are whole."""
    root = tmp_path_factory.mktemp("run")
    files, cfg = RunFolder(root).phase(0), bare_config(root)
    save_predictions(files.predictions, FOUND, CATEGORY_IDS)
    save_pseudo_labels(files.pseudo_labels, FOUND, IMAGES, CLASSES, CATEGORY_IDS)
    record_training(cfg, 0, [], RunFolder(root))
    files.predictions_source.write_text(json.dumps(prediction_source(cfg, IMAGES[:2])))
    return root


def reads(folder):
    """By the name of the file: what reads it."""
    files, cfg = RunFolder(folder).phase(0), bare_config(folder)
    return {
        "predictions": lambda: load_predictions(files.predictions, [1, 3, 5], CATEGORY_IDS),
        "pseudo_labels": lambda: load_pseudo_labels(files.pseudo_labels, IMAGES, CLASSES),
        "trained_with": lambda: check_training(cfg, 0, [], RunFolder(folder)),
        "predictions_source": lambda: check_predictions(cfg, 0, IMAGES),
    }


@pytest.mark.parametrize(
    "name", ["predictions", "pseudo_labels", "trained_with", "predictions_source"]
)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(damage=damages())
def test_damaged_files_are_read_or_refused_in_one_line(folder, name, damage):
    path = getattr(RunFolder(folder).phase(0), name)
    whole = path.read_text()
    try:
        path.write_text(json.dumps(damage(copy.deepcopy(json.loads(whole)))))
        try:
            reads(folder)[name]()
        except ConfigError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert "phase" in str(error)  # noqa: PT017  the file, or what it is of
    finally:
        path.write_text(whole)

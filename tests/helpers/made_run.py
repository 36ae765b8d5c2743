"""The folder of a run as training would leave it, made without training."""

from __future__ import annotations

import itertools
import json

import numpy as np
from pictures import coco_contents, save_picture, write_coco
from runs import bare_config
from samples import detections

from d2_ssod.artifacts import (
    RunFolder,
    record_event,
    save_classes,
    save_predictions,
    save_pseudo_labels,
    write_manifest,
)
from d2_ssod.data.datasets import register_from_config
from d2_ssod.json_files import write_json
from d2_ssod.pseudo_label import build_pseudo_labels

SIDE = 64  # pixels of the pictures


def metrics(ap50, **more):
    return {"AP": ap50 / 2, "AP50": ap50, "AP75": ap50 / 4, **more}


_numbers = itertools.count()


def make_run(folder, *, classes=("cat", "dog"), ap50=(40.0, 50.0, 38.0), images=6):
    """Make pictures, data sets with names of their own, and the files of a run of two phases."""
    name = f"made_{next(_numbers)}"
    data = folder / "data"
    sides = {"width": SIDE, "height": SIDE}
    contents = coco_contents(images, [(10, 10, 20, 20)], classes, **sides)
    labeled = write_coco(data / "labeled", contents)
    names = [image["file_name"] for image in contents["images"]]
    for file in names:
        save_picture(data / "unlabeled" / file, SIDE, SIDE)
    cfg = bare_config(folder / "run")
    cfg.SSOD.NUM_PHASES = 2
    cfg.SSOD.REGISTER = [
        {"NAME": f"{name}_labeled", "JSON": str(labeled), "IMAGES": str(labeled.parent)},
        {"NAME": f"{name}_unlabeled", "IMAGES": str(data / "unlabeled")},
    ]
    cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED = (f"{name}_labeled",), (f"{name}_unlabeled",)
    register_from_config(cfg.SSOD.REGISTER, "SSOD.REGISTER")
    run = RunFolder(cfg.OUTPUT_DIR)
    run.root.mkdir()
    run.config.write_text(cfg.dump())
    save_classes(run, classes)
    _leave_phases(run, data, names, classes)
    _leave_summary(run, classes, ap50)
    return cfg


def _leave_phases(run, data, names, classes):
    ids = range(1, len(classes) + 1)
    unlabeled = [
        {"image_id": n, "file_name": str(data / "unlabeled" / file), "width": SIDE, "height": SIDE}
        for n, file in enumerate(names, start=1)
    ]
    # Both models see a cat in every image, the second one sees another in the last one.
    first = {n: detections((10, 10, 30, 30, 0.9 - n / 50, 0)) for n in range(1, len(names) + 1)}
    second = {n: detections((11, 10, 30, 30, 0.95 - n / 50, 0)) for n in first}
    second[len(names)] = detections((10, 10, 30, 30, 0.6, 0), (40, 40, 60, 60, 0.55, 0))
    target = np.zeros(len(classes))
    target[0] = 1.0
    for phase, sources in ((1, [first]), (2, [first, second])):
        files = run.phase(phase - 1)
        files.folder.mkdir(exist_ok=True)
        files.model.touch()
        save_predictions(files.predictions, sources[-1], ids)
        labels = build_pseudo_labels(sources, target, fraction=phase / 2)
        write_manifest(
            run.phase(phase).manifest,
            labels,
            models=[f"phase_{n}/model_final.pth" for n in range(phase)],
            thing_classes=classes,
        )
        save_pseudo_labels(run.phase(phase).pseudo_labels, labels.selected, unlabeled, classes, ids)
        rows = [{"iteration": n, "total_loss": 3 - n / 10} for n in (19, 39)]
        run.phase(phase).metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.phase(2).model.touch()
    # In the second labeled image it sees a dog in place of the cat.
    found = {n: detections((10, 10, 30, 30, 0.9, int(n == 2))) for n in first}
    save_predictions(run.phase(2).labeled_predictions, found, ids)
    record_event(run, "started", torch="2.0", processes=1)
    record_event(run, "trained", phase=0, iterations=40, images_per_batch=8, seconds=90.0)
    text = "Phase 1: classes vanish (dog 0.0%)"
    record_event(run, "guard", name="VANISHED_CLASS", phase=1, text=text)


def _leave_summary(run, classes, ap50):
    counts = {"labeled_images": 6, "pseudo_images": 3, "pseudo_boxes": 4}
    of_class = [{f"AP-{name}": value + 3 * n for n, name in enumerate(classes)} for value in ap50]
    write_json(
        run.summary(),
        {
            "dataset": "made_test",
            "phases": [
                {"phase": n, **counts, "metrics": metrics(value, **of_class[n])}
                for n, value in enumerate(ap50)
            ],
            "ensembles": {"1~N": metrics(ap50[-1] + 4), "0~N": metrics(ap50[-1] + 14)},
        },
    )

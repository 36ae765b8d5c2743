"""The report as one file that needs nothing else."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils import comm
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from d2_ssod.artifacts import correction_files, load_labels, save_yolo_data
from d2_ssod.data.datasets import category_ids_of
from d2_ssod.data.objects import num_objects
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import atomic_open
from d2_ssod.progress import progress_bar
from d2_ssod.pseudo_label import Tiers, objects_per_image
from d2_ssod.structures import ImageId, Predictions, concatenate

from . import figures, making
from .collect import Run, collect
from .images import RunImages
from .label_errors import Suspect, suspect_labels, write_suspects
from .labels import LabelTable
from .results import NOISE, Results, signed, verdict
from .review import Review, go_on_with, rank_images, write_queue
from .sheets import describe_suspect, suspects_sheet, unlabeled_sheets
from .steps import steps_of

logger = logging.getLogger(__name__)

_SHOWN = 50  # rows of a long table
_MEAN_WEIGHT = "roi_weighting/weights_mean"


def write_report(
    cfg: CfgNode,
    *,
    control: str | Path | None = None,
    images_to_label: int = 200,
    problems: Sequence[str] = (),
) -> Path:
    """Write ``OUTPUT_DIR/report.html`` and ``review/`` from what a run has left so far.

    Args:
        cfg: the run's config, with ``OUTPUT_DIR`` where it lies now.
        control: the folder of another run, such as of labeled images only, to compare with.
        images_to_label: how many images ``review/queue.json`` has.
        problems: what is known to be missing, such as data sets that lie elsewhere now.

    Raises:
        ConfigError: ``control`` is no run that has ended.
    """
    run = collect(cfg, None if control is None else Path(control))
    run.problems.extend(problems)
    content = _content(run, images_to_label)
    templates = Environment(
        loader=PackageLoader("d2_ssod.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["number"] = _number
    templates.filters["signed"] = signed
    for name in ("report.css", "report.js"):
        source, _, _ = templates.loader.get_source(templates, name)
        content[name.replace(".", "_")] = Markup(source)
    page = templates.get_template("report.html").render(content)
    with atomic_open(run.folder.report, "wb") as file:
        file.write(page.encode(errors="replace"))  # names of files need not be in any encoding
    return run.folder.report


def write_yolo(cfg: CfgNode, folder: str | Path, *, problems: Sequence[str] = ()) -> Path:
    """Write the pseudo-labels of the last phase that has any as YOLO's text files.

    Uncertain ones, which such files do not know, are left out; the log says how many.

    Args:
        cfg: the run's config.
        folder: gets ``labels/`` and ``data.yaml``, of which it has none yet.
        problems: as in :func:`write_report`.

    Raises:
        ConfigError: the folder has labels, the run has none, or the unlabeled images cannot be
            read.
    """
    folder, run = Path(folder), collect(cfg)
    run.problems.extend(problems)
    images = RunImages(run)
    if not images.labels:
        made = any(phase.files.pseudo_labels.exists() for phase in run.phases)
        reason = (made and "; ".join(run.problems)) or "no phase has any yet"
        raise ConfigError(f"{run.folder.root}: no pseudo-labels to write ({reason})")
    labels, uncertain = images.certain_labels(run.phases[max(images.labels)])
    if uncertain:
        logger.warning(
            "%s: %d uncertain boxes (SSOD.LABELS: tiers) are left out, and images that have no "
            "others",
            *(folder, uncertain),
        )
    save_yolo_data(folder, list(images.unlabeled.values()), labels, run.classes)
    return folder


def report_run(cfg: CfgNode, of_run: Callable[[CfgNode], CfgNode] | None = None) -> None:
    """Write the report at the end of a run, on the main process, unless ``SSOD.REPORT`` is False.

    What was trained is worth more than its report: whatever goes wrong here is a warning.

    Args:
        cfg: what was done now.
        of_run: gives the config by which the run was trained, if that may be another one.
    """
    if not cfg.SSOD.REPORT or not comm.is_main_process():
        return
    logger.info("Writing the report: minutes, where there are millions of boxes")
    try:
        logger.info("Report: %s", write_report(cfg if of_run is None else of_run(cfg)))
    except Exception as error:
        logger.warning("The report could not be written: %s: %s", type(error).__name__, error)
        logger.debug("Traceback:", exc_info=True)


def _content(run: Run, images_to_label: int) -> dict[str, Any]:
    """Collect all that the page shows."""
    images, results = RunImages(run), Results.of(run)
    queue = _queue(run, images, images_to_label)
    suspects = _suspects(run, images)
    sheets = unlabeled_sheets(images, queue, run.classes)
    if suspects:
        sheets.append(suspects_sheet(suspects, run.classes))
    tables = [phase.labels for phase in run.phases if phase.labels is not None]
    return {
        "title": run.folder.root.resolve().name,
        "folder": str(run.folder.root),
        "made": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "verdict": verdict(run, results),
        "guards": making.guards_of(run),
        "results": results,
        "noise": NOISE,
        "phases": run.phases,
        "ap_bars": figures.ap_bars(results),
        "label_tables": tables,
        "least_share": run.cfg.SSOD.GUARD.CLASS_SHARE,
        "label_figures": {table.phase: _label_figures(images, table) for table in tables},
        "training_figures": _training_figures(run),
        "sheets": sheets,
        "queue": queue[:_SHOWN],
        "queue_length": len(queue),
        **_to_go_on(run.cfg),
        "to_label": min(images_to_label, len(queue)),
        "suspects": [(s, describe_suspect(s, run.classes)) for s in suspects[:_SHOWN]],
        "suspects_length": len(suspects),
        "steps": steps_of(run.history),
        "duration": making.duration,
        "starts": making.starts_of(run),
        "settings": making.changed_settings(run.cfg),
        "problems": list(dict.fromkeys(run.problems)),  # the last, as all has been read now
    }


def _queue(run: Run, images: RunImages, images_to_label: int) -> list[Review]:
    """Sort the unlabeled images, and write the files of it; none without predictions."""
    sources = list(images.predictions.values())
    if not sources:
        return []
    target = objects_per_image(images.labeled, len(run.classes))
    corrected = run.cfg.SSOD.PSEUDO_LABEL.CORRECTED
    done = _corrected(run, images) if corrected else set()
    if done is None:
        return []
    queue = [
        review
        for review in rank_images(images.unlabeled, sources, target, Tiers.from_config(run.cfg))
        if review.image["image_id"] not in done
    ]
    ids = category_ids_of(run.cfg.DATASETS.TRAIN[0])
    unlabeled = list(images.unlabeled.values())
    write_queue(run.folder, queue, unlabeled, run.classes, ids, images_to_label, corrected)
    return queue


def _to_go_on(cfg: CfgNode) -> dict[str, str]:
    """Say how corrections come back: beside those of the rounds before, if there are any."""
    before = cfg.SSOD.PSEUDO_LABEL.CORRECTED
    if not before:
        return {"go_on": go_on_with(cfg, "file.json"), "beside": ""}
    if os.path.isdir(before):
        return {"go_on": go_on_with(cfg, before), "beside": f"put into {before}"}
    return {"go_on": go_on_with(cfg, "folder"), "beside": f"put into one folder with {before}"}


def _corrected(run: Run, images: RunImages) -> set[ImageId] | None:
    """Find the images whose labels are a person's already; None if their file cannot be read."""
    path, unlabeled = run.cfg.SSOD.PSEUDO_LABEL.CORRECTED, list(images.unlabeled.values())
    found = run.read(
        lambda: [i for f in correction_files(path) for i in load_labels(f, unlabeled, run.classes)],
        None,
    )
    if found is None:
        run.problems.append(
            f"which images are corrected already is not known without {path} "
            "(SSOD.PSEUDO_LABEL.CORRECTED, from the folder that the run was started in): the files "
            "of images to label in review/ stay as they are"
        )
        return None
    return {image["image_id"] for image in found}


def _suspects(run: Run, images: RunImages) -> list[Suspect]:
    """Compare the labels with what the last model sees, and write the file of it."""
    if not images.on_labeled:
        return []
    pairs = progress_bar(list(images.on_labeled.values()), description="Comparing labels")
    suspects = suspect_labels(pairs)
    write_suspects(run.folder, suspects, run.classes)
    return suspects


def _label_figures(images: RunImages, table: LabelTable) -> list[Markup]:
    phase = table.phase
    labels = images.labels.get(phase, {})
    scores = {
        f"model {number}, all boxes": _scores(images.predictions[number])
        for number in range(phase)
        if number in images.predictions
    }
    if labels:
        scores["labels kept"] = _scores(labels)
    drawn = [
        figures.score_histogram(scores, f"Scores of boxes, phase {phase}"),
        figures.boxes_per_image(
            {
                "labeled images": _objects_per_image(images.labeled),
                "pseudo-labeled images": np.array([len(found) for found in labels.values()]),
            },
            f"Boxes per image, phase {phase}",
        ),
        figures.label_quality(table.quality, f"Precision and recall of the labels, phase {phase}"),
    ]
    return [figure for figure in drawn if figure is not None]


def _training_figures(run: Run) -> list[Markup]:
    drawn = [figures.curves(run.phases, "total_loss", "Loss while training", "total loss")]
    known = {key for phase in run.phases for row in phase.curves for key in row}
    for key in sorted(key for key in known if key.endswith(_MEAN_WEIGHT)):
        stage = key.removesuffix(_MEAN_WEIGHT).strip("/")  # of a cascade
        of_stage = f" ({stage})" if stage else ""
        title = f"Weights of background regions: mean, and range of 10 to 90 %{of_stage}"
        drawn.append(figures.curves(run.phases, key, title, f"weight{of_stage}"))
    return [figure for figure in drawn if figure is not None]


def _scores(predictions: Predictions) -> np.ndarray:
    return concatenate(list(predictions.values())).scores


def _objects_per_image(images: Sequence[dict]) -> np.ndarray:
    return np.array([num_objects(image) for image in images])


def _number(value: float | None, decimals: int = 1) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"

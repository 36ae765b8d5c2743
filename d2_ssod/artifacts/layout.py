"""Which file of a run lies where in its output folder."""

from __future__ import annotations

import os
from pathlib import Path


class RunFolder:
    """``OUTPUT_DIR`` of a run."""

    def __init__(self, output_dir: str | os.PathLike) -> None:
        self.root = Path(output_dir)

    def phase(self, phase: int) -> PhaseFolder:
        """Give the folder of one of the phases 0..N."""
        return PhaseFolder(self.root / f"phase_{phase}")

    @property
    def config(self) -> Path:
        """The config that the run was last started with."""
        return self.root / "config.yaml"

    @property
    def log(self) -> Path:
        """What the run has said, and more; other ranks have files beside it."""
        return self.root / "log.txt"

    @property
    def classes(self) -> Path:
        """Names of the classes that its models find."""
        return self.root / "classes.json"

    @property
    def history(self) -> Path:
        """What the run did and how long it took."""
        return self.root / "history.jsonl"

    @property
    def report(self) -> Path:
        """All of it as a page to look at."""
        return self.root / "report.html"

    @property
    def review(self) -> Path:
        """Folder of what is worth a person's look: images to label, labels to check."""
        return self.root / "review"

    @property
    def validation(self) -> Path:
        """How good the ensembles are on the validation images."""
        return self.root / "validation.json"

    @property
    def best(self) -> Path:
        """Weights of the phase that is best on the validation images."""
        return self.root / "model_best.pth"

    def summary(self, dataset_name: str | None = None) -> Path:
        """Name the file of the results on the first test set, or on another by its name."""
        return self.root / (f"summary_{dataset_name}.json" if dataset_name else "summary.json")

    def relative(self, path: Path) -> str:
        """Give ``path``, which lies in the folder, as it is written into the run's files."""
        return path.relative_to(self.root).as_posix()


class PhaseFolder:
    """The folder of one phase, in which it trains and leaves what later phases read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def model(self) -> Path:
        """Weights at the end of the phase; its existence says that the phase is trained."""
        return self.folder / "model_final.pth"

    def has_weights(self) -> bool:
        """Tell whether there is that model, or a checkpoint on the way to it."""
        return any(self.folder.glob("model_*.pth"))

    @property
    def trained_with(self) -> Path:
        """Which settings and labels the phase is trained with."""
        return self.folder / "trained_with.json"

    @property
    def taken_from(self) -> Path:
        """Which model of another run it is, if it was not trained here."""
        return self.folder / "taken_from.json"

    @property
    def validation(self) -> Path:
        """How good that model is on the validation images."""
        return self.folder / "validation.json"

    @property
    def predictions(self) -> Path:
        """Raw detections of that model on the unlabeled images."""
        return self.folder / "predictions.json"

    @property
    def predictions_source(self) -> Path:
        """Which images and settings the predictions were made with."""
        return self.folder / "predictions_source.json"

    @property
    def partial_predictions(self) -> Path:
        """Folder of what is predicted while the predictions are not complete."""
        return self.folder / "partial_predictions"

    @property
    def labeled_predictions(self) -> Path:
        """Raw detections of the last phase's model on the labeled images."""
        return self.folder / "labeled_predictions.json"

    @property
    def metrics(self) -> Path:
        """Losses and rates while the phase was trained, as Detectron2 writes them."""
        return self.folder / "metrics.json"

    @property
    def pseudo_labels(self) -> Path:
        """Labels of the unlabeled images that the phase trains on."""
        return self.folder / "pseudo_labels.json"

    @property
    def manifest(self) -> Path:
        """How these labels came about."""
        return self.folder / "manifest.json"

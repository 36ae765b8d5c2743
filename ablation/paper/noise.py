"""Fig. 2a: does training on pseudo-labels help on test images, and hurt on its own images?"""

from __future__ import annotations

from pathlib import Path

from detectron2.data import DatasetCatalog

from d2_ssod.artifacts import RunFolder, load_summary
from d2_ssod.data.loader import build_inference_loader
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import build_evaluator, evaluate_phases

from .finished import load_models, open_run
from .plots import curves

KEYS = ("AP50", "AP")


def compute(output_dir: Path, truth: str = "") -> dict:
    """Evaluate every phase's model on the unlabeled images, beside its results on test images.

    Args:
        output_dir: of a finished run.
        truth: the registered data set with the unlabeled images' objects; by default that of
            ``SSOD.DIAGNOSTICS.UNLABELED_TRUTH``.

    Raises:
        ConfigError: there is no such data set.
    """
    cfg = open_run(output_dir)
    truth = truth or cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH
    if truth not in DatasetCatalog:
        raise ConfigError(
            f"--truth is {truth!r}, which is no registered data set: name the one with the objects "
            "of the unlabeled images, such as voc_2012_trainval_labeled"
        )
    models = load_models(cfg)
    loader = build_inference_loader(cfg, DatasetCatalog.get(truth))
    results = evaluate_phases(models, loader, lambda row: build_evaluator(truth))
    test = load_summary(RunFolder(output_dir).summary()).phases
    return {
        "figure": "2a",
        "truth": truth,
        "unlabeled": [{key: metrics[key] for key in KEYS} for metrics in results.phases],
        "test": [{key: metrics[key] for key in KEYS} for metrics in test.values()],
    }


def draw(result: dict, path: Path) -> None:
    """Draw AP50 by phase, on both kinds of images."""
    series = {
        f"{name} images": [metrics["AP50"] for metrics in result[name]]
        for name in ("test", "unlabeled")
    }
    phases = range(len(result["test"]))
    curves(path, phases, series, labels=("phase", "AP50"))

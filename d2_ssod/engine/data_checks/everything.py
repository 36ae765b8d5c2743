"""All that is checked about the data of a run, at once."""

from __future__ import annotations

from detectron2.config import CfgNode

from d2_ssod.data.datasets.named import NamedDataSets
from d2_ssod.data.findings import Findings
from d2_ssod.data.objects import trained_on
from d2_ssod.pseudo_label import easy_fraction

from ..configs.schedule import WARM_UP_REMEDY, phase_config, warm_up_problem
from .contents import check_contents
from .pictures import check_pictures


def check_run_data(cfg: CfgNode) -> Findings:
    """Find everything in the data sets of a config that cannot be used, or is odd."""
    sets = NamedDataSets.read(cfg)
    findings = check_contents(cfg, sets)
    findings.extend(check_pictures(cfg, sets))
    findings.extend(_check_warm_up(cfg, sets))
    return findings


def _check_warm_up(cfg: CfgNode, sets: NamedDataSets) -> Findings:
    """Find phases, of all unlabeled images, that are warm-up for the most part."""
    findings, last = Findings(), cfg.SSOD.NUM_PHASES
    labeled = len(trained_on(cfg, sets.of_key("TRAIN")))
    unlabeled = len(sets.of_key("UNLABELED"))
    for phase in range(last + 1):
        fraction = easy_fraction(phase, last, cfg.SSOD.EASY_FRACTIONS) if phase > 0 else 0
        own = phase_config(cfg, phase, labeled, round(fraction * unlabeled))
        if problem := warm_up_problem(own, phase):
            kind = "phases that are warm-up most of the time"
            findings.warning("SOLVER.WARMUP_ITERS", kind, problem, WARM_UP_REMEDY)
    return findings

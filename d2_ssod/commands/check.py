"""Find everything that is wrong or odd about a config and its data, at once.

    python -m d2_ssod check --config-file configs/mine.yaml

Errors cannot be trained with; warnings can, but should be understood. Every picture is decoded,
once: a second call is quick. ``--all`` shows every case, such as all damaged pictures. Exits with 1
if there are errors.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence

from detectron2.config import CfgNode

from d2_ssod.artifacts import RunFolder, check_classes, forget_lengths
from d2_ssod.config import with_values
from d2_ssod.data.datasets import NamedDataSets
from d2_ssod.data.findings import Finding, Findings
from d2_ssod.engine import PhaseTrainer, build_config, check_run_data
from d2_ssod.engine.adoption import load_given_model, read_given_labels
from d2_ssod.engine.configs.odd_keys import odd_keys
from d2_ssod.engine.labeling.corrections import read_corrected, surely
from d2_ssod.engine.labeling.extra_sources import check_extra_sources
from d2_ssod.engine.run_data import RunData, data_of_run
from d2_ssod.engine.starting import check_made, given_in_vain
from d2_ssod.engine.training.building import odd_parts
from d2_ssod.errors import ConfigError
from d2_ssod.structures import Predictions

_SHOWN = 5  # cases of each kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--all", action="store_true", help=f"show more than {_SHOWN} of each kind")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config")


def run(arguments: argparse.Namespace) -> int:
    """Print all findings, errors first; 1 if there are errors, else 0."""
    arguments.num_gpus = 0
    # How the work is shared out does not matter to the data.
    cfg = build_config(arguments, world_size=1)
    of_data = check_run_data(cfg)
    findings = [*_check_keys(cfg), *of_data]
    if not of_data.has_errors:  # which what there is of the images would only repeat
        findings += _check_given(cfg)
    findings.sort(key=lambda finding: finding.level)
    for finding in findings:
        print("\n".join(_lines(finding, len(finding.cases) if arguments.all else _SHOWN)))
    errors = _cases(findings, "error")
    print(
        f"{errors} errors, {_cases(findings, 'warning')} warnings" if findings else "All is well."
    )
    return 1 if errors else 0


def _check_keys(cfg: CfgNode) -> Findings:
    """Find what cannot be built of a config, and what it names in vain."""
    findings, lines = Findings(), list(odd_keys(cfg))
    weights = cfg.MODEL.TIMM.WEIGHTS
    # Nothing is downloaded for a check.
    own = {"MODEL.TIMM.WEIGHTS": "" if weights == "pretrained" else weights}
    try:
        model, _ = PhaseTrainer.build_parts(with_values(cfg, own))
    except ConfigError as error:
        findings.error("", "models that cannot be built", str(error), "")
    else:
        lines += odd_parts(cfg, model)
    for line in lines:
        findings.warning("", "keys that are hardly meant", line, "")
    return findings


def _check_given(cfg: CfgNode) -> Findings:
    """Find what is wrong with labels, predictions and models that the config names."""
    ssod, findings = cfg.SSOD, Findings()
    labels, folder = ssod.PSEUDO_LABEL, RunFolder(cfg.OUTPUT_DIR)
    given = (
        labels.CORRECTED,
        labels.FROM and ssod.NUM_PHASES > 0 and not folder.phase(1).pseudo_labels.exists(),
        ssod.CONSENSUS.EXTRA_SOURCES,
        ssod.START.PHASE_0,
        any(folder.phase(n).folder.exists() for n in range(ssod.NUM_PHASES + 1)),
    )
    forget_lengths()
    if not any(given):
        return findings
    data = data_of_run(cfg, NamedDataSets.read(cfg, ("TRAIN", "UNLABELED")))
    corrected: Predictions = {}
    looks = (
        lambda: corrected.update(_check_corrected(cfg, data, findings)),
        lambda: read_given_labels(cfg, data.unlabeled, data.thing_classes),
        lambda: check_extra_sources(cfg, data),
        lambda: load_given_model(cfg, data.thing_classes),
        lambda: _check_made(cfg, data, corrected, findings),
    )
    for look in itertools.compress(looks, given):
        try:
            look()
        except ConfigError as error:
            findings.error("", "files that cannot be used", str(error), "")
    return findings


def _check_corrected(cfg: CfgNode, data: RunData, findings: Findings) -> Predictions:
    """Find what is odd about a person's labels, and give them."""
    images, of_labels = read_corrected(cfg, data.unlabeled, data.thing_classes)
    findings.extend(of_labels)
    return surely(images)


def _check_made(cfg: CfgNode, data: RunData, corrected: Predictions, findings: Findings) -> None:
    """Find whether a run that is there can be gone on with; a new one sets it aside."""
    try:
        check_classes(cfg, data.thing_classes)
        check_made(cfg, data)
    except ConfigError as error:
        remedy = "without --resume, a new run begins, and sets the folder aside"
        findings.warning("", "a run that --resume will refuse", str(error), remedy)
        return
    for line in given_in_vain(cfg, data, corrected):
        findings.warning("", "what comes too late for a run that --resume goes on with", line, "")


def _cases(findings: Sequence[Finding], level: str) -> int:
    return sum(finding.count for finding in findings if finding.level == level)


def _lines(finding: Finding, most: int) -> list[str]:
    """Show a kind of findings: what and where, so many cases at most, the remedy."""
    place = f"{finding.place}: " if finding.place else ""
    lines = [f"{finding.level}: {place}{finding.kind} ({finding.count})"]
    shown = finding.cases[:most]
    lines += [f"    {' '.join(case.split())}" for case in shown]
    if finding.count > len(shown):
        hint = " (--all)" if len(shown) < len(finding.cases) else ""
        lines.append(f"    ... and {finding.count - len(shown)} more{hint}")
    if finding.remedy:
        lines.append(f"  -> {finding.remedy}")
    return [*lines, ""]

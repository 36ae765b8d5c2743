"""Whether a run ends with new labels, for a person to look at (``SSOD.PSEUDO_LABEL.PAUSE``)."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode

from d2_ssod.artifacts import RunFolder, digest_of_file, read_history, record_event

logger = logging.getLogger(__name__)


def pauses_before(cfg: CfgNode, phase: int) -> bool:
    """Tell whether the run ends before a phase: once for labels that it has made for it.

    The history knows for which ones it has ended, also if it was interrupted after making them.

    Args:
        cfg: of the run.
        phase: 1..N, whose labels are there.
    """
    folder = RunFolder(cfg.OUTPUT_DIR)
    files = folder.phase(phase)
    are_made = files.manifest.exists()  # not given from elsewhere
    if not (cfg.SSOD.PSEUDO_LABEL.PAUSE and are_made) or files.has_weights():
        return False
    made = digest_of_file(files.manifest)  # which a person does not correct, as the labels
    of_phase = (event for event in read_history(folder) if event.get("phase") == phase)
    said = [event for event in of_phase if event.get("event") in ("labeled", "paused")]
    if said and said[-1]["event"] == "paused" and said[-1].get("manifest", made) == made:
        return False
    record_event(folder, "paused", phase=phase, manifest=made)
    logger.info(
        "%s: to be looked at (SSOD.PSEUDO_LABEL.PAUSE); --resume goes on", files.pseudo_labels
    )
    return True

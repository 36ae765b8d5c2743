"""What a run begins with that was made elsewhere: the model of phase 0, the labels of phase 1."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm

from d2_ssod.artifacts import AtomicCheckpointer, RunFolder, load_model, load_pseudo_labels
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import atomic_open

from .agreement import on_main_process
from .run_data import RunData

logger = logging.getLogger(__name__)


def adopt_phase_0(cfg: CfgNode) -> None:
    """Take the model that ``SSOD.START.PHASE_0`` names for that of phase 0, unless there is one.

    Raises:
        ConfigError: there is no such file, or it is of another model than the config's.
    """
    path, files = cfg.SSOD.START.PHASE_0, RunFolder(cfg.OUTPUT_DIR).phase(0)
    if not path or on_main_process(files.model.exists):
        return
    if not Path(path).is_file():
        raise ConfigError(f"SSOD.START.PHASE_0 is {path}, which is not a file: correct the path")
    model = load_model(cfg, path)
    if comm.is_main_process():
        files.folder.mkdir(parents=True, exist_ok=True)
        AtomicCheckpointer(model, str(files.folder)).save(files.model.stem)
        logger.info("Phase 0 is %s: nothing is trained in it", path)
    comm.synchronize()


def adopt_pseudo_labels(cfg: CfgNode, data: RunData) -> None:
    """Take the file that ``SSOD.PSEUDO_LABEL.FROM`` names for the labels of phase 1.

    Raises:
        ConfigError: there is no such file, it has no objects, or it does not fit the unlabeled
            images.
    """
    path, files = cfg.SSOD.PSEUDO_LABEL.FROM, RunFolder(cfg.OUTPUT_DIR).phase(1)
    if not path or on_main_process(files.pseudo_labels.exists):
        return
    images = load_pseudo_labels(path, data.unlabeled, data.thing_classes)
    if not images:
        raise ConfigError(
            f"SSOD.PSEUDO_LABEL.FROM: {path} has no objects on unlabeled images (crowds are none); "
            "name a file that has, or leave it empty to have labels made"
        )
    if comm.is_main_process():
        files.folder.mkdir(parents=True, exist_ok=True)
        with open(path, "rb") as source, atomic_open(files.pseudo_labels, "wb") as target:
            shutil.copyfileobj(source, target)
        logger.info("Phase 1 trains on the labels of %d images in %s", len(images), path)
    comm.synchronize()

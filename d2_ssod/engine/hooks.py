"""Hooks for the trainer of a phase, or anybody's."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.engine import HookBase
from detectron2.utils import comm

from d2_ssod.artifacts import (
    AtomicCheckpointer,
    RunFolder,
    discard_partial_predictions,
    record_event,
)
from d2_ssod.config import check_limits
from d2_ssod.data.objects import objects_and_crowds
from d2_ssod.drawing import draw_detections
from d2_ssod.errors import ConfigError
from d2_ssod.modeling import unwrapped

from .configs.checks import check_label_rules
from .labeling.next_phase import label_next_phase
from .processes.agreement import on_main_process
from .processes.interruption import Stopped
from .run_data import RunData


class PseudoLabelHook(HookBase):
    """Regenerates the pseudo-labels when a training has ended.

    The trained model predicts on the unlabeled images; together with the predictions of the models
    of earlier phases in ``OUTPUT_DIR`` they become ``phase_<i+1>/pseudo_labels.json``: threshold,
    ``SSOD.LABELS`` (by default the consensus, the paper's intersection), selection. Works on any
    Detectron2 trainer; its model is taken for the phase's.
    """

    def __init__(self, cfg: CfgNode, phase: int, data: RunData) -> None:
        """Run on every rank.

        Args:
            cfg: of the run; its ``OUTPUT_DIR`` holds the folders of all phases.
            phase: the phase that is trained, 0..N-1.
            data: the data sets of the run.

        Raises:
            ConfigError: after such a phase there is no other, or labels cannot be made as the
                config has it, which is better known before training than after it.
        """
        check_limits(cfg)
        if not 0 <= phase < cfg.SSOD.NUM_PHASES:
            raise ConfigError(
                f"phase {phase} labels for the next one, but SSOD.NUM_PHASES is "
                f"{cfg.SSOD.NUM_PHASES}; give a phase from 0 to that, exclusively"
            )
        check_label_rules(cfg)
        self._cfg, self._phase, self._data = cfg, phase, data
        self._folder = RunFolder(cfg.OUTPUT_DIR)
        self._files = self._folder.phase(phase)
        self._around: BaseException | None = None

    def before_train(self) -> None:
        """Check what there is of this phase and those before it, and forget an interrupted pass.

        Raises:
            ConfigError: labels would be made by the model of an earlier training, or an earlier
                phase has no model.
        """
        self._around = sys.exc_info()[1]  # of whoever calls the trainer
        if self.trainer.start_iter < self.trainer.max_iter:
            on_main_process(self._prepare)

    def _prepare(self) -> None:
        if self._files.model.exists():
            raise ConfigError(
                f"{self._files.model} is there already, of another training, as are its labels; "
                "choose another OUTPUT_DIR, or delete that phase's folder and those of later ones"
            )
        for phase in range(self._phase):
            files = self._folder.phase(phase)
            if not files.model.exists() and not files.predictions.exists():
                raise ConfigError(
                    f"{files.model}: no such file, but phase {self._phase} labels together with "
                    "the models before it; train that phase first, in this OUTPUT_DIR"
                )
        discard_partial_predictions(self._files.partial_predictions)

    def after_train(self) -> None:
        """Label, unless training failed."""
        has_failed = sys.exc_info()[1] is not self._around
        self._around = None  # which holds all that its caller's frames do
        # Loops of one's own may end at the last iteration, as Detectron2's hooks allow for.
        if has_failed or self.trainer.iter + 1 < self.trainer.max_iter:
            return
        model = unwrapped(self.trainer.model)
        checkpointer = AtomicCheckpointer(model, str(self._files.folder))
        if comm.is_main_process() and not self._files.model.exists():
            self._files.folder.mkdir(parents=True, exist_ok=True)
            checkpointer.save(self._files.model.stem)
        label_next_phase(self._cfg, self._phase, self._data, model)


class RecordTraining(HookBase):
    """Notes in the run's history how many iterations were trained and how long they took."""

    def __init__(self, folder: RunFolder, phase: int, images_per_batch: int) -> None:
        self._folder, self._phase, self._batch = folder, phase, images_per_batch
        self._began = 0.0

    def before_train(self) -> None:
        """Begin to count."""
        self._began = time.perf_counter()

    def after_train(self) -> None:
        """Note what was done, also when training has failed or was stopped."""
        ended = self.trainer.iter >= self.trainer.max_iter
        # One that has nothing left to do counts beyond its last iteration.
        first, last = self.trainer.start_iter, min(self.trainer.iter, self.trainer.max_iter)
        if isinstance(sys.exc_info()[1], Stopped):  # after the iteration, which is not counted yet
            last += 1
        if last > first:
            record_event(
                self._folder,
                "trained",
                phase=self._phase,
                iterations=last - first,
                images_per_batch=self._batch,
                ended=ended,
                seconds=round(time.perf_counter() - self._began, 1),
            )


class ShowPseudoLabels(HookBase):
    """Shows the pseudo-labels of some unlabeled images in TensorBoard, of each phase the same."""

    def __init__(self, pseudo: Sequence[dict], data: RunData, count: int = 4) -> None:
        """Run on the main process.

        Args:
            pseudo: the pseudo-labeled images that the phase trains on.
            data: the data sets of the run.
            count: how many images are shown; those without pseudo-labels without boxes.
        """
        step = max(1, len(data.unlabeled) // count)
        self._images, self._classes = data.unlabeled[::step][:count], data.thing_classes
        shown = {image["image_id"] for image in self._images}
        self._labels = {
            image["image_id"]: image["annotations"]
            for image in pseudo
            if image["image_id"] in shown
        }

    def before_train(self) -> None:
        """Draw them; they are written with the first losses."""
        for number, image in enumerate(self._images):
            picture = read_image(image["file_name"], "RGB")
            labels, _ = objects_and_crowds(self._labels.get(image["image_id"], []))
            drawn = draw_detections(picture, labels, self._classes)
            self.trainer.storage.put_image(f"pseudo_labels/{number}", drawn)

"""The embedded data set under the names that a config can use; generated when first asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from d2_ssod.data.datasets import CocoFile, DataSet, register_files

from . import digit_scenes

# Name: (split, annotation file).
DIGIT_SCENES = {
    "digit_scenes_labeled": ("labeled", "labeled"),
    "digit_scenes_unlabeled": ("unlabeled", "unlabeled"),
    "digit_scenes_test": ("test", "test"),
    "digit_scenes_val": ("val", "val"),
    # For upper bounds and diagnostics only: the objects of the unlabeled images.
    "digit_scenes_unlabeled_truth": ("unlabeled", digit_scenes.HIDDEN_TRUTH),
}


def register_digit_scenes(root: str) -> None:
    """Register its splits, in ``digit_scenes`` below ``root``; a second call changes nothing."""
    folder = os.path.join(root, "digit_scenes")
    for name, (split, truth) in DIGIT_SCENES.items():
        json_file = str(digit_scenes.annotation_file(folder, truth))
        image_root = str(digit_scenes.image_folder(folder, split))
        register_files(
            name,
            _Split(folder, CocoFile(json_file, image_root)),
            thing_classes=[str(digit) for digit in digit_scenes.CLASSES],
            thing_dataset_id_to_contiguous_id={
                digit + 1: index for index, digit in enumerate(digit_scenes.CLASSES)
            },
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
        )


@dataclass(frozen=True)
class _Split:
    """A split of the embedded data set, which is generated when it is first read."""

    folder: str
    file: CocoFile

    def read(self) -> DataSet:
        """Generate the data set unless it is there, and read the split."""
        digit_scenes.generate(self.folder)
        return self.file.read()

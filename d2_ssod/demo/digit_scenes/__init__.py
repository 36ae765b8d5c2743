"""The embedded data set: handwritten digits in generated scenes, written as any COCO data set.

128 x 128 RGB pictures; the digits 0 to 4 are the classes, 5 to 9 unannotated distractors. Every
image has a difficulty from 0 to 1. See ``writer.SPLITS`` for the splits and ``scene.Difficulty``
for what difficulty changes. ``python -m d2_ssod.demo.digit_scenes --output DIR`` writes it.
"""

from .digits import CLASSES, CREDIT
from .writer import (
    DEFAULT_SIZES,
    HIDDEN_TRUTH,
    SPLITS,
    annotation_file,
    generate,
    image_folder,
)

__all__ = [
    "CLASSES",
    "CREDIT",
    "DEFAULT_SIZES",
    "HIDDEN_TRUTH",
    "SPLITS",
    "annotation_file",
    "generate",
    "image_folder",
]

"""The words that all rooms speak.

detections.py   the boxes of one image (``Detections``) and of a data set (``Predictions``)
"""

from .detections import (
    CERTAIN,
    UNCERTAIN,
    Detections,
    ImageId,
    Predictions,
    TieredDetections,
    concatenate,
    from_instances,
    to_instances,
)

__all__ = [
    "CERTAIN",
    "UNCERTAIN",
    "Detections",
    "ImageId",
    "Predictions",
    "TieredDetections",
    "concatenate",
    "from_instances",
    "to_instances",
]

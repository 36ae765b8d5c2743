"""The words that all rooms speak.

detections.py   the boxes of one image (``Detections``) and of a data set (``Predictions``)
"""

from .detections import (
    Detections,
    ImageId,
    Predictions,
    concatenate,
    from_instances,
    to_instances,
)

__all__ = [
    "Detections",
    "ImageId",
    "Predictions",
    "concatenate",
    "from_instances",
    "to_instances",
]

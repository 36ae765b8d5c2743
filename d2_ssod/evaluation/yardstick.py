"""What figures are measured by; those of one yardstick alone may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from detectron2.config import CfgNode

from d2_ssod.artifacts import digest_of
from d2_ssod.config import flat_keys


def yardstick(cfg: CfgNode, sets: Sequence[Sequence[dict]]) -> str:
    """Digest what models are judged by: the images of data sets, and the settings of inference."""
    settings = [
        (key, value)
        for key, value in flat_keys(cfg)
        if key.endswith("_TEST") or key == "TEST.DETECTIONS_PER_IMAGE"
    ]
    images = [digest_of(of_set, crowds=True) for of_set in sets]
    return sha256(repr((settings, images)).encode()).hexdigest()

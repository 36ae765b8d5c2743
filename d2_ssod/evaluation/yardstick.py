"""What figures are measured by; those of one yardstick alone may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from detectron2.config import CfgNode

from d2_ssod.artifacts import digest_of, judging_settings


def yardstick(cfg: CfgNode, sets: Sequence[Sequence[dict]]) -> str:
    """Digest what models are judged by: the images of data sets, and the settings of inference."""
    images = [digest_of(of_set, crowds=True) for of_set in sets]
    return sha256(repr((judging_settings(cfg), images)).encode()).hexdigest()

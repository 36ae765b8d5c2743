"""Step 3: start with the images that are easy, that is, whose pseudo-labels are certain (Eq. 1)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from d2_ssod.errors import ConfigError
from d2_ssod.structures import ImageId, Predictions, concatenate

from .shares import floor_share


@dataclass(frozen=True)
class Selection:
    """Which pseudo-labeled images a phase trains on.

    Attributes:
        kept: the selected images, easiest first.
        left_out: the other images that have pseudo-labels, easiest first.
        empty: the images without any pseudo-label, in the order of the data set.
        scores: s_m of every image in ``kept`` and ``left_out``, by the rule that was chosen.
    """

    kept: tuple[ImageId, ...]
    left_out: tuple[ImageId, ...]
    empty: tuple[ImageId, ...]
    scores: dict[ImageId, float]


def select_easiest(pseudo: Predictions, fraction: float, rule: str = "mean_score") -> Selection:
    """Select the easiest images, those with the highest score s_m.

    Args:
        pseudo: the pseudo-labels of every unlabeled image.
        fraction: k in [0, 1]; floor(k * number of images with pseudo-labels) images are kept.
            Of equal s_m the smaller image id comes first.
        rule: what s_m is, one of ``IMAGE_SCORES``.

    Raises:
        ValueError: ``fraction`` outside [0, 1], or an unknown rule.
        ConfigError: the rule does not give every image with pseudo-labels a finite s_m.
    """
    if rule not in IMAGE_SCORES:
        raise ValueError(f"rule must be one of {', '.join(IMAGE_SCORES)}, got {rule!r}")
    scores = IMAGE_SCORES[rule](pseudo)
    with_labels = {image_id for image_id, found in pseudo.items() if len(found)}
    if scores.keys() != with_labels or not all(map(math.isfinite, scores.values())):
        raise ConfigError(
            f"rule {rule!r} must give a finite score to each of the {len(with_labels)} images with "
            "pseudo-labels, and to no other"
        )
    ranking = sorted(scores, key=lambda image_id: (-scores[image_id], _id_order(image_id)))
    count = floor_share(fraction, len(ranking))
    return Selection(
        kept=tuple(ranking[:count]),
        left_out=tuple(ranking[count:]),
        empty=tuple(image_id for image_id, found in pseudo.items() if not len(found)),
        scores=scores,
    )


def mean_scores(pseudo: Predictions) -> dict[ImageId, float]:
    """Compute the mean score of each image with pseudo-labels (Eq. 1).

    s_m = (1 / n_m) sum_i score_i, over the n_m pseudo-labels of image m. A class whose scores are
    low has its images selected last, or never.
    """
    # fsum is exact, so equal scores in another order give the same mean.
    return {
        image_id: math.fsum(found.scores.tolist()) / len(found)
        for image_id, found in pseudo.items()
        if len(found)
    }


def expected_qualities(pseudo: Predictions) -> dict[ImageId, float]:
    """Compute the expected share of right boxes, with each box counted as much as it is certain.

    s_m = sum_i score_i^2 / sum_i score_i. Boxes of low score count for little, so that one of them
    does not spoil an image of certain ones.
    """
    return {
        image_id: math.fsum((found.scores.astype(np.float64) ** 2).tolist())
        / max(math.fsum(found.scores.tolist()), np.finfo(np.float64).tiny)
        for image_id, found in pseudo.items()
        if len(found)
    }


def class_balanced_scores(pseudo: Predictions) -> dict[ImageId, float]:
    """Compute the mean rank of an image's boxes among those of their own class.

    s_m = (1 / n_m) sum_i r_i, where r_i in (0, 1] is the share of all boxes of the class of box i
    that score no more than it. So the boxes of every class are spread over the ranking alike,
    however certain the models are of that class, and none vanishes from the easy images.
    """
    found = concatenate(list(pseudo.values()))
    ranks = np.empty(len(found))
    for number in np.unique(found.classes):
        of_class = found.classes == number
        ordered = np.sort(found.scores[of_class])
        no_more = np.searchsorted(ordered, found.scores[of_class], side="right")
        ranks[of_class] = no_more / len(ordered)
    scores, begin = {}, 0
    for image_id, of_image in pseudo.items():
        part, begin = ranks[begin : begin + len(of_image)].tolist(), begin + len(of_image)
        if part:
            scores[image_id] = math.fsum(part) / len(part)
    return scores


# What SSOD.SELECTION chooses from: from pseudo-labels to the s_m of every image that has any; add
# your own here.
IMAGE_SCORES: dict[str, Callable[[Predictions], dict[ImageId, float]]] = {
    "mean_score": mean_scores,
    "class_balanced": class_balanced_scores,
    "expected_quality": expected_qualities,
}


def easy_fraction(phase: int, num_phases: int, overrides: Sequence[float] = ()) -> float:
    """Choose the fraction k of the images that phase i of N trains on: i / N unless overridden.

    Args:
        phase: i, 1..N.
        num_phases: N.
        overrides: ``SSOD.EASY_FRACTIONS``: empty, or k for each of the phases 1..N.

    Raises:
        ConfigError: ``overrides`` of another length, or with a value outside [0, 1].
        ValueError: ``phase`` outside 1..N.
    """
    if not 1 <= phase <= num_phases:
        raise ValueError(f"phase must be in 1..{num_phases}, got {phase}")
    if not overrides:
        return phase / num_phases
    if len(overrides) != num_phases or not all(0 <= k <= 1 for k in overrides):
        raise ConfigError(
            f"SSOD.EASY_FRACTIONS: {list(overrides)} must be empty or one number in [0, 1] for "
            f"each of the {num_phases} phases"
        )
    return float(overrides[phase - 1])


def _id_order(image_id: ImageId) -> tuple[bool, int, str]:
    """Order numbers by value, then strings by letters."""
    is_text = isinstance(image_id, str)
    return (is_text, 0 if is_text else int(image_id), image_id if is_text else "")

"""How long each phase of a method is trained: by the pictures that there are."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np

_ITERATIONS = 2000  # that a phase should have at least
_EPOCHS = (12, 120)  # limits
# Of the labeled pictures, before the one other phase, but no more than this part of all iterations,
_SUPERVISED_EPOCHS, _SUPERVISED_PART = 48, 0.375
# and than this one where so many of all pictures are labeled: more iterations on them gain for
# longer then, and labels of the others less (docs/real_images.md, with .14 and .38 of them).
_SUPERVISED_PART_OF_MANY, _MANY = 0.75, 0.25


@dataclass(frozen=True)
class EpochSchedule:
    """Epochs of each phase: why so many, of how many pictures, and how many iterations that is."""

    text: str
    epochs: list[float]
    iterations: list[int]
    labels_alone: int
    """Epochs of the labeled pictures alone in as many iterations."""
    supervised_part: float
    """Of all iterations, that phase 0 may have before one other phase."""

    @classmethod
    def of(
        cls, arguments: argparse.Namespace, num_labeled: int, num_unlabeled: int
    ) -> EpochSchedule:
        """Choose it for a method, and so many pictures."""
        batch = batch_size(arguments)
        pictures, epochs, text = _as_published(num_labeled, num_unlabeled, batch)
        if num_phases(arguments) == 1:
            passes = sum(e * count for e, count in zip(epochs, pictures, strict=True))
            pictures, epochs, text = _self_training(num_labeled, num_unlabeled, batch, passes)
        counts = zip(epochs, pictures, strict=True)
        iterations = [max(1, round(e * count / batch)) for e, count in counts]
        labels_alone = round(sum(iterations) * batch / max(num_labeled, 1))
        part = supervised_part(num_labeled, num_unlabeled)
        return cls(text, epochs, iterations, labels_alone, part)


def _as_published(
    num_labeled: int, num_unlabeled: int, batch: int
) -> tuple[list[int], list[float], str]:
    """Give the pictures and epochs of three phases, and why so many."""
    pictures = [num_labeled, num_labeled + num_unlabeled // 2, num_labeled + num_unlabeled]
    text = (
        f"Of phases 0, 1, 2 with at most {pictures[0]}, {pictures[1]}, {pictures[2]} pictures: "
        f"{_EPOCHS[0]} epochs, up to {_EPOCHS[1]} where that is less than {_ITERATIONS} iterations"
    )
    return pictures, [_epochs(count, batch) for count in pictures], text


def _self_training(
    num_labeled: int, num_unlabeled: int, batch: int, passes: float
) -> tuple[list[int], list[float], str]:
    """Give those of two phases that see so many pictures in all."""
    pictures = [num_labeled, num_labeled + num_unlabeled]
    first = max(_SUPERVISED_EPOCHS * num_labeled, _ITERATIONS * batch)
    part = supervised_part(num_labeled, num_unlabeled)
    first = min(first, part * passes)
    epochs = [
        math.ceil(first / max(pictures[0], 1)),
        round((passes - first) / max(pictures[1], 1), 1),
    ]
    seen = epochs[1] * pictures[1] / 2 / max(num_labeled, 1)
    text = (
        f"Of phase 0 with {pictures[0]} pictures and phase 1 with {pictures[1]}: as many "
        "pictures in all as two phases as published would take, at most "
        f"about {part:.3g} of them in phase 0 (by how many are labeled). In phase 1 half of each "
        f"batch is labeled, so that it sees each labeled picture {seen:.0f} times"
    )
    return pictures, epochs, text


def supervised_part(num_labeled: int, num_unlabeled: int) -> float:
    """Give the part of all iterations that phase 0 may have before the one other phase."""
    are_many = num_labeled >= _MANY * (num_labeled + num_unlabeled)
    return _SUPERVISED_PART_OF_MANY if are_many else _SUPERVISED_PART


def num_phases(arguments: argparse.Namespace) -> int:
    """Count the phases after phase 0."""
    return 2 if arguments.method == "paper" else 1


def batch_size(arguments: argparse.Namespace) -> int:
    """Give two pictures to each GPU."""
    return 2 * max(arguments.num_gpus, 1)


def _epochs(images: int, batch: int) -> int:
    return int(np.clip(math.ceil(_ITERATIONS * batch / max(images, 1)), *_EPOCHS))

"""Which pictures the report shows, and what is drawn on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from d2_ssod.pseudo_label import JudgedBoxes, judge_boxes
from d2_ssod.structures import Detections, ImageId, Predictions

from .images import RunImages
from .label_errors import Suspect
from .pictures import Mark, Picture, make_picture
from .review import Review

_PER_SHEET = 12
_SAME = 0.5  # IoU of boxes of the same object


@dataclass(frozen=True)
class Sheet:
    """Pictures that have something in common.

    Attributes:
        title: what.
        text: how they were chosen, and what the boxes are.
        pictures: the first ones.
    """

    title: str
    text: str
    pictures: list[Picture]


def unlabeled_sheets(
    images: RunImages, queue: Sequence[Review], classes: Sequence[str]
) -> list[Sheet]:
    """Show unlabeled images: with the labels of the last phase that has any, and without."""
    return [
        sheet
        for sheet in (
            *_of_labels(images, classes),
            *_of_queue(images, queue, classes),
            *_of_truth(images, classes),
        )
        if sheet.pictures
    ]


def _of_labels(images: RunImages, classes: Sequence[str]) -> Iterable[Sheet]:
    if not images.labels:
        return
    last = max(images.labels)
    labels, before = images.labels[last], images.labels.get(last - 1, {})
    ids = list(labels)

    def show(chosen: Sequence[ImageId]) -> list[Picture]:
        return [
            make_picture(
                images.unlabeled[i],
                _marks(labels[i], classes, "kept"),
                f"mean score {labels[i].scores.mean():.2f}" if len(labels[i]) else "",
            )
            for i in chosen[:_PER_SHEET]
        ]

    ssod = images.run.cfg.SSOD
    has_teacher = ssod.TEACHER.ENABLED and last == ssod.NUM_PHASES
    which = "labels before its mean teacher makes new ones" if has_teacher else "pseudo-labels"
    text = f"Of the {len(ids)} images that phase {last} is trained on, with their {which}"
    yield Sheet("Easiest images", f"{text}: those it takes first.", show(ids))
    yield Sheet("Hardest images with labels", f"{text}: the last ones.", show(ids[::-1]))
    if before:
        new = [i for i in ids if i not in before]
        yield Sheet(
            "Newly added images", f"{text}: the first that phase {last - 1} had not.", show(new)
        )


def _of_queue(
    images: RunImages, queue: Sequence[Review], classes: Sequence[str]
) -> Iterable[Sheet]:
    if not queue:
        return
    phases = sorted(images.predictions)
    if len(phases) > 1:
        older, newer = phases[-2:]
        kept = images.labels.get(max(images.labels, default=0), {})
        disagree = sorted(queue, key=lambda review: -review.disagreement)
        yield Sheet(
            "Where the models disagree",
            f"What the models of phases {older} (blue, dashed) and {newer} (orange, dashed) see "
            "with a score of 0.3 or more, and the pseudo-labels (green).",
            [
                make_picture(
                    review.image,
                    [
                        *_seen(images.predictions[older], review, classes, "older"),
                        *_seen(images.predictions[newer], review, classes, "newer"),
                        *_marks(
                            kept.get(review.image["image_id"], Detections.empty()), classes, "kept"
                        ),
                    ],
                    f"disagreement {review.disagreement:.1f}",
                )
                for review in disagree[:_PER_SHEET]
                if review.disagreement > 0
            ],
        )
    unsure = sorted(queue, key=lambda review: -review.uncertain)
    yield Sheet(
        "Where it is uncertain what is there",
        "Each place is as bright as the least certain box that covers it: 4 q (1 - q), where q is "
        "the estimated probability that the box is an object.",
        [
            make_picture(
                review.image, caption=f"uncertain {review.uncertain:.1f}", heat=review.found
            )
            for review in unsure[: _PER_SHEET // 2]
        ],
    )


def _of_truth(images: RunImages, classes: Sequence[str]) -> Iterable[Sheet]:
    """Show where the labels are wrong, by the truth that diagnostics know."""
    if not (images.truth and images.labels):
        return
    labels = images.labels[max(images.labels)]
    errors = {
        image_id: judge_boxes(found, images.truth[image_id], _SAME)
        for image_id, found in labels.items()
        if image_id in images.truth
    }

    def show(count: Callable[[JudgedBoxes], int], word: str) -> list[Picture]:
        worst = sorted(errors, key=lambda i: -count(errors[i]))[:_PER_SHEET]
        return [
            _with_errors(images, i, labels, errors[i], classes, f"{count(errors[i])} {word}")
            for i in worst
            if count(errors[i]) > 0
        ]

    boxes = "Pseudo-labels that are right (green), wrong (red), missed objects (violet, dashed)."
    yield Sheet("Most missed objects", boxes, show(lambda judged: judged.missed.sum(), "missed"))
    yield Sheet("Most wrong boxes", boxes, show(lambda judged: judged.is_wrong.sum(), "wrong"))


def _with_errors(
    images: RunImages,
    image_id: ImageId,
    labels: Predictions,
    judged: JudgedBoxes,
    classes: Sequence[str],
    caption: str,
) -> Picture:
    found = labels[image_id]
    marks = [
        *_marks(found.select(judged.is_right), classes, "kept"),
        *_marks(found.select(judged.is_wrong), classes, "wrong"),
        *_marks(images.truth[image_id].objects.select(judged.missed), classes, "missed"),
    ]
    return make_picture(images.unlabeled[image_id], marks, caption)


def suspects_sheet(suspects: Sequence[Suspect], classes: Sequence[str]) -> Sheet:
    """Show labels of the labeled images that the last model contradicts."""
    return Sheet(
        "Labels to check",
        "In labeled images: what the last model sees with confidence and no label says (orange), "
        "and labels where it sees nothing (violet, dashed).",
        [
            make_picture(
                suspect.image,
                [Mark(suspect.box, _STYLE[suspect.kind], describe_suspect(suspect, classes))],
                describe_suspect(suspect, classes),
            )
            for suspect in suspects[:_PER_SHEET]
        ],
    )


_STYLE = {"no label": "newer", "other class": "newer", "nothing seen": "missed"}


def describe_suspect(suspect: Suspect, classes: Sequence[str]) -> str:
    """Say what is suspicious, in a few words."""
    if suspect.seen is None:
        return f"{classes[suspect.label]}: nothing seen"
    if suspect.label is None:
        return f"{classes[suspect.seen]} {suspect.confidence:.2f}, no label"
    return f"{classes[suspect.seen]} {suspect.confidence:.2f}, labeled {classes[suspect.label]}"


def _seen(
    predictions: Predictions, review: Review, classes: Sequence[str], kind: str
) -> list[Mark]:
    found = predictions[review.image["image_id"]]
    return _marks(found.select(found.scores >= 0.3), classes, kind)


def _marks(found: Detections, classes: Sequence[str], kind: str) -> list[Mark]:
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True)
    return [Mark(tuple(box), kind, f"{classes[number]} {score:.2f}") for box, score, number in rows]

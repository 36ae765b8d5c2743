"""Boxes on pictures."""

import numpy as np
from samples import detections

from d2_ssod import drawing
from d2_ssod.drawing import draw_detections

PICTURE = np.full((60, 80, 3), 200, dtype=np.uint8)


def test_boxes_have_the_color_of_their_class():
    found = detections((10, 20, 50, 40, 0.9, 0), (55, 5, 75, 50, 0.5, 1))
    drawn = draw_detections(PICTURE, found, ["cat", "dog"])
    assert drawn.shape == (3, 60, 80)
    red, cyan = drawn[:, 40, 30].tolist(), drawn[:, 50, 60].tolist()
    assert (red[0] > 200, red[1], red[2]) == (True, 0, 0)
    assert (cyan[0], min(cyan[1:]) > 200) == (0, True)
    assert drawn[:, 58, 2].tolist() == [200, 200, 200]


def test_without_boxes_a_picture_stays_as_it_is():
    drawn = draw_detections(PICTURE, detections(), ["cat"])
    assert (drawn.permute(1, 2, 0).numpy() == PICTURE).all()


def test_boxes_have_the_name_of_their_class_and_their_score(monkeypatch):
    seen = []
    monkeypatch.setattr(
        drawing, "draw_bounding_boxes", lambda image, boxes, labels, **_: seen.append(labels)
    )
    found = detections((10, 20, 50, 40, 0.9, 1), (55, 5, 75, 50, 0.5, 0))
    draw_detections(PICTURE, found, ["cat", "dog"])
    assert seen == [["dog 90%", "cat 50%"]]


def test_names_are_written_as_large_as_the_picture_asks_for():
    picture = np.full((1500, 2000, 3), 200, dtype=np.uint8)
    drawn = draw_detections(picture, detections((10, 10, 1990, 1490, 0.9, 0)), ["cat"]).numpy()
    within = (drawn[:, 30:1470, 30:1970] != 200).any(axis=0)
    assert within.any(axis=1).sum() > 30


def test_letters_with_accents_are_written():
    """Letters that a font does not have are all the same box."""
    drawn = [
        draw_detections(PICTURE, detections((5, 5, 75, 55, 0.9, 0)), [name]).numpy()
        for name in ("\u00e9", "\u0416", "\u03a9")
    ]
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[1] != drawn[2]).any()

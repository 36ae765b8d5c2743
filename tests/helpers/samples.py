"""Detections for tests: by hand, and drawn by hypothesis."""

import numpy as np
from hypothesis import strategies as st

from d2_ssod.structures import Detections


def detections(*rows):
    """Each row: x1, y1, x2, y2, score, class."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.float32),
        table[:, 5].astype(np.int64),
    )


def rows(found):
    """The detections as a list of (x1, y1, x2, y2, score, class), scores to six decimals."""
    return [
        (*box, round(score, 6), number)
        for box, score, number in zip(
            found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True
        )
    ]


def scored(*scores, number=0):
    """Boxes far from each other with these scores, all of one class."""
    return detections(*((20 * i, 0, 20 * i + 10, 10, s, number) for i, s in enumerate(scores)))


# Detections in two images, with category ids that are not in the order of the classes.
CATEGORY_IDS = [7, 3]
FOUND = {
    3: detections((10, 20, 40, 60, 0.75, 1), (0.1, 0.2, 50.7, 60.9, 0.123456789, 0)),
    1: detections((5, 5, 25, 15, 0.5, 0)),
}


def assert_same(actual, expected):
    """Equality to the last bit, order included."""
    for name in ("boxes", "scores", "classes"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))


# Small whole numbers and few scores: overlaps at the thresholds and ties are frequent.
_ROWS = st.tuples(
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(1, 10),
    st.integers(1, 10),
    st.integers(1, 20),
    st.integers(0, 2),
).map(lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3], r[4] / 20, r[5]))

DETECTIONS = st.lists(_ROWS, max_size=12).map(lambda drawn: detections(*drawn))
PREDICTIONS = st.lists(DETECTIONS, min_size=1, max_size=6).map(lambda drawn: dict(enumerate(drawn)))

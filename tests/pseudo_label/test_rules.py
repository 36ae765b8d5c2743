"""Rules of one's own: what is asked of them, and that they make the labels."""

import numpy as np
import pytest
from samples import detections, scored

from d2_ssod.errors import ConfigError
from d2_ssod.pseudo_label import IMAGE_SCORES, build_pseudo_labels, select_easiest
from d2_ssod.structures import Detections

SOURCE = {1: scored(0.9, 0.3), 2: Detections.empty()}


def made_by(rule):
    return build_pseudo_labels([SOURCE, SOURCE], np.array([0.5, 0.5]), fraction=1.0, rule=rule)


def test_a_rule_is_given_all_boxes_and_those_above_the_thresholds():
    given = []

    def newest(sources):
        given.append(sources)
        return sources.raw[-1]

    assert made_by(newest).boxes_after_consensus == 2
    (sources,) = given
    assert sources.raw == (SOURCE, SOURCE)
    assert [len(found[1]) for found in sources.thresholded] == [1, 1]
    assert sources.objects_per_image.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ([scored(0.5)], "a dict with the Detections of every image"),
        ({1: scored(0.5), 2: None}, "a dict with the Detections of every image"),
        ({1: scored(0.5), 7: scored(0.5)}, r"of 2 images .* of 1, and of 1 others"),
        ({1: scored(0.5), 2: scored(0.4, number=2)}, "classes from 0 to 1; 1 boxes"),
        ({1: scored(0.5), 2: scored(0.4, number=-1)}, "classes from 0 to 1; 1 boxes"),
        ({1: scored(0.5, 1.5), 2: scored(np.nan)}, "scores from 0 to 1; 2 boxes"),
        (
            {1: detections((0, 0, np.inf, 9, 0.5, 0)), 2: Detections.empty()},
            "finite boxes; 1 boxes",
        ),
        (
            {1: detections((5, 0, 4, 9, 0.5, 0)), 2: Detections.empty()},
            "boxes x1, y1, x2, y2; 1 boxes",
        ),
    ],
)
def test_what_cannot_be_labels_is_refused_by_the_rules_name(labels, what):
    def mine(sources):
        return labels

    with pytest.raises(ConfigError, match=f"mine must give {what}" if "of 2" not in what else what):
        made_by(mine)


def test_an_order_of_ones_own_selects(monkeypatch):
    pseudo = {1: scored(0.9), 2: scored(0.3, 0.3), 3: Detections.empty()}
    by_number = {i: float(len(found)) for i, found in pseudo.items() if len(found)}
    monkeypatch.setitem(IMAGE_SCORES, "most", lambda pseudo: by_number)
    assert select_easiest(pseudo, 0.5, "most").kept == (2,)


@pytest.mark.parametrize("scores", [{1: 0.5}, {1: 0.5, 2: np.nan}, {1: 0.5, 2: 0.5, 3: 0.0}])
def test_an_order_that_is_none_is_refused(monkeypatch, scores):
    pseudo = {1: scored(0.9), 2: scored(0.3), 3: Detections.empty()}
    monkeypatch.setitem(IMAGE_SCORES, "mine", lambda pseudo: scores)
    with pytest.raises(ConfigError, match="'mine' must give a finite score to each of the 2"):
        select_easiest(pseudo, 0.5, "mine")

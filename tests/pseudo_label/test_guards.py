import numpy as np

from d2_ssod.pseudo_label import Guard

NEU = ["crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"]
LABELED = np.array([55, 88, 74, 38, 60, 31])


def vanished(boxes, **limits):
    return Guard(**limits).vanished_classes(np.array(boxes), LABELED, NEU)


def test_a_class_without_a_single_box_is_named():
    """As on steel: 425 selected images, none with crazing."""
    problem = vanished([0, 310, 260, 120, 90, 110])
    assert "crazing 0.0% of the pseudo-boxes, 15.9% of the labels" in problem
    assert "inclusion" not in problem
    assert "class_balanced" in problem


def test_a_rare_class_is_named_below_its_share_only():
    # Of 1000 boxes 17.3 % would be rolled-in_scale; a fifth of that are 34.7.
    assert vanished([159, 254, 214, 110, 35, 228]) is None
    assert "rolled-in_scale" in vanished([159, 254, 214, 110, 34, 229])
    assert vanished([159, 254, 214, 110, 34, 229], class_share=0.1) is None
    assert vanished([1, 999, 0, 0, 0, 0], class_share=0.0) is None


def test_taking_all_images_is_not_advised_where_all_are_taken():
    boxes, names = np.array([0, 310, 260, 120, 90, 110]), NEU
    assert "EASY_FRACTIONS" in Guard().vanished_classes(boxes, LABELED, names, 0.5)
    problem = Guard().vanished_classes(boxes, LABELED, names, 1.0)
    assert "train phase 0 longer" in problem
    assert "SELECTION" not in problem


def test_nothing_selected_or_labeled_is_no_vanished_class():
    assert vanished([0] * 6) is None
    assert Guard().vanished_classes(np.array([1, 2]), np.zeros(2), ["a", "b"]) is None


def test_a_class_that_nobody_labeled_may_be_missing():
    assert Guard().vanished_classes(np.array([5, 0]), np.array([3, 0]), ["a", "b"]) is None


def test_boxes_per_image_may_differ_by_the_factor():
    guard = Guard(rate_factor=3)
    assert guard.box_rate(boxes=600, images=100, objects_per_image=2) is None
    assert guard.box_rate(boxes=67, images=100, objects_per_image=2) is None
    assert "6.01 pseudo-boxes, a labeled one with objects 2.00" in guard.box_rate(601, 100, 2)
    assert "relax SSOD.CONSENSUS" not in guard.box_rate(601, 100, 2)
    assert "train phase 0 longer, or relax SSOD.CONSENSUS" in guard.box_rate(66, 100, 2)
    assert guard.box_rate(0, 0, 2) is None
    assert guard.box_rate(5, 1, 0) is None


def test_models_should_agree_on_a_share_of_the_fewer_boxes():
    guard = Guard(consensus_kept=0.25)
    assert guard.little_consensus(25, [100, 400]) is None
    assert "agree on 24 boxes, 24% of the 100" in guard.little_consensus(24, [100, 400])
    assert guard.little_consensus(0, [100]) is None
    assert guard.little_consensus(0, [0, 100]) is None

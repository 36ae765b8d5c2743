import numpy as np
from detectron2.structures import BoxMode

from d2_ssod.evaluation import difficulty_subsets, easy_images
from d2_ssod.structures import Detections


def found(*rows):
    """Each row: x of a 10 x 10 box, score, class."""
    return Detections(
        np.array([[x, 0, x + 10, 10] for x, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([number for _, _, number in rows], np.int64),
    )


def image(image_id, *objects, **marks):
    """Each object: x of a 10 x 10 box, class."""
    return {
        "image_id": image_id,
        "annotations": [
            {"bbox": [x, 0, 10, 10], "bbox_mode": BoxMode.XYWH_ABS, "category_id": number, **marks}
            for x, number in objects
        ],
    }


def is_easy(detections, record, **options):
    return easy_images({1: detections}, [record], **options) == [1]


def test_easy_means_recall_above_one_minus_precision():
    objects = [(0, 0), (20, 0), (40, 0), (60, 0)]
    # 2 of 4 objects, 2 of 3 labels right: 1/2 > 1/3.
    assert is_easy(found((0, 0.9, 0), (20, 0.8, 0), (80, 0.7, 0)), image(1, *objects))
    # 2 of 4 objects, 2 of 4 right: 1/2 is not more than 1/2.
    four = found((0, 0.9, 0), (20, 0.8, 0), (80, 0.7, 0), (100, 0.6, 0))
    assert not is_easy(four, image(1, *objects))


def test_easy_counts_each_object_once():
    # Both labels on one object: precision 1/2, recall 1/2.
    assert not is_easy(found((0, 0.9, 0), (1, 0.8, 0)), image(1, (0, 0), (50, 0)))
    # The best-scored takes the object it overlaps most, the other one the object next to it.
    assert is_easy(found((0, 0.9, 0), (3, 0.8, 0)), image(1, (0, 0), (2, 0)))


def test_easy_needs_the_class_and_the_overlap():
    assert is_easy(found((0, 0.9, 0)), image(1, (0, 0)))
    assert not is_easy(found((0, 0.9, 1)), image(1, (0, 0)))
    shifted = found((4, 0.9, 0))  # IoU 6/14 = 0.43
    assert not is_easy(shifted, image(1, (0, 0)))
    assert is_easy(shifted, image(1, (0, 0)), iou_thresh=6 / 14)


def test_crowds_make_an_image_neither_easy_nor_difficult():
    # 1 of 2 labels right, and 1 of 1 objects found: 1 > 1/2. Of three objects it would be 1/3.
    labels = found((0, 0.9, 0), (90, 0.8, 0))
    record = image(1, (0, 0))
    assert is_easy(labels, record)
    crowds = image(1, (50, 0), (70, 0), iscrowd=1)["annotations"]
    record["annotations"] += crowds
    assert is_easy(labels, record)
    # 1 of 2 labels right, and 1 of 2 objects found, with two more labels on crowds.
    record["annotations"] += image(1, (20, 0))["annotations"]
    assert not is_easy(labels, record)
    right = found((0, 0.9, 0), (50, 0.8, 0), (70, 0.7, 0))
    assert is_easy(right, record)
    assert not is_easy(found((50, 0.9, 0)), {**record, "annotations": crowds})


def test_easy_needs_objects_and_labels():
    assert not is_easy(Detections.empty(), image(1, (0, 0)))
    assert not is_easy(found((0, 0.9, 0)), image(1))
    assert not is_easy(Detections.empty(), {"image_id": 1})


def test_easy_images_keep_the_order_of_the_data_set():
    predictions = {i: found((0, 0.9, 0)) for i in (1, 2, 3)}
    records = [image(3, (0, 0)), image(1, (90, 0)), image(2, (0, 0))]
    assert easy_images(predictions, records) == [3, 2]


def test_difficulty_subsets_split_at_one_half():
    images = [
        {"image_id": image_id, "difficulty": difficulty}
        for image_id, difficulty in {3: 0.9, 1: 0.499, 2: 0.5, "x": 0.0, 4: 1.0}.items()
    ]
    assert difficulty_subsets(images) == {"easy": [1, "x"], "difficult": [3, 2, 4]}


def test_difficulty_subsets_without_an_image_are_left_out():
    easy, difficult = {"image_id": 1, "difficulty": 0.1}, {"image_id": 2, "difficulty": 0.8}
    assert difficulty_subsets([easy]) == {"easy": [1]}
    assert difficulty_subsets([difficult]) == {"difficult": [2]}
    assert difficulty_subsets([]) == {}


def test_difficulty_subsets_need_difficulties():
    assert difficulty_subsets([{"image_id": 1}]) == {}
    mixed = [{"image_id": 1}, {"image_id": 2, "difficulty": 0.1}]
    assert difficulty_subsets(mixed) == {"easy": [2]}

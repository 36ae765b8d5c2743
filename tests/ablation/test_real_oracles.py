import json

import pytest

from ablation.real.oracles import ORACLES, put_right

RIGHT, WRONG, OTHER_CLASS, TRUE, MISSED = (
    [10, 10, 20, 20],
    [60, 60, 20, 20],
    [11, 11, 20, 20],
    [12, 12, 20, 20],
    [40, 10, 10, 10],
)


@pytest.fixture
def files(tmp_path):
    """Pseudo-labels of one of two images, and the truth, with ids of its own."""
    contents = {
        "labels.json": {
            "images": [{"id": 7, "file_name": "/far/away/a.png", "width": 100, "height": 100}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 1, "bbox": RIGHT, "score": 0.9},
                {"id": 2, "image_id": 7, "category_id": 1, "bbox": WRONG, "score": 0.8},
                {"id": 3, "image_id": 7, "category_id": 2, "bbox": OTHER_CLASS, "score": 0.7},
            ],
        },
        "truth.json": {
            "images": [{"id": 1, "file_name": "b.png"}, {"id": 2, "file_name": "a.png"}],
            "categories": [{"id": 5, "name": "dog"}, {"id": 6, "name": "cat"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 5, "bbox": TRUE},
                {"id": 2, "image_id": 2, "category_id": 6, "bbox": TRUE},
                {"id": 3, "image_id": 2, "category_id": 5, "bbox": MISSED},
            ],
        },
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    return [tmp_path / name for name in contents]


@pytest.mark.parametrize(
    ("oracle", "expected"),
    [
        ("wrong_deleted", [(1, RIGHT)]),
        ("edges_true", [(1, TRUE), (1, WRONG), (2, OTHER_CLASS)]),
        ("missed_added", [(1, RIGHT), (1, WRONG), (2, OTHER_CLASS), (2, MISSED)]),
        ("true", [(1, TRUE), (2, MISSED)]),
    ],
)
def test_labels_are_put_right_in_one_respect(files, oracle, expected):
    content = put_right(*files, oracle)
    boxes = content["annotations"]
    assert [(box["category_id"], box["bbox"]) for box in boxes] == expected
    assert {box["image_id"] for box in boxes} == {7}
    assert [box["id"] for box in boxes] == list(range(1, len(boxes) + 1))
    assert len(content["images"]) == 1


def test_every_oracle_is_tested():
    assert list(ORACLES) == ["wrong_deleted", "edges_true", "missed_added", "true"]

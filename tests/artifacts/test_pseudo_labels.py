import json
import logging
import os

import numpy as np
import pytest
from detectron2.structures import BoxMode
from samples import CATEGORY_IDS, FOUND, scored

from d2_ssod import file_names
from d2_ssod.artifacts import (
    correction_files,
    count_pseudo_labels,
    image_names,
    load_pseudo_labels,
    save_pseudo_labels,
)
from d2_ssod.errors import ConfigError
from d2_ssod.structures import Detections, TieredDetections

CLASSES = ["cat", "dog"]


def image(image_id, file_name, width=100, height=80, **more):
    return {
        "image_id": image_id,
        "file_name": file_name,
        "width": width,
        "height": height,
        **more,
    }


IMAGES = [
    image(1, "/data/images/a/0.jpg", difficulty=0.3, annotations=[{"category_id": 0}]),
    image(2, "/data/images/b/0.jpg"),
    image(3, "/data/images/c.jpg"),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "phase_1" / "pseudo_labels.json"


def content(path):
    return json.loads(path.read_text())


def edit(path, change):
    """What a person does to the file."""
    edited = content(path)
    change(edited)
    path.write_text(json.dumps(edited))


@pytest.fixture
def saved(path):
    save_pseudo_labels(path, FOUND, IMAGES, CLASSES, CATEGORY_IDS)
    return path


def load(path):
    return load_pseudo_labels(path, IMAGES, CLASSES)


def test_pseudo_labels_are_coco_instances(saved):
    assert content(saved) == {
        "images": [
            {"id": 3, "file_name": "/data/images/c.jpg", "width": 100, "height": 80},
            {"id": 1, "file_name": "/data/images/a/0.jpg", "width": 100, "height": 80},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {
                "id": number,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": bbox,
                "area": area,
                "iscrowd": 0,
                "score": score,
            }
            for number, image_id, category_id, bbox, area, score in [
                (1, 3, 3, [10, 20, 30, 40], 1200, 0.75),
                (2, 3, 7, [0.1, 0.2, 50.6, 60.7], 3071.42, 0.12346),
                (3, 1, 7, [5, 5, 20, 10], 200, 0.5),
            ]
        ],
    }


def test_pseudo_labels_load_as_detectron2_dicts(saved):
    first, second = load(saved)
    assert first == {
        **IMAGES[2],
        "is_pseudo": True,
        "is_corrected": False,
        "annotations": [
            {
                "bbox": bbox,
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": category,
                "iscrowd": 0,
                "score": score,
            }
            for bbox, category, score in [
                ([10, 20, 30, 40], 1, 0.75),
                ([0.1, 0.2, 50.6, 60.7], 0, 0.12346),
            ]
        ],
    }
    assert second["image_id"] == 1
    assert second["difficulty"] == 0.3  # what else the data set says stays
    assert IMAGES[0]["annotations"] == [{"category_id": 0}]  # the data set's dict is untouched


def test_images_that_a_person_has_labeled_are_marked(path):
    labels = {3: FOUND[3], 1: FOUND[1]}
    save_pseudo_labels(path, labels, IMAGES, CLASSES, CATEGORY_IDS, corrected={1})
    assert [image.get("corrected") for image in content(path)["images"]] == [None, True]
    assert [image["is_corrected"] for image in load(path)] == [False, True]


def test_images_in_which_a_person_found_nothing_are_learned_from_where_empty_ones_are(path, caplog):
    nothing = Detections.empty()
    labels = {3: FOUND[3], 1: nothing, 2: nothing}
    save_pseudo_labels(path, labels, IMAGES, CLASSES, CATEGORY_IDS, corrected={1})
    assert [image["image_id"] for image in load(path)] == [3]
    assert count_pseudo_labels(path) == (1, len(FOUND[3]))
    # What a model has found nothing in may have objects.
    kept = load_pseudo_labels(path, IMAGES, CLASSES, filter_empty=False)
    assert [(image["image_id"], len(image["annotations"])) for image in kept] == [(3, 2), (1, 0)]
    assert count_pseudo_labels(path, filter_empty=False) == (2, len(FOUND[3]))
    assert "dropped 1 of 3 images, as they have no objects and nothing says that a" in caplog.text


def test_files_of_corrections_are_read_in_the_order_of_rounds(tmp_path):
    in_order = ["a.json", "round_1.json", "round_1 (1).json", "round_1-fixed.json"]
    in_order += ["Round_2.JSON", "round_10.json"]
    for name in [*in_order[::-1], "notes.txt", "._round_1.json"]:
        (tmp_path / name).touch()
    assert [os.path.basename(path) for path in correction_files(str(tmp_path))] == in_order
    assert correction_files("mine.json") == ["mine.json"]


def test_images_that_say_that_nobody_has_labeled_them_are_not_marked(path):
    save_pseudo_labels(path, {3: FOUND[3]}, IMAGES, CLASSES, CATEGORY_IDS)
    changed = content(path)
    changed["images"][0]["corrected"] = False
    path.write_text(json.dumps(changed))
    assert [image["is_corrected"] for image in load(path)] == [False]


def test_pseudo_labels_load_with_coco_api(saved, capsys):
    from pycocotools.coco import COCO

    coco = COCO(str(saved))
    capsys.readouterr()
    assert sorted(coco.getAnnIds(imgIds=[3])) == [1, 2]


def test_whole_names_are_found_without_a_search(path, monkeypatch):
    """50 000 folders with an image of the same name are no reason to compare each with each."""
    images = [image(number, f"/data/{number}/rgb.jpg") for number in range(3)]
    labels = dict.fromkeys((2, 0), FOUND[3])
    save_pseudo_labels(path, labels, images, CLASSES, CATEGORY_IDS)
    monkeypatch.setattr(image_names, "spellings", lambda name: pytest.fail("searched"))
    loaded = load_pseudo_labels(path, images, CLASSES)
    assert [record["image_id"] for record in loaded] == [2, 0]


def test_a_file_that_is_listed_twice_is_found_by_id(path):
    images = [image(1, "/data/a.jpg"), image(2, "/data/a.jpg")]
    save_pseudo_labels(path, {2: FOUND[3], 1: FOUND[1]}, images, CLASSES, CATEGORY_IDS)
    loaded = load_pseudo_labels(path, images, CLASSES)
    assert [record["image_id"] for record in loaded] == [2, 1]


def test_pseudo_labels_of_no_image_load_as_none(path):
    save_pseudo_labels(path, {}, IMAGES, CLASSES, CATEGORY_IDS)
    assert load(path) == []


def test_hand_edit_image_without_annotations_is_dropped_and_counted(saved, caplog):
    def remove_boxes(edited):
        edited["annotations"] = [a for a in edited["annotations"] if a["image_id"] != 3]

    edit(saved, remove_boxes)
    with caplog.at_level(logging.INFO):
        assert [record["image_id"] for record in load(saved)] == [1]
    assert "dropped 1 of 2 images" in caplog.text


def test_hand_edit_only_the_needed_keys(saved):
    def strip(edited):
        for annotation in edited["annotations"]:
            for key in ("id", "area", "iscrowd", "score"):
                del annotation[key]
        for one in edited["images"]:
            del one["width"]
            one["height"] = None  # as some tools write what they do not know

    edit(saved, strip)
    annotations = load(saved)[0]["annotations"]
    assert [a["score"] for a in annotations] == [1.0, 1.0]
    assert [a["iscrowd"] for a in annotations] == [0, 0]


def test_hand_edit_tool_renumbers_and_adds_keys(saved):
    def rewrite(edited):
        edited["info"] = {"tool": "x"}
        edited["categories"] = [
            {"id": 0, "name": "background", "supercategory": ""},
            {"id": 1, "name": "dog", "supercategory": ""},
            {"id": 2, "name": "cat", "supercategory": ""},
        ]
        new_ids = {3: 1, 1: 2}  # an id that the data set has, but for another image
        for one in edited["images"]:
            one.update(id=new_ids[one["id"]], license=0)
        for annotation in edited["annotations"]:
            annotation.update(
                image_id=new_ids[annotation["image_id"]],
                category_id={3: 1, 7: 2}[annotation["category_id"]],
                attributes={"occluded": False},
                segmentation=[],
                score=None,
            )

    before = load(saved)
    edit(saved, rewrite)
    after = load(saved)
    assert [record["image_id"] for record in after] == [3, 1]
    assert [[a["bbox"] for a in r["annotations"]] for r in after] == [
        [a["bbox"] for a in r["annotations"]] for r in before
    ]
    assert [a["category_id"] for a in after[0]["annotations"]] == [1, 0]


@pytest.mark.parametrize(
    ("file_name", "image_id", "expected"),
    [
        ("c.jpg", 99, 3),  # the only one of that name
        ("elsewhere\\c.jpg", 99, 3),  # also with a folder of another machine
        ("b/0.jpg", 1, 2),  # the folder decides before the id
        ("/data/images/b/0.jpg", 1, 2),
        (None, 2, 2),  # no name: the id
    ],
)
def test_hand_edit_images_are_found_by_name(saved, file_name, image_id, expected):
    def rename(edited):
        edited["images"] = [{"id": image_id, "file_name": file_name}]
        edited["annotations"] = [
            {"image_id": image_id, "category_id": 7, "bbox": [1, 1, 2, 2]},
        ]

    edit(saved, rename)
    assert [record["image_id"] for record in load(saved)] == [expected]


CAMERAS = [image(n, f"/mnt/new/cam{n}/0001.jpg") for n in (1, 2)]


@pytest.mark.parametrize(
    "name",
    [
        "/data/old/cam2/0001.jpg",
        "cam2/0001.jpg",
        "images/default/cam2/0001.jpg",
        "D:\\cam2\\0001.jpg",
    ],
)
def test_of_pictures_of_one_name_the_folder_that_moved_with_them_decides(path, name):
    save_pseudo_labels(path, {2: FOUND[1]}, CAMERAS, CLASSES, CATEGORY_IDS)
    edit(path, lambda labels: labels["images"][0].update(file_name=name))
    (found,) = load_pseudo_labels(path, CAMERAS, CLASSES)
    assert found["image_id"] == 2


def test_a_picture_of_another_folder_of_the_data_is_not_taken(path):
    """That of the first camera is a labeled one; others of it are not."""
    images = [image(1, "/mnt/cam1/0002.jpg"), CAMERAS[1]]
    save_pseudo_labels(path, {2: FOUND[1]}, images, CLASSES, CATEGORY_IDS)
    edit(path, lambda labels: labels["images"][0].update(file_name="cam1/0001.jpg"))
    with pytest.raises(ConfigError, match=r"'cam1/0001.jpg'.* no such image"):
        load_pseudo_labels(path, images, CLASSES)


def test_an_id_does_not_choose_among_pictures_of_one_name(saved):
    """A tool that has only one of the folders numbers its pictures from 1."""
    edit(saved, lambda edited: edited["images"][0].update(id=2, file_name="0.jpg"))
    with pytest.raises(
        ConfigError, match=r"'0.jpg'.* has several .* as /data/images/a/0\.jpg and "
    ):
        load(saved)


NESTED = [
    image(n, f"/data/u/{name}")
    for n, name in enumerate(("x.jpg", "sub/x.jpg", "sub/y.jpg", "w.jpg"), start=1)
]


def named(path, names, images=NESTED):
    """Read labels of pictures of these names; the ids of the images that they are."""
    save_pseudo_labels(path, {1: FOUND[1]}, NESTED, CLASSES, CATEGORY_IDS)
    rows = [{"id": 70 + n, "file_name": name} for n, name in enumerate(names)]
    boxes = [{"id": n, "image_id": 70 + n, "category_id": 7} for n in range(len(names))]
    edit(path, lambda labels: labels.update(images=rows, annotations=boxes))
    edit(path, lambda labels: [a.update(bbox=[1, 1, 2, 2]) for a in labels["annotations"]])
    return [found["image_id"] for found in load_pseudo_labels(path, images, CLASSES)]


@pytest.mark.parametrize("front", ["", "/data/u/", "/old/u/"])
def test_names_below_one_folder_are_those_of_that_folder(path, front):
    """Though one at its top is called as one further below."""
    names = [f"{front}{name}" for name in ("x.jpg", "sub/x.jpg", "sub/y.jpg")]
    assert named(path, names) == [1, 2, 3]
    assert named(path, names[::2]) == [1, 3]
    assert named(path, names[1:]) == [2, 3]


def test_a_name_without_its_folder_is_not_that_of_the_top(path):
    """A tool may have left the folder out."""
    with pytest.raises(ConfigError, match=r"several .* as /data/u/x\.jpg and /data/u/sub/x\.jpg; "):
        named(path, ["x.jpg"])
    assert named(path, ["y.jpg", "w.jpg"]) == [3, 4]


def test_a_picture_that_is_taken_for_one_of_another_folder_is_said(path, caplog):
    caplog.set_level(logging.INFO, "d2_ssod")
    assert named(path, ["/old/pics/x.jpg", "w.jpg"], NESTED[1:]) == [2, 4]
    said = "1 images lie in other folders than it says, as /old/pics/x.jpg, which is taken"
    assert said in caplog.text
    caplog.clear()
    assert named(path, ["/old/u/x.jpg", "/old/u/w.jpg", "/old/u/../u/sub/x.jpg"]) == [1, 4, 2]
    assert named(path, ["http://host/data/local-files/?d=u/sub/y.jpg"]) == [3]
    assert not caplog.text
    with pytest.raises(ConfigError, match=r"/old/u/x\.jpg'\): the unlabeled data set has no such"):
        named(path, ["/old/u/x.jpg"], NESTED[1:])  # there is that folder, but not the picture


@pytest.mark.parametrize("names", [["cam1/2.png"], ["cam1/0.png", "cam1/1.png", "cam1/2.png"]])
def test_a_folder_with_more_pictures_is_not_the_one_that_is_named(path, names):
    """Of the first camera a picture was deleted; its frames are called as those of the other."""
    files = [f"/new/cam{n // 3 + 1}/{n % 3}.png" for n in range(6) if n != 2]
    images = [image(number, file) for number, file in enumerate(files)]
    with pytest.raises(ConfigError, match=r"cam1/2\.png'\): the unlabeled data set has no such"):
        named(path, [f"/old/{name}" for name in names], images)


@pytest.mark.parametrize("end", ["rgb.jpg", "rgb/0.jpg", "a/b/c/0.jpg"])
def test_many_folders_of_the_same_names_are_told_apart_at_once(path, monkeypatch, end):
    looked_at = []
    monkeypatch.setattr(image_names, "parts_of", lambda name: looked_at.append(name) or parts(name))
    parts = file_names.parts_of
    images = [image(n, f"/d/{n}/{end}") for n in range(100)]
    urls = [f"http://host/data/local-files/?d={n}/{end}" for n in range(100)]
    assert named(path, urls, images) == list(range(100))
    assert len(looked_at) < 10 * len(images)


def test_two_categories_of_one_id_are_said(saved):
    edit(saved, lambda edited: edited["categories"][1].update(id=edited["categories"][0]["id"]))
    with pytest.raises(ConfigError, match="several categories have the id"):
        load(saved)


def test_names_of_categories_may_be_numbers(saved):
    """As in files of labeled images, where they are read as texts."""

    def number(edited):
        for category, name in zip(edited["categories"], (10, 2), strict=True):
            category["name"] = name

    expected = load(saved)
    edit(saved, number)
    assert load_pseudo_labels(saved, IMAGES, ["10", "2"]) == expected
    with pytest.raises(ConfigError, match="category '2' is not a class"):
        load_pseudo_labels(saved, IMAGES, ["10", "3", "4"])


def set_annotation(**values):
    return lambda edited: edited["annotations"][1].update(values)


def set_image(**values):
    return lambda edited: edited["images"][1].update(values)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"images\\1/90fbb0c7-{name}",
        lambda name: f"90fbb0c7-{name}",
        lambda name: f"http://localhost:8080/data/upload/3/90fbb0c7-{name}",
        lambda name: f"/data/local-files/?d=pictures/{name}",
        lambda name: f"file:///home/me/{name}",
    ],
)
def test_hand_edit_by_a_tool_that_renames_images(path, rename, caplog):
    images = [image(number, f"/data/images/u {number}.jpg") for number in (1, 2, 3)]
    save_pseudo_labels(path, FOUND, images, CLASSES, CATEGORY_IDS)
    expected = load_pseudo_labels(path, images, CLASSES)

    def change(labels):
        for row in labels["images"]:
            row["file_name"] = rename(row["file_name"].split("/")[-1].replace(" ", "%20"))

    edit(path, change)
    assert load_pseudo_labels(path, images, CLASSES) == expected


@pytest.mark.parametrize(
    ("file", "name", "is_renamed"),
    [
        ("a%20b.png", "x/a%20b.png", False),
        ("a+b.png", "http://host/a+b.png?X-Amz-Date=1", False),
        ("a.png", "http://host/files/?d=u/a.png&t=1", False),
        ("caf\u00e9.png", "x/cafe\u0301.png", False),
        ("a.png", "90fbb0c7-a.png", True),
        ("a.png", "x/a_png.rf.4f2d0b7c9e1a.jpg", True),
    ],
)
def test_only_what_a_tool_has_added_to_a_name_is_said(path, caplog, file, name, is_renamed):
    caplog.set_level(logging.INFO, "d2_ssod")
    images = [image(1, f"/data/u/{file}")]
    save_pseudo_labels(path, {1: FOUND[1]}, images, CLASSES, CATEGORY_IDS)
    edit(path, lambda labels: labels["images"][0].update(file_name=name))
    assert len(load_pseudo_labels(path, images, CLASSES)) == 1
    assert ("recognized 1 images that a tool had renamed" in caplog.text) == is_renamed


def test_hand_edit_by_a_tool_that_renames_beyond_recognition_says_so(saved):
    edit(saved, lambda labels: labels["images"][0].update(file_name="frame_000001.png"))
    with pytest.raises(ConfigError, match=r"frame_000001.png.*a tool has renamed the images"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_annotation(bbox=[1, 2, 0, 4]), r"annotation 2: the box \[1, 2, 0, 4\] .* empty"),
        (set_annotation(bbox=[1, 2, 3, -4]), r"annotation 2: .* empty"),
        (set_annotation(bbox=[1, 2, 3]), r"annotation 2: bbox must be four finite"),
        (set_annotation(bbox=[1, 2, float("nan"), 4]), r"annotation 2: bbox must be four finite"),
        (set_annotation(bbox=[1, 2, 3, "four"]), r"annotation 2: bbox must be four finite"),
        (set_annotation(bbox=None), r"annotation 2: bbox must be four finite"),
        (set_annotation(bbox=[100, 2, 3, 4]), r"annotation 2: .* outside its image of 100 x 80"),
        (set_annotation(bbox=[1, -9, 3, 4]), r"annotation 2: .* outside"),
        (set_annotation(score=1.5), r"annotation 2: score must be in \[0, 1\], found 1.5"),
        (set_annotation(score="high"), r"annotation 2: score"),
        (set_annotation(iscrowd="maybe"), r"annotation 2: iscrowd must be 0 or 1, found 'maybe'"),
        (set_annotation(ignore=1), r"annotation 2 has \"ignore\", which is not part of COCO"),
        (set_annotation(category_id=4), r"annotation 2: category 4 is not a class"),
        (set_annotation(image_id=2), r"annotation 2: image_id 2 is not one of the file's images"),
        (set_annotation(image_id=[2]), r"annotations\[1\] has image_id \[2\]"),
        (set_image(file_name="z.jpg"), r"image 1 \(file_name 'z.jpg'\): .* no such image"),
        (set_image(file_name="0.jpg", id=9), r"image 9 .* has several images that it may be"),
        (set_image(file_name="c.jpg"), r"image 1 .* occurs twice"),
        (set_image(file_name=5), r"images\[1\] has file_name 5"),
        (set_image(width=50), r"image 1 .*: width is 50, but the image's is 100"),
        (lambda e: e["categories"][0].update(name="bird"), r"annotation 2: category 'bird' is not"),
        (lambda e: e.pop("images"), r"no list of records 'images'"),
        (lambda e: e["annotations"].append(3), r"no list of records 'annotations'"),
    ],
)
def test_hand_edit_mistake_names_file_and_place(saved, change, message):
    edit(saved, change)
    with pytest.raises(ConfigError, match=r"pseudo_labels\.json.*" + message) as caught:
        load(saved)
    assert "\n" not in str(caught.value)


def as_other_tools_write(labels):
    """Numbers as texts, ids as decimals."""
    for image in labels["images"]:
        image.update(id=float(image["id"]), width=str(image["width"]))
    for category in labels["categories"]:
        category["id"] = str(category["id"])
    for row in labels["annotations"]:
        row.update(image_id=str(row["image_id"]), iscrowd="0", bbox=list(map(str, row["bbox"])))
        row.update(score=str(row["score"]), category_id=float(row["category_id"]))


def test_labels_are_read_as_annotation_files_are(saved):
    before = load(saved)
    edit(saved, as_other_tools_write)
    assert load(saved) == before


def test_images_with_crowds_alone_have_nothing_to_learn(saved):
    edit(saved, lambda labels: [row.update(iscrowd="true") for row in labels["annotations"]])
    assert load(saved) == []


def test_hand_edit_broken_json_names_the_line(saved):
    saved.write_text(saved.read_text().replace('"categories": [', '"categories": ', 1))
    with pytest.raises(ConfigError, match=r"pseudo_labels\.json: not valid JSON .* in line \d+"):
        load(saved)


def test_pseudo_labels_are_what_was_saved_to_hundredths_of_a_pixel(path):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (50, 2))
    boxes = np.hstack([corner, corner + rng.uniform(0.01, 39, (50, 2))]).astype(np.float32)
    found = Detections(boxes, rng.uniform(0, 1, 50).astype(np.float32), rng.integers(0, 2, 50))
    save_pseudo_labels(path, {1: found}, IMAGES, CLASSES, CATEGORY_IDS)
    (record,) = load(path)
    xyxy = [
        BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in record["annotations"]
    ]
    np.testing.assert_allclose(xyxy, boxes, rtol=0, atol=0.0101)  # of x and of the width
    assert [a["category_id"] for a in record["annotations"]] == found.classes.tolist()
    scores = [a["score"] for a in record["annotations"]]
    np.testing.assert_allclose(scores, found.scores, rtol=0, atol=0.51e-5)


def test_a_box_at_the_images_edge_is_never_refused(path):
    """Rounding may move a box of less than a hundredth of a pixel out of its image."""
    sizes = np.arange(1, 40) / 1000
    boxes = np.stack([100 - sizes, 80 - sizes, *(np.full(len(sizes), s) for s in (100, 80))], 1)
    found = Detections(
        boxes.astype(np.float32), np.ones(len(sizes), np.float32), np.zeros(len(sizes), np.int64)
    )
    save_pseudo_labels(path, {1: found}, IMAGES, CLASSES, CATEGORY_IDS)
    (record,) = load(path)
    assert 30 < len(record["annotations"]) < len(sizes)


@pytest.mark.parametrize("image_id", [3, 1])
def test_pseudo_labels_of_an_image_without_boxes_name_it_alone(path, image_id):
    save_pseudo_labels(path, {**FOUND, image_id: Detections.empty()}, IMAGES, CLASSES, CATEGORY_IDS)
    assert [one["id"] for one in content(path)["images"]] == [3, 1]
    assert [record["image_id"] for record in load(path)] == [4 - image_id]


def test_pseudo_labels_need_known_images(path):
    with pytest.raises(KeyError):
        save_pseudo_labels(path, {9: scored(0.5)}, IMAGES, CLASSES, CATEGORY_IDS)
    assert not path.exists()


# Labels of two tiers

TIERED = {
    3: TieredDetections(
        **vars(scored(0.9, 0.25)),
        votes=np.array([2, 1]),
        spread=np.array([[0.02, 0.12345], [np.nan, np.nan]], dtype=np.float32),
        certain=np.array([True, False]),
    )
}


def test_tier_votes_and_spread_are_in_the_file(path):
    save_pseudo_labels(path, TIERED, IMAGES, CLASSES, CATEGORY_IDS)
    kept = [
        {key: each[key] for key in ("score", "tier", "votes", "spread")}
        for each in content(path)["annotations"]
    ]
    assert kept == [
        {"score": 0.9, "tier": "certain", "votes": 2, "spread": [0.02, 0.1235]},
        {"score": 0.25, "tier": "uncertain", "votes": 1, "spread": None},
    ]


def test_tier_and_spread_are_read_back(path):
    save_pseudo_labels(path, TIERED, IMAGES, CLASSES, CATEGORY_IDS)
    (image,) = load(path)
    assert [(a["tier"], a["spread"]) for a in image["annotations"]] == [
        ("certain", [0.02, 0.1235]),
        ("uncertain", None),
    ]


def test_tiers_follow_their_boxes_where_one_without_area_is_left_out(path):
    flat = TIERED[3].select(np.array([0, 0, 1]))
    flat.boxes[0, 2] = flat.boxes[0, 0]
    save_pseudo_labels(path, {3: flat}, IMAGES, CLASSES, CATEGORY_IDS)
    assert [each["tier"] for each in content(path)["annotations"]] == ["certain", "uncertain"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("tier", "sure", "tier must be 'certain' or 'uncertain', found 'sure'"),
        ("tier", ["certain"], "tier must be"),
        ("spread", [0.1], "spread must be two numbers"),
        ("spread", "0.1", "spread must be two numbers"),
        ("spread", [0.1, float("nan")], "spread must be two numbers"),
    ],
)
def test_a_tier_or_spread_that_is_none_is_refused(path, key, value, said):
    save_pseudo_labels(path, TIERED, IMAGES, CLASSES, CATEGORY_IDS)
    edit(path, lambda file: file["annotations"][1].update({key: value}))
    with pytest.raises(ConfigError, match="annotation 2") as info:
        load(path)
    assert said in str(info.value)


def test_a_box_that_a_person_has_drawn_has_no_tier(path):
    save_pseudo_labels(path, TIERED, IMAGES, CLASSES, CATEGORY_IDS)

    def draw(file):
        for key in ("tier", "votes", "spread", "score"):
            del file["annotations"][0][key]

    edit(path, draw)
    (image,) = load(path)
    assert "tier" not in image["annotations"][0]
    assert image["annotations"][0]["score"] == 1.0


def test_the_count_is_of_what_is_loaded(saved):
    def by_hand(edited):
        edited["annotations"] += [
            {**edited["annotations"][0], "image_id": str(edited["annotations"][0]["image_id"])},
            {**edited["annotations"][0], "iscrowd": 1},
        ]

    edit(saved, by_hand)
    loaded = load(saved)
    objects = sum(not a["iscrowd"] for each in loaded for a in each["annotations"])
    assert count_pseudo_labels(saved) == (len(loaded), objects)


@pytest.mark.parametrize("damaged", [[], {"images": []}, {"images": [], "annotations": [[]]}])
def test_what_is_no_coco_file_is_not_counted(saved, damaged):
    saved.write_text(json.dumps(damaged))
    with pytest.raises(ConfigError, match=f"^{saved}: not a COCO instances file"):
        count_pseudo_labels(saved)


@pytest.mark.parametrize("image_id", [9, None])
def test_an_object_of_no_image_is_not_counted(saved, image_id):
    edit(saved, lambda edited: edited["annotations"][0].update(image_id=image_id))
    with pytest.raises(ConfigError, match="is not one of the file's images"):
        count_pseudo_labels(saved)


def test_of_pictures_of_one_name_and_folder_the_longest_path_in_common_decides(path):
    """As of cameras whose folders have a folder for each day."""
    images = [image(n, f"/mnt/new/cam{n}/day1/0001.jpg") for n in (1, 2)]
    save_pseudo_labels(path, {2: FOUND[1]}, images, CLASSES, CATEGORY_IDS)
    edit(path, lambda labels: labels["images"][0].update(file_name="/old/cam2/day1/0001.jpg"))
    (found,) = load_pseudo_labels(path, images, CLASSES)
    assert found["image_id"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_image(id=3), r"image 3 \(file_name '/data/images/a/0.jpg'\): the image occurs twice"),
        (set_image(height=100), r"image 1 .*: height is 100, but the image's is 80"),
        (set_annotation(score=-0.1), r"annotation 2: score must be in \[0, 1\], found -0.1"),
    ],
)
def test_hand_edit_that_would_put_boxes_elsewhere_is_said(saved, change, message):
    edit(saved, change)
    with pytest.raises(ConfigError, match=message):
        load(saved)


def test_a_score_of_0_is_one(saved):
    edit(saved, set_annotation(score=0))
    assert [a["score"] for a in load(saved)[0]["annotations"]] == [0.75, 0.0]

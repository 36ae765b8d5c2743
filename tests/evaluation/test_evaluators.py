import json
import logging
import math
import sys
from functools import partial
from pathlib import Path

import catalogs
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_pascal_voc
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from detectron2.evaluation.pascal_voc_evaluation import parse_rec
from detectron2.structures import BoxMode
from lookup import CAT, DOG, HALF, OBJECT, batches, finding, instances, register_coco, write_coco

from d2_ssod.data.datasets import CocoFile, register_from_config
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import (
    BoxEvaluator,
    VocEvaluator,
    build_evaluator,
    evaluator_kind,
    ground_truth,
)
from d2_ssod.evaluation.coco_metrics import Truth, box_metrics
from d2_ssod.structures import Detections


@pytest.fixture
def name(tmp_path):
    return register_coco(write_coco(tmp_path))


def processed(evaluator, model):
    """The evaluator, having seen what a model finds in every image."""
    evaluator.reset()
    for inputs in batches():
        evaluator.process(inputs, model.eval()(inputs))
    return evaluator


def with_kind(kind):
    """The name of a data set whose metadata says this evaluator_type."""
    name = f"lookup_kind_{kind}"
    MetadataCatalog.get(name).evaluator_type = kind
    return name


def test_evaluator_kind_is_that_of_the_metadata(name):
    assert evaluator_kind(name) == "coco"
    voc = with_kind("pascal_voc")
    with pytest.raises(ConfigError, match="evaluator_type 'pascal_voc', but no dirname"):
        evaluator_kind(voc)
    with catalogs.restored_catalogs():
        MetadataCatalog.get("lookup_voc").set(
            evaluator_type="pascal_voc", dirname="/nowhere", split="test", year=2007
        )
        assert evaluator_kind("lookup_voc") == "pascal_voc"
    with catalogs.restored_catalogs():
        MetadataCatalog.get("lookup_voc").set(
            evaluator_type="pascal_voc", dirname="/nowhere", split="test", year=2010
        )
        with pytest.raises(ConfigError, match=r"DATASETS\.VAL: .* year 2010 .* set it to 2007"):
            evaluator_kind("lookup_voc", "DATASETS.VAL")


def test_evaluator_is_of_its_kind(name, tmp_path):
    assert isinstance(build_evaluator(name), BoxEvaluator)
    voc = with_kind("pascal_voc")
    write_voc(tmp_path)
    MetadataCatalog.get(voc).set(
        dirname=str(tmp_path), split="test", year=2007, thing_classes=["cat", "dog"]
    )
    assert isinstance(build_evaluator(voc), VocEvaluator)


def write_voc(folder, pose=True, decimals=False, difficult=0):
    """Two images of two objects each, as VOC has them or as a tool writes them."""
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main" / "test.txt").write_text("a\nb\n")
    dot = ".0" if decimals else ""
    middle = f"<pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
    for name in "ab":
        objects = "".join(
            f"<object><name>{kind}</name>{middle if pose else ''}<bndbox><xmin>{x}{dot}</xmin>"
            f"<ymin>5</ymin><xmax>{x + 20}</xmax><ymax>30</ymax></bndbox></object>"
            for kind, x in (("cat", 5), ("dog", 40))
        )
        size = "<size><width>100</width><height>80</height></size>"
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation>{size}{objects}</annotation>"
        )


def voc_metrics(evaluator, names="ab"):
    """What it says of a model that finds the cats, one of them twice, and a dog with an offset."""
    cat, dog, shifted = (4, 4, 25, 30), (39, 4, 60, 30), (41, 5, 62, 31)
    evaluator.reset()
    in_images = (
        [(cat, 0.9, CAT), (cat, 0.8, CAT), (dog, 0.7, DOG), ((60, 60, 70, 70), 0.6, DOG)],
        [(cat, 0.6, CAT), (shifted, 0.5, DOG)],
    )
    for name, rows in zip(names, in_images, strict=True):
        evaluator.process([{"image_id": name}], [{"instances": instances(rows)}])
    return evaluator.evaluate()["bbox"]


@pytest.fixture
def voc_name(tmp_path):
    name = f"lookup_voc_{tmp_path.name}"
    MetadataCatalog.get(name).set(
        dirname=str(tmp_path), split="test", year=2012, thing_classes=["cat", "dog"]
    )
    return name


def test_voc_metrics_are_detectron2s(voc_name, tmp_path):
    write_voc(tmp_path)
    theirs = voc_metrics(PascalVOCDetectionEvaluator(voc_name))
    ours = voc_metrics(VocEvaluator(voc_name))
    assert {name: ours[name] for name in theirs} == theirs
    assert 0 < theirs["AP"] < theirs["AP50"]


def test_nothing_is_kept_of_files_that_are_gone(voc_name, tmp_path):
    write_voc(tmp_path)
    voc_metrics(VocEvaluator(voc_name))
    assert parse_rec.cache_info().currsize == 0


def test_coco_metrics_stand_beside_vocs(voc_name, tmp_path):
    write_voc(tmp_path)
    metrics = voc_metrics(VocEvaluator(voc_name))
    # Of each class the first is found, then a wrong box or copy, then the second: precision 1 to a
    # recall of a half, then 2 / 3.
    assert metrics["AP50/coco"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert metrics["AP/coco"] < metrics["AP50/coco"]


def test_voc_metrics_of_a_tools_files_are_the_same(voc_name, tmp_path):
    write_voc(tmp_path / "whole")
    MetadataCatalog.get("lookup_voc_whole").set(
        dirname=str(tmp_path / "whole"), split="test", year=2012, thing_classes=["cat", "dog"]
    )
    write_voc(tmp_path, pose=False, decimals=True)
    assert voc_metrics(VocEvaluator(voc_name)) == voc_metrics(VocEvaluator("lookup_voc_whole"))


def edit_voc(folder, name, old, new):
    path = folder / "Annotations" / f"{name}.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("names", [("my a", "my b"), ("of/a", "of/b")])
def test_names_may_have_spaces_and_folders(voc_name, tmp_path, names):
    write_voc(tmp_path)
    expected = voc_metrics(VocEvaluator(voc_name))
    for old, new in zip("ab", names, strict=True):
        path = tmp_path / "Annotations" / f"{new}.xml"
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{old}.xml").rename(path)
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names))
    assert voc_metrics(VocEvaluator(voc_name), names) == expected


def test_decimals_of_voc_corners_are_rounded(voc_name, tmp_path):
    write_voc(tmp_path, decimals=True)
    expected = voc_metrics(VocEvaluator(voc_name))
    for name in "ab":
        edit_voc(tmp_path, name, "<xmin>5.0<", "<xmin>4.6<")
        edit_voc(tmp_path, name, "<ymin>5<", "<ymin>4.6<")
    found = voc_metrics(VocEvaluator(voc_name))
    assert {key: found[key] for key in ("AP", "AP50", "AP75")} == {
        key: expected[key] for key in ("AP", "AP50", "AP75")
    }


def test_difficult_objects_count_as_by_detectron2(voc_name, tmp_path):
    write_voc(tmp_path, difficult=0)
    plain = voc_metrics(VocEvaluator(voc_name))
    _, _, dog = (tmp_path / "Annotations" / "b.xml").read_text().split("<object>")
    edit_voc(tmp_path, "b", dog, dog.replace("<difficult>0<", "<difficult>1<"))
    theirs = voc_metrics(PascalVOCDetectionEvaluator(voc_name))
    ours = voc_metrics(VocEvaluator(voc_name))
    assert {key: ours[key] for key in theirs} == theirs
    assert ours["AP"] != plain["AP"]


def test_the_file_of_a_registered_data_set_is_read_once(tmp_path, monkeypatch):
    name = f"lookup_{tmp_path.name}"
    entry = {"NAME": name, "JSON": str(write_coco(tmp_path)), "IMAGES": str(tmp_path)}
    register_from_config([entry], "SSOD.REGISTER")
    read, times = CocoFile.read, []
    monkeypatch.setattr(CocoFile, "read", lambda own: times.append(own) or read(own))
    evaluator = BoxEvaluator(name)
    assert len(times) == 1
    assert evaluator.evaluate()["bbox"]["AP"] == 0
    DatasetCatalog.remove(name)


def test_difficult_objects_of_voc_are_crowds_of_the_truth(tmp_path):
    """Whatever function reads the images: Detectron2's gives them as objects."""
    write_voc(tmp_path, difficult=1)
    name = f"lookup_voc_{tmp_path.name}"
    register_pascal_voc(name, str(tmp_path), "test", 2012, ["cat", "dog"])
    MetadataCatalog.get(name).evaluator_type = "pascal_voc"
    assert [a["iscrowd"] for image in ground_truth(name) for a in image["annotations"]] == [1] * 4
    DatasetCatalog.remove(name)


def test_a_class_of_difficult_objects_alone_does_not_count(voc_name, tmp_path):
    write_voc(tmp_path)
    for name in "ab":
        _, _, dog = (tmp_path / "Annotations" / f"{name}.xml").read_text().split("<object>")
        edit_voc(tmp_path, name, dog, dog.replace("<difficult>0<", "<difficult>1<"))
    # Of the cats: precision 1 to a recall of a half, then 2 / 3.
    assert voc_metrics(VocEvaluator(voc_name))["AP50"] == pytest.approx(100 * (1 + 2 / 3) / 2)


@pytest.mark.parametrize("kind", ["lvis", None])
@pytest.mark.parametrize("function", [build_evaluator, evaluator_kind])
def test_another_kind_names_the_data_set(function, kind):
    name = with_kind(kind)
    with pytest.raises(ConfigError, match=rf"DATASETS\.TEST: .*'{name}'.*{kind!r}.*'coco'"):
        function(name)


def test_metadata_without_a_kind_names_the_data_set():
    MetadataCatalog.get("lookup_without_kind").thing_classes = ["cat"]
    with pytest.raises(ConfigError, match="lookup_without_kind"):
        evaluator_kind("lookup_without_kind")


def test_metrics_are_detectron2s_where_its_own_are_right(name):
    """Where every class is found; but the names of the classes, which it exchanges (below)."""
    model = finding(1, 2, 3, shift=4)
    ours = processed(BoxEvaluator(name), model).evaluate()["bbox"]
    theirs = processed(COCOEvaluator(name, tasks=("bbox",), use_fast_impl=False), model)
    theirs = theirs.evaluate()["bbox"]
    assert str(sorted(ours.items())) == str(sorted(theirs.items()))  # NaN too
    assert ours["AP"] == pytest.approx(40)


def test_classes_have_their_own_ap_whatever_the_order_of_the_category_ids(name):
    """Category 2 is the dog, class 1; category 4 is the cat, class 0."""
    metrics = processed(BoxEvaluator(name), finding(1)).evaluate()["bbox"]
    assert metrics["AP-cat"] == pytest.approx(HALF)
    assert metrics["AP-dog"] == 0


def test_the_same_detections_may_be_evaluated_again(name):
    evaluator = processed(BoxEvaluator(name), finding(1, 3))
    first = evaluator.evaluate()["bbox"]
    of_dog = evaluator.evaluate(img_ids=[3])["bbox"]
    assert of_dog["AP"] == pytest.approx(100)
    assert evaluator.evaluate(img_ids=[2])["bbox"]["AP"] == 0
    assert str(evaluator.evaluate()["bbox"]) == str(first)


def test_nothing_found_is_zero_and_without_object_nan(name):
    metrics = processed(BoxEvaluator(name), finding()).evaluate(img_ids=[1])["bbox"]
    assert [metrics["AP"], metrics["AP50"], metrics["AP-cat"]] == [0, 0, 0]
    assert math.isnan(metrics["AP-dog"])


def test_evaluator_is_quiet_and_leaves_the_logger_as_it_was(name, capsys, caplog, monkeypatch):
    logger = logging.getLogger("detectron2.evaluation.coco_evaluation")
    monkeypatch.setattr(logger, "level", logging.INFO)
    with caplog.at_level(logging.INFO, logger="detectron2"):
        processed(BoxEvaluator(name), finding(1)).evaluate()
    assert capsys.readouterr().out == ""
    assert caplog.text == ""
    assert logger.level == logging.INFO


def test_detections_of_both_classes_count_apart(name):
    """A dog where a cat is takes nothing from the cat."""
    evaluator = BoxEvaluator(name)
    evaluator.reset()
    for inputs in batches([1, 2]):
        evaluator.process(
            inputs, [{"instances": instances([(OBJECT, 0.9, CAT), (OBJECT, 0.95, DOG)])}]
        )
    metrics = evaluator.evaluate()["bbox"]
    assert metrics["AP-cat"] == pytest.approx(100)
    assert metrics["AP-dog"] == 0


def well_formed(seed, number=12):
    """Ground truth and detections of all sizes, crowds among them, as COCO's files have them."""
    rng = np.random.default_rng(seed)
    images, annotations, found = [], [], {}
    for image_id in range(1, number + 1):
        images.append({"id": image_id, "file_name": "x.png", "width": 300, "height": 200})
        rows = []
        for _ in range(rng.integers(0, 6)):
            x, y = rng.uniform(0, 100, 2).round(2).tolist()
            w, h = rng.uniform(5, 150, 2).round(2).tolist()
            kind, crowd = int(rng.integers(0, 2)), int(rng.random() < 0.15)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "bbox": [x, y, w, h]}
                | {"category_id": {CAT: 4, DOG: 2}[kind], "iscrowd": crowd, "area": w * h * 0.7}
            )
            for _ in range(rng.integers(0, 3)):
                dx, dy = rng.normal(0, 0.1 * min(w, h), 2)
                box = (x + dx, y + dy, x + w + dx, y + h + dy)
                rows.append((box, float(rng.random()), kind if rng.random() < 0.9 else 1 - kind))
        found[image_id] = rows
    categories = [{"id": 2, "name": "dog"}, {"id": 4, "name": "cat"}]
    return {"images": images, "annotations": annotations, "categories": categories}, found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("api", ["pycocotools", "faster_coco_eval"])
def test_numbers_are_the_official_ones(tmp_path, monkeypatch, seed, api):
    if api == "faster_coco_eval":
        pytest.importorskip("faster_coco_eval")
    else:
        monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    content, found = well_formed(seed)
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    name = register_coco(path)
    evaluators = [BoxEvaluator(name), COCOEvaluator(name, tasks=("bbox",), use_fast_impl=False)]
    results = []
    for evaluator in evaluators:
        evaluator.reset()
        for image_id, rows in found.items():
            evaluator.process([{"image_id": image_id}], [{"instances": instances(rows)}])
        results.append(evaluator.evaluate()["bbox"])
    ours, theirs = results
    for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        assert ours[metric] == pytest.approx(theirs[metric], nan_ok=True), metric
    # Detectron2 names the classes in the order of the model's, the API has that of the ids.
    assert ours["AP-cat"] == pytest.approx(theirs["AP-dog"])
    assert ours["AP-dog"] == pytest.approx(theirs["AP-cat"])


@pytest.mark.parametrize("api", ["pycocotools", "faster_coco_eval"])
def test_all_objects_of_a_crowded_image_can_be_found(monkeypatch, api):
    if api == "faster_coco_eval":
        pytest.importorskip("faster_coco_eval")
    else:
        monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    corners = np.array([[20 * (n % 20), 20 * (n // 20)] for n in range(300)], dtype=float)
    size, kinds = np.full((300, 2), 15.0), np.zeros(300, dtype=np.int64)
    truth = Truth(np.hstack([corners, size]), kinds, kinds > 0, np.full(300, 225.0))
    boxes = np.hstack([corners, corners + size]).astype(np.float32)
    found = Detections(boxes, np.linspace(1, 0.5, 300, dtype=np.float32), kinds)
    metrics = box_metrics([truth], [found], ["cell"])
    assert metrics["AP"] == pytest.approx(100)
    assert metrics["APs"] == pytest.approx(100)
    assert np.isnan(metrics["APl"])


@pytest.mark.parametrize(
    "edit",
    [
        lambda a: a.update(id=0),
        lambda a: a.update(id="first"),
        lambda a: [a.pop(key) for key in ("area", "iscrowd", "id")],
        lambda a: a.update(area=None, iscrowd=None, segmentation=[[]]),
    ],
)
def test_numbers_do_not_depend_on_the_habits_of_a_file(tmp_path, edit):
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    edit(content["annotations"][0])
    empty = {"id": 9, "image_id": 2, "category_id": 4, "bbox": [5, 5, 0, 9]}
    content["annotations"].append(empty)
    path.write_text(json.dumps(content))
    metrics = processed(BoxEvaluator(register_coco(path)), finding(1, 2, 3)).evaluate()["bbox"]
    assert metrics["AP"] == pytest.approx(100)


def test_image_ids_may_be_texts_and_mixed(tmp_path):
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    for row, key in ((content["images"][0], "id"), (content["annotations"][0], "image_id")):
        row[key] = "first"
    path.write_text(json.dumps(content))
    evaluator = BoxEvaluator(register_coco(path))
    evaluator.reset()
    seen = [(OBJECT, 0.9, CAT)], [(OBJECT, 0.9, CAT)], [(OBJECT, 0.9, DOG)]
    for image_id, rows in zip(("first", 2, 3), seen, strict=True):
        evaluator.process([{"image_id": image_id}], [{"instances": instances(rows)}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)


def test_the_truth_of_ones_own_function_is_what_it_gives(tmp_path):
    """Whatever file its metadata name: ids, classes and images may be others there."""
    box = {"bbox": [0, 0, 20, 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1}
    size = {"height": 40, "width": 40}
    images = [{"file_name": "a.png", "image_id": "a", **size, "annotations": [box]}]
    with catalogs.restored_catalogs():
        DatasetCatalog.register("lookup_own", lambda: images)
        metadata = {"thing_classes": ["cat", "dog"], "evaluator_type": "coco"}
        MetadataCatalog.get("lookup_own").set(json_file=write_coco(tmp_path), **metadata)
        evaluator = build_evaluator("lookup_own")
        evaluator.process(
            [{"image_id": "a"}], [{"instances": instances([((0, 0, 20, 20), 0.9, 1)])}]
        )
        assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)


def test_the_truth_of_a_function_that_reads_the_file_is_the_files(tmp_path):
    """As users write it: the areas of objects are those in the file, whoever reads it."""
    path = write_coco(tmp_path)
    content = json.loads(Path(path).read_text())
    for annotation in content["annotations"]:
        annotation["area"] = 7.0
    Path(path).write_text(json.dumps(content))
    with catalogs.restored_catalogs():
        for name, wrap in (("lookup_lambda", lambda f: lambda: f()), ("lookup_partial", partial)):
            DatasetCatalog.register(name, wrap(partial(load_coco_json, path, "", name)))
            MetadataCatalog.get(name).set(evaluator_type="coco", json_file=path)
            DatasetCatalog.get(name)  # completes the metadata
            truths = build_evaluator(name)._truths.values()
            assert {area for truth in truths for area in truth.areas.tolist()} == {7.0}


@pytest.mark.parametrize(("number", "areas"), [(CAT, {400.0}), (DOG, {9.0})])
def test_the_truth_of_a_function_that_leaves_objects_out_is_the_files(tmp_path, number, areas):
    """As Detectron2's does where polygons are odd; but not if the classes are others."""
    images = [
        {"file_name": f"{i}.png", "image_id": i, "height": 80, "width": 100, "annotations": []}
        for i in (1, 2, 3)
    ]
    box = {"bbox": [0, 0, 3, 3], "bbox_mode": BoxMode.XYXY_ABS, "category_id": number}
    images[0]["annotations"].append(box)
    with catalogs.restored_catalogs():
        name = register_coco(write_coco(tmp_path), "lookup_some")
        DatasetCatalog.register(name, lambda: images)
        found = build_evaluator(name)._truths.values()
        assert {area for truth in found for area in truth.areas.tolist()} == areas

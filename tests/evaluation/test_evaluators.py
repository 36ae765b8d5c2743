import json
import logging
import math

import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from lookup import CAT, DOG, HALF, OBJECT, batches, finding, instances, register_coco, write_coco

from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import BoxEvaluator, build_evaluator, evaluator_kind


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
    assert evaluator_kind(with_kind("pascal_voc")) == "pascal_voc"


def test_evaluator_is_of_its_kind(name, tmp_path):
    assert isinstance(build_evaluator(name), BoxEvaluator)
    voc = with_kind("pascal_voc")
    MetadataCatalog.get(voc).set(dirname=str(tmp_path), split="test", year=2007, thing_classes=[])
    assert isinstance(build_evaluator(voc), PascalVOCDetectionEvaluator)


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


def test_results_are_written_where_they_are_wanted(name, tmp_path):
    processed(BoxEvaluator(name, tmp_path / "out"), finding(1, 3)).evaluate()
    results = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    x1, y1, x2, y2 = OBJECT
    assert [(r["image_id"], r["category_id"], r["bbox"]) for r in results] == [
        (1, 4, [x1, y1, x2 - x1, y2 - y1]),
        (3, 2, [x1, y1, x2 - x1, y2 - y1]),
    ]


def test_results_are_not_written_where_they_are_not_wanted(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    processed(BoxEvaluator(name), finding(1)).evaluate()
    assert sorted(tmp_path.rglob("*")) == before


def test_evaluator_is_quiet_and_leaves_the_logger_as_it_was(name, capsys, caplog, monkeypatch):
    logger = logging.getLogger("detectron2.evaluation.coco_evaluation")
    monkeypatch.setattr(logger, "level", logging.INFO)
    with caplog.at_level(logging.INFO, logger="detectron2"):
        processed(BoxEvaluator(name), finding(1)).evaluate()
    assert capsys.readouterr().out == ""
    assert "Evaluation results" not in caplog.text
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

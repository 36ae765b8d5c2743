import json
import logging
import math
from dataclasses import replace

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import PascalVOCDetectionEvaluator
from lookup import (
    CAT,
    DOG,
    HALF,
    IMAGES,
    OBJECT,
    LookUp,
    batches,
    finding,
    register_coco,
    write_coco,
)

from d2_ssod.engine.processes.group import run_to_the_end
from d2_ssod.evaluation import Fusion, build_evaluator, difficulty_subsets, evaluate_phases


@pytest.fixture
def name(tmp_path):
    return register_coco(write_coco(tmp_path))


def evaluate(models, name, **options):
    return evaluate_phases(models, batches(), lambda row: build_evaluator(name), **options)


def test_evaluate_known_ap(name):
    # Phase 0 finds one of two cats and no dog, phase 1 everything, phase 2 all 4 pixels too far to
    # the right: IoU 16/24 = 2/3 is enough for 4 of COCO's 10 thresholds.
    results = evaluate([finding(1), finding(1, 2, 3), finding(1, 2, 3, shift=4)], name)
    zero, one, two = results.phases
    assert zero["AP"] == pytest.approx(HALF / 2)
    assert zero["AP50"] == pytest.approx(HALF / 2)
    assert zero["AP-cat"] == pytest.approx(HALF)
    assert zero["AP-dog"] == pytest.approx(0)
    assert one["AP"] == pytest.approx(100)
    assert two["AP"] == pytest.approx(40)
    assert two["AP50"] == pytest.approx(100)
    assert two["AP75"] == pytest.approx(0)
    # 20 x 20 is small; there is no other size.
    assert one["APs"] == pytest.approx(100)
    assert math.isnan(one["APm"])
    assert math.isnan(one["APl"])
    # Fused from 10 and 14 px, the left edge lies at 12: IoU 18/22 = 0.82, enough for 7 thresholds.
    assert results.ensembles["1~N"]["AP"] == pytest.approx(70)
    assert list(results.ensembles) == ["1~N", "0~N"]


def test_the_ensemble_of_phase_1_alone_is_phase_1(name):
    results = evaluate([finding(1), finding(1, 2, 3)], name)
    assert results.ensembles["1~N"]["AP"] == results.phases[1]["AP"] == pytest.approx(100)


def test_evaluate_ensembles_complement_each_other(name):
    results = evaluate([finding(1), finding(2), finding(3)], name)
    assert results.ensembles["0~N"]["AP"] == pytest.approx(100)
    assert results.ensembles["1~N"]["AP-cat"] == pytest.approx(HALF)
    assert results.ensembles["1~N"]["AP-dog"] == pytest.approx(100)


def test_evaluate_uses_weights_and_thresholds(name):
    models = [finding(1, 2, 3), finding(1, 2, 3, shift=4)]  # IoU 2/3: fused by default
    assert evaluate(models, name).ensembles["0~N"]["AP"] == pytest.approx(70)
    # With nearly all the weight on phase 0 its boxes hardly move.
    still = evaluate(models, name, fusion=Fusion(weights=(1000, 1)))
    assert still.ensembles["0~N"]["AP"] == pytest.approx(100)
    # Not fused, each box is there, phase 1's with another score behind.
    apart = evaluate(models, name, fusion=Fusion(iou_thresh=0.9, weights=(2, 1)))
    assert apart.ensembles["0~N"]["AP"] == pytest.approx(100)
    # All boxes skipped.
    skipped = evaluate(models, name, fusion=Fusion(skip_box_thresh=0.95))
    assert skipped.ensembles["0~N"]["AP"] == 0


def test_evaluate_gives_each_ensemble_the_weights_of_its_models(name):
    models = [LookUp({}), finding(1, 2, 3), finding(1, 2, 3, shift=4)]  # IoU 2/3: fused
    ensembles = evaluate(models, name, fusion=Fusion(weights=(1, 1000, 1))).ensembles
    assert ensembles["1~N"]["AP"] == pytest.approx(100)
    ensembles = evaluate(models, name, fusion=Fusion(weights=(1000, 1, 1))).ensembles
    assert ensembles["1~N"]["AP"] == pytest.approx(70)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0)])
def test_evaluate_refuses_other_weights_before_the_pass(name, weights):
    models = [finding(1), finding(2)]
    with pytest.raises(ValueError, match="each of the 2 models"):
        evaluate(models, name, fusion=Fusion(weights=weights))
    assert [model.calls for model in models] == [0, 0]


def test_evaluate_refuses_no_models(name):
    with pytest.raises(ValueError, match="at least one"):
        evaluate([], name)


def test_evaluate_runs_every_model_once_per_image(name):
    models = [finding(1), finding(2), finding(3)]
    evaluate(models, name, subsets=difficulty_subsets(IMAGES))
    assert [model.calls for model in models] == [3, 3, 3]


def test_evaluate_limits_the_boxes_of_ensembles(name):
    models = [finding(1, 2, 3), finding(1, 2, 3, shift=4)]
    # Not fused, the boxes that lie beside come first.
    fusion = Fusion(iou_thresh=0.9, weights=(1, 2))
    limited = evaluate(models, name, fusion=replace(fusion, max_detections=1))
    assert limited.ensembles["0~N"]["AP"] == pytest.approx(40)
    whole = evaluate(models, name, fusion=replace(fusion, max_detections=None))
    assert whole.ensembles["0~N"]["AP"] > 45


def test_evaluate_restores_the_models_modes(name):
    models = [finding(1).train(), finding(2).eval()]
    evaluate(models, name)
    assert [model.training for model in models] == [True, False]


def test_evaluate_subsets_add_metrics(name):
    results = evaluate([finding(1), finding(2, 3)], name, subsets=difficulty_subsets(IMAGES))
    zero, one = results.phases
    # Easy is image 1 alone; difficult are 2 and 3.
    assert [zero["AP/easy"], zero["AP50/easy"]] == pytest.approx([100, 100])
    assert [zero["AP/difficult"], zero["AP-cat/difficult"]] == [0, 0]
    assert one["AP/easy"] == pytest.approx(0)
    assert one["AP/difficult"] == pytest.approx(100)
    assert math.isnan(one["AP-dog/easy"])  # no dog there
    assert results.ensembles["0~N"]["AP/difficult"] == pytest.approx(100)
    # Metrics of all images are the same as without subsets.
    assert zero["AP"] == pytest.approx(HALF / 2)
    assert one["AP"] == pytest.approx((HALF + 100) / 2)


def test_evaluate_finding_nothing_is_zero_not_nan(name):
    results = evaluate([LookUp({}), LookUp({})], name, subsets=difficulty_subsets(IMAGES))
    for metrics in (*results.phases, *results.ensembles.values()):
        for key in ("AP", "AP50", "AP75", "APs", "AP-cat", "AP-dog", "AP/easy", "AP50/difficult"):
            assert metrics[key] == 0
        assert math.isnan(metrics["APl"])  # no such object
        assert math.isnan(metrics["AP-dog/easy"])


def test_evaluate_wrong_class_and_duplicates_count_as_mistakes(name):
    # Image 1: the dog has no object, harmless to the cat. Image 3: a cat before all true ones.
    seen = {
        1: [(OBJECT, 0.9, CAT), (OBJECT, 0.8, DOG)],
        2: [(OBJECT, 0.9, CAT)],
        3: [(OBJECT, 0.99, CAT), (OBJECT, 0.95, DOG)],
    }
    (zero,) = evaluate([LookUp(seen)], name).phases
    # Cats: precision 0/1, 1/2, 2/3 at recall 0, 0.5, 1; interpolated 2/3 everywhere.
    assert zero["AP-cat"] == pytest.approx(100 * 2 / 3)
    assert zero["AP-dog"] == pytest.approx(100)


def test_evaluate_one_phase_ensemble_is_the_model_alone(name):
    # Fusing it with itself alone would merge the two overlapping boxes (IoU 2/3).
    close = {1: [(OBJECT, 0.9, CAT), ((14, 10, 34, 30), 0.8, CAT)]}
    results = evaluate([finding(1), LookUp(close)], name)
    assert list(results.ensembles) == ["1~N", "0~N"]
    assert str(results.ensembles["1~N"]) == str(results.phases[1])


def test_evaluate_phase_zero_alone_has_no_ensemble(name):
    assert evaluate([finding(1)], name).ensembles == {}


def test_evaluate_is_quiet(name, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="detectron2"):
        evaluate([finding(1), finding(2)], name)
    assert capsys.readouterr().out == ""
    assert "Evaluation results" not in caplog.text


def test_evaluate_gives_each_row_its_evaluator(name):
    made = {}

    def make_evaluator(row):
        made[row] = build_evaluator(name)
        return made[row]

    evaluate_phases(
        [finding(1), finding(2), finding(3)],
        batches(),
        make_evaluator,
        subsets=difficulty_subsets(IMAGES),
    )
    found = {row: sum(map(len, evaluator._found.values())) for row, evaluator in made.items()}
    assert found == {"phase_0": 1, "phase_1": 1, "phase_2": 1, "1~N": 2, "0~N": 3}


# Pascal VOC

XML = """<annotation><object><name>{name}</name><pose>Left</pose><truncated>0</truncated>
<difficult>0</difficult><bndbox><xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax>
</bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("1\n2\n3\n")
    for image_id, kind in {1: "cat", 2: "cat", 3: "dog"}.items():
        (tmp_path / "Annotations" / f"{image_id}.xml").write_text(XML.format(name=kind))
    name = f"lookup_voc_{tmp_path.name}"
    MetadataCatalog.get(name).set(
        evaluator_type="pascal_voc",
        dirname=str(tmp_path),
        split="test",
        year=2007,
        thing_classes=["cat", "dog"],
    )
    return name


def test_evaluate_voc_by_eleven_points(voc):
    results = evaluate([finding(1), finding(1, 2, 3), LookUp({})], voc)
    # Recall 0.5 with precision 1: 6 of the 11 points 0, 0.1, ..., 1; no dog.
    assert results.phases[0]["AP50"] == pytest.approx(100 * 6 / 11 / 2)
    assert results.phases[1]["AP50"] == pytest.approx(100)
    assert results.phases[2]["AP50"] == 0
    # COCO's 101 points: 0 to 0.5.
    assert results.phases[0]["AP50/coco"] == pytest.approx(100 * 51 / 101 / 2)
    kinds = ("AP", "AP50", "AP75")
    assert set(results.ensembles["0~N"]) == {*kinds, *(f"{kind}/coco" for kind in kinds)}


def test_evaluate_voc_on_subsets(voc):
    """A class without an object there does not count."""
    (metrics,) = evaluate([finding(1)], voc, subsets={"a": [1], "b": [2, 3], "c": [1, 2]}).phases
    assert [metrics["AP50/a"], metrics["AP50/coco/a"]] == pytest.approx([100, 100])
    assert [metrics["AP50/b"], metrics["AP50/coco/b"]] == [0, 0]
    assert metrics["AP50/c"] == pytest.approx(100 * 6 / 11)
    assert metrics["AP50"] == pytest.approx(100 * 6 / 11 / 2)  # as without subsets


def test_evaluate_refuses_subsets_that_an_evaluator_does_not_know(voc):
    model = finding(1)
    with pytest.raises(ValueError, match="PascalVOCDetectionEvaluator does not"):
        evaluate_phases(
            [model],
            [],
            lambda row: PascalVOCDetectionEvaluator(voc),
            subsets={"easy": [1]},
        )
    assert model.calls == 0


# Several processes


def _evaluate_on_rank(rank, folder, json_file):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    run_to_the_end(lambda: _evaluate(rank, folder, json_file))


def _evaluate(rank, folder, json_file):
    from d2_ssod.inference import predict

    name = register_coco(json_file)
    own = batches([[1, 2], [3]][rank])
    results = evaluate_phases(
        [finding(1), finding(2, 3)],
        own,
        lambda row: build_evaluator(name),
        subsets=difficulty_subsets(IMAGES),
    )
    found = predict(finding(1, 3), own, description="predict", image_ids=[3, 2, 1])
    (folder / f"rank_{rank}.json").write_text(
        json.dumps(
            {
                "results": results and {"phases": results.phases, "ensembles": results.ensembles},
                "found": found and {i: d.scores.tolist() for i, d in found.items()},
            }
        )
    )


def test_evaluate_and_predict_on_two_processes(tmp_path):
    json_file = write_coco(tmp_path)
    torch.multiprocessing.spawn(_evaluate_on_rank, (tmp_path, json_file), nprocs=2)
    main, other = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(2))
    assert other == {"results": None, "found": None}
    alone = evaluate(
        [finding(1), finding(2, 3)],
        register_coco(json_file),
        subsets=difficulty_subsets(IMAGES),
    )
    assert str(main["results"]["phases"]) == str(alone.phases)
    assert str(main["results"]["ensembles"]) == str(alone.ensembles)
    assert list(main["found"]) == ["3", "2", "1"]
    assert [len(scores) for scores in main["found"].values()] == [1, 0, 1]

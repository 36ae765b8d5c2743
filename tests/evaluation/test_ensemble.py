import pytest
import torch
from detectron2.config import get_cfg
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import Boxes, Instances, RotatedBoxes
from lookup import HALF, OBJECT, LookUp, batches, finding, register_coco, write_coco
from torch import nn
from torch.nn import DataParallel

from d2_ssod.config import add_ssod_config, shipped_configs
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import EnsembleRCNN, Fusion, build_evaluator


def test_ensemble_fuses_what_its_models_see():
    ensemble = EnsembleRCNN([finding(1, score=0.8), finding(1, 2, score=0.4)]).eval()
    first, second = ensemble([*batches([1])[0], *batches([2])[0]])
    assert first["instances"].image_size == (80, 100)
    assert first["instances"].scores.tolist() == pytest.approx([0.6])
    assert first["instances"].pred_boxes.tensor.tolist()[0] == pytest.approx(OBJECT)
    assert second["instances"].scores.tolist() == pytest.approx([0.2])


def test_ensemble_fuses_as_it_is_told():
    models = [finding(1, score=0.8), finding(1, score=0.4, shift=5)]  # IoU 0.6
    (inputs,) = batches([1])
    for fusion, scores in [
        (Fusion(iou_thresh=0.5), [0.6]),
        (Fusion(iou_thresh=0.7), [0.4, 0.2]),
        (Fusion(iou_thresh=0.7, max_detections=1), [0.4]),
        (Fusion(iou_thresh=0.7, skip_box_thresh=0.5), [0.4]),
        (Fusion(iou_thresh=0.5, weights=(1, 3)), [0.5]),
    ]:
        (output,) = EnsembleRCNN(models, fusion=fusion).eval()(inputs)
        assert output["instances"].scores.tolist() == pytest.approx(scores)


def test_ensemble_forward_each_gives_every_models_output():
    one, two = finding(1), finding(2)
    each = EnsembleRCNN([one, two]).eval().forward_each([*batches([1])[0], *batches([2])[0]])
    assert [[len(output["instances"]) for output in outputs] for outputs in each] == [
        [1, 0],
        [0, 1],
    ]
    assert one.calls == two.calls == 1


def test_ensemble_works_in_inference_on_dataset(tmp_path):
    name = register_coco(write_coco(tmp_path))
    ensemble = EnsembleRCNN([finding(1), finding(2, 3)]).train()
    results = inference_on_dataset(ensemble, batches(), build_evaluator(name))
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert ensemble.training  # as before
    alone = inference_on_dataset(EnsembleRCNN([finding(1)]), batches(), build_evaluator(name))
    assert alone["bbox"]["AP-cat"] == pytest.approx(HALF)
    assert alone["bbox"]["AP"] == pytest.approx(HALF / 2)


def test_ensemble_refuses_training():
    ensemble = EnsembleRCNN([finding(1)]).train()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        ensemble(batches([1])[0])


def test_ensemble_needs_no_gradient_and_is_a_module():
    class Scorer(LookUp):
        def __init__(self):
            super().__init__({})
            self.layer = nn.Linear(1, 1)

        def forward(self, inputs):
            assert not torch.is_grad_enabled()
            return super().forward(inputs)

    ensemble = EnsembleRCNN([Scorer(), Scorer()]).eval()
    ensemble(batches([1])[0])
    assert len(ensemble.state_dict()) == 4


@pytest.mark.parametrize(("count", "weights"), [(0, None), (2, (1.0,)), (1, (1.0, 2.0))])
def test_ensemble_refuses_bad_arguments(count, weights):
    with pytest.raises(ValueError, match="models"):
        EnsembleRCNN([finding(1)] * count, fusion=Fusion(weights))


def test_ensemble_refuses_models_of_different_image_formats():
    rgb, bgr, any_format, not_said = (finding(1) for _ in range(4))
    rgb.input_format, bgr.input_format, not_said.input_format = "RGB", "BGR", None
    with pytest.raises(ValueError, match=r"same input_format, got \['RGB', None, 'BGR'\]"):
        EnsembleRCNN([rgb, any_format, bgr])
    EnsembleRCNN([bgr, any_format, not_said, bgr])


def wrapped(model):
    return [
        DataParallel(model),
        torch.compile(model, backend="eager"),
        EnsembleRCNN([model]),
        DataParallel(torch.compile(DataParallel(model), backend="eager")),
    ]


def test_ensemble_asks_models_below_wrappers():
    models = [finding(1), finding(1)]
    for model, image_format, classes in zip(models, ("BGR", "RGB"), (2, 3), strict=True):
        model.input_format, model.num_classes = image_format, classes
    for model in wrapped(models[1]):
        with pytest.raises(ConfigError, match="input_format"):
            EnsembleRCNN([models[0], model])
    models[1].input_format = "BGR"
    for model in wrapped(models[1]):
        with pytest.raises(ConfigError, match=r"models of \[2, 3\] classes"):
            EnsembleRCNN([models[0], model])


def test_ensemble_asks_the_model_that_is_called_with_several_views():
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.MODEL.DEVICE, cfg.INPUT.FORMAT = "cpu", "RGB"
    model, other = build_model(cfg), finding(1)
    other.input_format = "BGR"
    with pytest.raises(ConfigError, match=r"got \['RGB', 'BGR'\]"):
        EnsembleRCNN([GeneralizedRCNNWithTTA(cfg, model), other])


def test_ensemble_knows_what_an_ssd_takes_and_finds():
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.merge_from_file(str(shipped_configs() / "digits_ssd.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    ssd = build_model(cfg)
    assert ssd.input_format == cfg.INPUT.FORMAT
    assert ssd.num_classes == cfg.MODEL.SSD.NUM_CLASSES


def test_fusion_refuses_a_negative_number_of_boxes():
    with pytest.raises(ValueError, match="max_detections must be >= 0, or None, got -1"):
        Fusion(max_detections=-1)


def test_ensemble_refuses_models_of_other_numbers_of_classes():
    three, two, not_said = finding(1), finding(1), finding(1)
    three.num_classes, two.roi_heads = 3, nn.Module()
    two.roi_heads.num_classes = 2
    with pytest.raises(ValueError, match=r"same classes, got models of \[3, 2, None\] classes"):
        EnsembleRCNN([three, two, not_said])
    EnsembleRCNN([three, three, not_said])


class Answers(nn.Module):
    """Gives the same for each image."""

    def __init__(self, **fields):
        super().__init__()
        self.output = fields

    def forward(self, inputs):
        return [self.output for _ in inputs]


def found_in(size, boxes=Boxes):
    columns = 5 if boxes is RotatedBoxes else 4
    found = Instances(size, scores=torch.ones(1), pred_classes=torch.zeros(1, dtype=torch.long))
    found.pred_boxes = boxes(torch.ones(1, columns))
    return found


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([{"sem_seg": None}, {"sem_seg": None}], "each model must give .*instances"),
        ([{"instances": found_in((9, 9), RotatedBoxes)}] * 2, "RotatedBoxes are not fused"),
        ([{"instances": found_in((9, 9))}, {"instances": found_in((9, 8))}], "different sizes"),
    ],
)
def test_ensemble_refuses_answers_that_cannot_be_fused(answers, message):
    ensemble = EnsembleRCNN(Answers(**answer) for answer in answers).eval()
    with pytest.raises(ValueError, match=message):
        ensemble(batches([1])[0])


def test_what_is_no_data_set_has_no_evaluator():
    with pytest.raises(ConfigError, match="no data set is registered as 'none_such'"):
        build_evaluator("none_such")

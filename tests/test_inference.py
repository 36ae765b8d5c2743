import pytest
import torch
from samples import assert_same, detections
from torch import nn

from d2_ssod.inference import evaluation_mode, predict
from d2_ssod.structures import Detections, to_instances

FOUND = {
    5: detections((0, 0, 1, 1, 0.5, 0), (0, 0, 2, 2, 0.6, 1)),
    "x": Detections.empty(),
    3: detections((0, 0, 3, 3, 0.7, 2)),
}


class LookUp(nn.Module):
    """A detector that knows the answers by image id."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.frozen = nn.BatchNorm1d(1).eval()
        self.fail = False

    def forward(self, inputs):
        assert not self.training
        assert not self.norm.training
        assert not torch.is_grad_enabled()
        if self.fail:
            raise RuntimeError("out of memory")
        return [{"instances": to_instances(FOUND[i["image_id"]], (10, 10))} for i in inputs]


BATCHES = [[{"image_id": 5}, {"image_id": "x"}], [{"image_id": 3}]]


def test_predict_collects_every_image_in_order():
    predictions = predict(LookUp(), BATCHES, description="test")
    assert list(predictions) == [5, "x", 3]
    for image_id, found in FOUND.items():
        assert_same(predictions[image_id], found)


def test_predict_leaves_out_boxes_without_area():
    """Multi-transform inference gives such boxes, where the single-scale one removes them."""

    def model(inputs):
        found = detections((0, 5, 0, 9, 0.9, 1), (0, 0, 1, 1, 0.5, 0), (2, 4, 6, 4, 0.7, 0))
        return [{"instances": to_instances(found, (10, 10))} for _ in inputs]

    class Model(nn.Module):
        forward = staticmethod(model)

    predictions = predict(Model(), [[{"image_id": 1}]], description="test")
    assert_same(predictions[1], detections((0, 0, 1, 1, 0.5, 0)))


def test_predict_orders_by_image_ids():
    assert list(predict(LookUp(), BATCHES, description="test", image_ids=[3, 5, "x"])) == [
        3,
        5,
        "x",
    ]


def test_predict_takes_a_generator():
    batches = (batch for batch in BATCHES)
    assert list(predict(LookUp(), batches, description="test")) == [5, "x", 3]


@pytest.mark.parametrize("image_ids", [[3, 5], [3, 5, "x", 6]])
def test_predict_refuses_missing_images(image_ids):
    with pytest.raises(ValueError, match="only one of them"):
        predict(LookUp(), BATCHES, description="test", image_ids=image_ids)


def test_predict_refuses_an_image_twice():
    with pytest.raises(ValueError, match="5 occurs twice"):
        predict(LookUp(), [*BATCHES, [{"image_id": 5}]], description="test")


@pytest.mark.parametrize("fail", [False, True])
def test_predict_restores_every_modules_mode(fail):
    model = LookUp().train()
    model.frozen.eval()
    model.fail = fail
    if fail:
        with pytest.raises(RuntimeError, match="out of memory"):
            predict(model, BATCHES, description="test")
    else:
        predict(model, BATCHES, description="test")
    assert [model.training, model.norm.training, model.frozen.training] == [True, True, False]
    assert torch.is_grad_enabled()


def test_evaluation_mode_leaves_a_model_in_evaluation_mode():
    model = LookUp().eval()
    with evaluation_mode(model):
        pass
    assert not model.training


def test_predict_gives_each_batch_at_once():
    batches = []
    predict(LookUp(), BATCHES, description="test", on_batch=batches.append)
    assert [list(batch) for batch in batches] == [[5, "x"], [3]]
    assert_same(batches[1][3], FOUND[3])


def test_predict_gives_the_batches_before_an_error():
    batches = []
    with pytest.raises(ValueError, match="5 occurs twice"):
        predict(
            LookUp(), [*BATCHES, [{"image_id": 5}]], description="test", on_batch=batches.append
        )
    assert len(batches) == 2

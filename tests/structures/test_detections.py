import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from hypothesis import given
from samples import DETECTIONS, assert_same, detections, rows

from d2_ssod.structures import Detections, concatenate, from_instances, to_instances


def test_detections_refuse_other_types():
    boxes, scores, classes = np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.zeros(2, int)
    Detections(boxes, scores, classes)
    for wrong in [
        (boxes.astype(np.float64), scores, classes),
        (boxes[:1], scores, classes),
        (boxes, scores[:, None], classes),
        (boxes, scores, classes.astype(np.int32)),
    ]:
        with pytest.raises(ValueError, match="must be"):
            Detections(*wrong)
    for wrong in (torch.from_numpy(boxes), boxes.tolist()):
        with pytest.raises(TypeError, match="boxes must be a NumPy array"):
            Detections(wrong, scores, classes)


def test_select_takes_masks_and_indices():
    found = detections((0, 0, 1, 1, 0.5, 0), (0, 0, 2, 2, 0.6, 1), (0, 0, 3, 3, 0.7, 2))
    assert found.select(np.array([2, 0])).classes.tolist() == [2, 0]
    assert found.select(np.array([True, False, True])).classes.tolist() == [0, 2]
    assert len(found.select(np.zeros(0, dtype=np.int64))) == 0


def test_concatenate_keeps_order():
    a, b = detections((0, 0, 1, 1, 0.5, 0)), detections((0, 0, 2, 2, 0.6, 1))
    assert concatenate([b, Detections.empty(), a]).classes.tolist() == [1, 0]
    assert_same(concatenate([]), Detections.empty())


@given(DETECTIONS)
def test_instances_round_trip(found):
    instances = to_instances(found, (30, 40))
    assert instances.image_size == (30, 40)
    assert_same(from_instances(instances), found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_from_instances_takes_half_precision(dtype):
    instances = Instances(
        (30, 40),
        pred_boxes=Boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=dtype, requires_grad=True)),
        scores=torch.tensor([0.5], dtype=dtype),
        pred_classes=torch.tensor([3], dtype=torch.int32),
    )
    assert_same(from_instances(instances), detections((1, 2, 3, 4, 0.5, 3)))


def test_instances_do_not_share_the_arrays():
    found = detections((0, 0, 10, 10, 0.5, 1))
    instances = to_instances(found, (20, 20))
    instances.pred_boxes.tensor.zero_()
    instances.scores.zero_()
    instances.pred_classes.zero_()
    assert rows(found) == [(0, 0, 10, 10, 0.5, 1)]

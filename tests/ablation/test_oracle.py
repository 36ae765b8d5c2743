import pytest
import torch
from detectron2.structures import Boxes, Instances

from ablation.oracle import OracleWeighting, missed_boxes
from d2_ssod.modeling import RoIBatch

LABELED = [0.0, 0.0, 10.0, 10.0]
MISSED = [20.0, 20.0, 30.0, 30.0]


def test_missed_boxes_are_those_without_a_pseudo_label():
    truth = torch.tensor([LABELED, MISSED])
    pseudo = torch.tensor([[1.0, 0.0, 10.0, 10.0]])  # IoU 0.9 with the first
    assert missed_boxes(truth, pseudo).tolist() == [MISSED]


def test_missed_boxes_without_pseudo_labels_are_all_objects():
    truth = torch.tensor([LABELED, MISSED])
    assert missed_boxes(truth, torch.zeros(0, 4)).tolist() == truth.tolist()


@pytest.mark.parametrize("missed", [[MISSED], []])
def test_oracle_weighs_only_background_on_missed_objects_with_zero(missed):
    target = Instances((40, 40), gt_boxes=Boxes(torch.tensor([LABELED])))
    target.missed_boxes = torch.tensor(missed).reshape(1, -1, 4)
    rois = RoIBatch(
        # on the labeled object; on the missed one (IoU 0.9); beside it (IoU 1/3)
        boxes=torch.tensor([LABELED, [21.0, 20.0, 30.0, 30.0], [25.0, 20.0, 35.0, 30.0]]),
        embeddings=torch.zeros(3, 2),
        is_foreground=torch.tensor([True, False, False]),
        rois_per_image=[3],
        targets=[target],
    )
    expected = [1.0, 0.0 if missed else 1.0, 1.0]
    assert OracleWeighting(None)(rois).weights.tolist() == expected

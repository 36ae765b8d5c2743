"""The README's code runs as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

ROOT = Path(__file__).parent.parent
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the snippets with the operators define."""
    found = {}
    for snippet in SNIPPETS:
        if "d2_ssod.ops" in snippet:
            exec(snippet, found)
    return found


def test_torchvision_snippet_trains_the_embedding_and_the_classifier(names):
    torch.manual_seed(0)
    embedding = torch.nn.Linear(8, 4)
    logits = torch.randn(6, 3, requires_grad=True)
    rois = [torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 9, 9]]) for _ in range(2)]
    labels = [torch.tensor([1, 0, 0]), torch.tensor([0, 2, 0])]
    loss = names["weighted_fastrcnn_loss"](logits, labels, rois, torch.randn(6, 8), embedding)
    loss.backward()
    assert logits.grad.abs().sum() > 0
    assert embedding.weight.grad.abs().sum() > 0


def test_detectron2_snippet_trains(names):
    from d2_ssod.config import add_ssod_config

    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs" / "digits_two_phase.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NAME = "SoftSampledROIHeads"
    import d2_ssod.demo  # noqa: F401  registers the small backbone

    model = build_model(cfg).train()
    target = Instances((64, 64))
    target.gt_boxes = Boxes(torch.tensor([[10.0, 10.0, 40.0, 40.0]]))
    target.gt_classes = torch.tensor([1])
    image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    with EventStorage():
        losses = model([{"image": image, "instances": target, "height": 64, "width": 64}])
    assert torch.isfinite(sum(losses.values()))

"""The code in the README and the docs runs as it stands there."""

import re
from pathlib import Path

import detectron2
import pytest
import torch
from detectron2.config import LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "own_data.md", ROOT / "docs" / "operators.md")
SNIPPETS = [
    snippet
    for page in PAGES
    for snippet in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]

TEXTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "csrc/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.fixture(scope="module")
def names():
    """What the snippets define, but for the one with models that there are not."""
    found = {}
    for snippet in SNIPPETS:
        if "model_a" not in snippet:
            exec(snippet, found)
    return found


def anchors_of(path):
    """Name the headings as GitHub does."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


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


def test_lazy_config_of_the_docs_trains():
    page, found = (ROOT / "docs" / "extending.md").read_text(), {}
    (snippet,) = re.findall(r"### With LazyConfig.*?```python\n(.*?)```", page, re.DOTALL)
    exec(snippet, found)
    zoo = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    lazy = LazyConfig.load(str(zoo / "common" / "models" / "mask_rcnn_fpn.py")).model
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        lazy.roi_heads.pop(key)
    lazy.backbone.bottom_up.stem.norm = lazy.backbone.bottom_up.stages.norm = "BN"
    found["with_uncertainty"](lazy)
    model = instantiate(lazy).train()
    target = Instances((64, 64), gt_classes=torch.tensor([1]), gt_is_pseudo=torch.tensor([True]))
    target.gt_boxes = Boxes(torch.tensor([[10.0, 10.0, 40.0, 40.0]]))
    image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    with EventStorage() as storage:
        losses = model([{"image": image, "instances": target, "height": 64, "width": 64}])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert "loss_similarity" in losses
    assert any(name.startswith("roi_weighting/weight") for name in storage.histories())


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


def test_predictor_snippet_finds_what_the_model_finds(names, tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    import d2_ssod.engine  # noqa: F401
    from d2_ssod.config import add_ssod_config

    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs" / "digits_two_phase.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = build_model(cfg).eval()
    (tmp_path / "phase_1").mkdir()
    DetectionCheckpointer(model, str(tmp_path / "phase_1")).save("model_final")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    image = torch.randint(0, 255, (128, 128, 3), dtype=torch.uint8)
    found = names["load_predictor"](tmp_path, "phase_1/model_final.pth")(image.numpy())["instances"]
    with torch.no_grad():
        (expected,) = model([{"image": image.permute(2, 0, 1), "height": 128, "width": 128}])
    assert len(found) > 0
    assert torch.equal(found.pred_boxes.tensor, expected["instances"].pred_boxes.tensor)

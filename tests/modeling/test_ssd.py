"""SSD beside torchvision's own, its losses beside a reference, and VGG-16's weights of others."""

import functools
import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from runs import ROOT
from torch import nn
from torch.nn import functional as F
from torchvision.models import vgg16
from torchvision.models.detection import ssd300_vgg16
from torchvision.ops import box_iou

from d2_ssod.artifacts import AtomicCheckpointer
from d2_ssod.engine.configs.files import read_config
from d2_ssod.engine.training.building import odd_parts
from d2_ssod.errors import ConfigError

CLASSES = 5
SMALL = ROOT / "configs" / "digits_ssd.yaml"


def config(name=SMALL, **keys):
    cfg = read_config(str(name))
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    for key, value in keys.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(config())


def image(seed, boxes=(), classes=(), size=(100, 150)):
    pixels = torch.randint(0, 256, (3, *size), generator=torch.Generator().manual_seed(seed))
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return {"image": pixels.to(torch.uint8), "instances": instances}


IMAGES = [
    image(1, [(10, 10, 40, 35), (90, 20, 130, 95)], [0, 4]),
    image(2, [(60.5, 30, 75, 60)], [2]),
    image(3),
]


def encode(box, prior):
    """Offsets of a box from a prior, each in units of its variance, .1 and .2."""
    (x0, y0, x1, y1), (a0, b0, a1, b1) = box, prior
    width, height = a1 - a0, b1 - b0
    return (
        ((x0 + x1) - (a0 + a1)) / 2 / width / 0.1,
        ((y0 + y1) - (b0 + b1)) / 2 / height / 0.1,
        math.log((x1 - x0) / width) / 0.2,
        math.log((y1 - y0) / height) / 0.2,
    )


def assign(boxes, priors, threshold):
    """SSD's matching: each object's best prior is its own; others find one by IoU, or none."""
    if not len(boxes):
        return [-1] * len(priors)
    iou = box_iou(boxes, priors)
    best, objects = iou.max(0)
    found = [int(o) if b >= threshold else -1 for b, o in zip(best, objects, strict=True)]
    for number in range(len(boxes)):
        found[int(iou[number].argmax())] = number
    return found


def reference_losses(logits, deltas, priors, targets, threshold=0.5):
    """SSD's losses as the paper has them, prior by prior."""
    positives, box_loss, class_loss = 0, 0.0, 0.0
    for of_image, offsets, (boxes, labels) in zip(logits, deltas, targets, strict=True):
        found = assign(boxes, priors, threshold)
        surprise = [
            -float(F.log_softmax(of_prior, dim=0)[labels[f] if f >= 0 else 0])
            for of_prior, f in zip(of_image, found, strict=True)
        ]
        matched = [p for p, f in enumerate(found) if f >= 0]
        negative = sorted((surprise[p] for p, f in enumerate(found) if f < 0), reverse=True)
        class_loss += sum(surprise[p] for p in matched) + sum(negative[: 3 * len(matched)])
        for p in matched:
            goal = encode(boxes[found[p]].tolist(), priors[p].tolist())
            for x, y in zip(offsets[p].tolist(), goal, strict=True):
                difference = abs(x - y)
                box_loss += difference - 0.5 if difference >= 1 else 0.5 * difference**2
        positives += len(matched)
    return class_loss / max(positives, 1), box_loss / max(positives, 1)


def test_losses_are_those_of_the_paper(model):
    model.train()
    with torch.no_grad():
        images, targets = model.prepare(IMAGES)
        outputs = model.outputs(images)
        losses = model.losses(outputs, targets)
    size = 128
    expected_targets = []
    for picture in IMAGES:
        height, width = picture["image"].shape[1:]
        scale = torch.tensor([size / width, size / height] * 2)
        boxes = picture["instances"].gt_boxes.tensor * scale
        expected_targets.append((boxes, (picture["instances"].gt_classes + 1).tolist()))
    expected = reference_losses(outputs.logits, outputs.deltas, outputs.priors, expected_targets)
    assert float(losses["loss_cls"]) == pytest.approx(expected[0], rel=1e-4)
    assert float(losses["loss_box_reg"]) == pytest.approx(expected[1], rel=1e-4)


def _fill(count, total):
    count.fill_(total)


def test_losses_of_ranks_are_together_those_of_the_whole_batch(model, monkeypatch):
    """A rank has two of the images, one of which has objects, and another the last, or none."""
    model.train()
    with torch.no_grad():
        images, targets = model.prepare(IMAGES)
        outputs = model.outputs(images)
        whole = model.losses(outputs, targets)
        positives = []
        monkeypatch.setattr(comm, "get_world_size", lambda: 3)
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda n: positives.append(n.clone()))
        shares = [slice(0, 1), slice(1, 3), slice(0, 0)]
        for _ in range(2):  # first every rank's own positives, then with the sum of all
            ranks = [
                model.losses(
                    outputs._replace(logits=outputs.logits[own], deltas=outputs.deltas[own]),
                    targets[own],
                )
                for own in shares
            ]
            fill = functools.partial(_fill, total=sum(positives[: len(shares)]))
            monkeypatch.setattr(torch.distributed, "all_reduce", fill)
    assert [n > 0 for n in positives] == [True, True, False]
    for name, loss in whole.items():
        of_ranks = sum(float(rank[name]) for rank in ranks) / len(ranks)
        assert of_ranks == pytest.approx(float(loss), rel=1e-5)


def test_images_without_objects_give_no_loss(model):
    losses = model.train()([IMAGES[2]])
    assert {name: loss.item() for name, loss in losses.items()} == {
        "loss_cls": 0.0,
        "loss_box_reg": 0.0,
    }


def test_losses_reach_every_parameter(model):
    model.train()
    sum(model(IMAGES).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    model.zero_grad()


def test_detections_are_of_the_original_image(model):
    model.eval()
    with torch.no_grad():
        found = model([{**IMAGES[0], "height": 200, "width": 300}])[0]["instances"]
        smaller = model([IMAGES[0]])[0]["instances"]
    assert found.image_size == (200, 300)
    assert smaller.image_size == (100, 150)
    assert len(found) > 0
    assert torch.allclose(found.pred_boxes.tensor, 2 * smaller.pred_boxes.tensor, atol=1e-3)
    assert found.pred_classes.unique().tolist() == list(range(CLASSES))  # no background


def test_detections_under_autocast_are_decoded_in_full_precision(model, monkeypatch):
    """Priors are pixels, of which bfloat16 has every second or fourth beyond 256."""
    model.eval()
    given = {}
    decode = model.ssd.postprocess_detections

    def watched(of_head, priors, sizes):
        given.update(priors=priors[0], deltas=of_head["bbox_regression"])
        return decode(of_head, priors, sizes)

    monkeypatch.setattr(model.ssd, "postprocess_detections", watched)
    with torch.no_grad():
        model([IMAGES[0]])
        expected = given["priors"]
        with torch.autocast("cpu", torch.bfloat16):
            model([IMAGES[0]])
    assert torch.equal(given["priors"], expected)
    assert given["deltas"].dtype == torch.float32


VOC = ROOT / "configs" / "voc_ssd300.yaml"


@pytest.fixture(scope="module")
def ssd300():
    """Two models with the same weights: ours from the config, and torchvision's."""
    torch.manual_seed(0)
    ours = build_model(config(VOC))
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21, image_mean=[0.0] * 3)
    theirs.anchor_generator.scales = ours.ssd.anchor_generator.scales
    theirs.anchor_generator._wh_pairs = ours.ssd.anchor_generator._wh_pairs
    state = {
        name.removeprefix("ssd.").replace("backbone.layers.", "backbone."): value
        for name, value in ours.state_dict().items()
    }
    theirs.load_state_dict(state)
    return ours, theirs


def test_ssd300_equals_torchvisions(ssd300):
    ours, theirs = ssd300
    ours.eval()
    theirs.eval()
    picture = IMAGES[0]["image"]
    mean = torch.tensor([123.0, 117.0, 104.0])[:, None, None]
    theirs.transform.image_std = [1.0] * 3
    with torch.no_grad():
        found = ours([{"image": picture}])[0]["instances"]
        expected = theirs([picture.float() - mean])[0]
    seen = Boxes(expected["boxes"]).nonempty()  # ours, as Detectron2's, have an area
    assert len(found) == int(seen.sum()) > 100
    assert torch.allclose(found.pred_boxes.tensor, expected["boxes"][seen], atol=1e-3)
    assert torch.allclose(found.scores, expected["scores"][seen])
    assert torch.equal(found.pred_classes + 1, expected["labels"][seen])


def test_ssd300_has_the_papers_priors(ssd300):
    ours = ssd300[0]
    with torch.no_grad():
        outputs = ours.outputs(ours.prepare([IMAGES[0]])[0])
    assert outputs.grids == [(side, side) for side in (38, 19, 10, 5, 3, 1)]
    assert outputs.logits.shape == (1, 8732, 21)
    sides = outputs.priors[:, 2:] - outputs.priors[:, :2]
    assert sides[0].tolist() == pytest.approx([30.0, 30.0])
    assert sides[1].tolist() == pytest.approx([math.sqrt(30 * 60)] * 2)
    assert sides[2].tolist() == pytest.approx([30 * math.sqrt(2), 30 / math.sqrt(2)])
    assert sides[-4].tolist() == pytest.approx([264.0, 264.0])


@pytest.fixture(scope="module")
def vgg():
    torch.manual_seed(7)
    return vgg16(weights=None)


@pytest.mark.parametrize("prefix", ["features.", ""])
def test_weights_of_vgg16_are_found_by_their_number(tmp_path, ssd300, vgg, prefix, caplog):
    layers = {
        name.removeprefix("features."): value
        for name, value in vgg.state_dict().items()
        if name.startswith("features.")
    }
    if not prefix:  # amdegroot's file has the two convolutions after them, too
        for number, shape in ((31, (1024, 512, 3, 3)), (33, (1024, 1024, 1, 1))):
            layers[f"{number}.weight"] = torch.full(shape, 0.25)
            layers[f"{number}.bias"] = torch.full((1024,), float(number))
    file = tmp_path / "vgg16.pth"
    torch.save({prefix + name: value for name, value in layers.items()}, file)
    model = ssd300[0]
    with caplog.at_level("INFO"):
        AtomicCheckpointer(model).load(str(file))
    extractor = model.ssd.backbone.layers
    convolutions = [m for m in extractor.features if isinstance(m, nn.Conv2d)]
    convolutions += [m for m in extractor.extra[0] if isinstance(m, nn.Conv2d)]
    expected = [m for m in vgg.features if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == len(expected) == 13
    for ours, theirs in zip(convolutions, expected, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)
    if not prefix:
        fc = extractor.extra[0][7]
        assert (fc[1].bias[0].item(), fc[3].bias[0].item()) == (31.0, 33.0)
    assert f"{26 if prefix else 30} of {len(model.state_dict())} tensors" in caplog.text
    assert "not used" not in caplog.text


@pytest.mark.parametrize(
    ("stages", "frozen"), [(-1, 0), (0, 0), (1, 2), (2, 4), (3, 7), (4, 10), (5, 10)]
)
def test_first_stages_are_not_trained(stages, frozen):
    backbone = build_model(config(VOC, MODEL__BACKBONE__FREEZE_AT=stages)).ssd.backbone
    fixed = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert [m.weight.requires_grad for m in fixed[: frozen + 1]] == [False] * frozen + [True]


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        (VOC, "MODEL__SSD__SIZE", 260),  # its last maps would be of less than a pixel
        (SMALL, "MODEL__SSD__SIZE", 100),  # no multiple of 16
        (VOC, "MODEL__PIXEL_MEAN", [127.0]),  # grey pictures, but VGG-16 takes colors
    ],
)
def test_images_without_feature_maps_are_refused(file, key, value):
    with pytest.raises(ConfigError, match=r"^MODEL\.SSD\.SIZE is \d+, and .*; correct one") as info:
        build_model(config(file, **{key: value}))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("SCALES", [0.1, 0.2]), ("ASPECT_RATIOS", [[2]]), ("STEPS", [8, 16, 32])],
)
def test_priors_of_other_maps_are_refused(key, value):
    with pytest.raises(ConfigError, match=rf"MODEL\.SSD\.{key} has {len(value)} values; the"):
        build_model(config(**{f"MODEL__SSD__{key}": value}))


@pytest.mark.parametrize(
    ("size", "steps", "is_said"),
    [
        (300, [8, 16, 32, 64, 100, 300], False),
        (512, [8, 16, 32, 64, 100, 300], True),
        (512, [], False),
        (300, [8, 16, 32, 64, 100, 100], True),  # the last map's lie in the first 100 pixels
    ],
)
def test_priors_beyond_the_images_or_in_a_part_of_them_are_said(size, steps, is_said):
    cfg = config(
        VOC, MODEL__SSD__SIZE=size, MODEL__SSD__STEPS=steps, SSOD__ROI_WEIGHTING__NAME="none"
    )
    said = "".join(odd_parts(cfg, build_model(cfg)))
    assert ("are laid over " in said) == is_said


def test_each_threshold_is_that_of_its_key():
    keys = {"SCORE_THRESH_TEST": 0.15, "NMS_THRESH_TEST": 0.35, "TOPK_CANDIDATES_TEST": 77}
    keys |= {"IOU_THRESH": 0.65, "POSITIVE_FRACTION": 0.2}
    own = {f"MODEL__SSD__{key}": value for key, value in keys.items()}
    built = build_model(config(TEST__DETECTIONS_PER_IMAGE=33, **own)).ssd
    assert (built.score_thresh, built.nms_thresh) == (0.15, 0.35)
    assert (built.topk_candidates, built.detections_per_img) == (77, 33)
    assert built.proposal_matcher.high_threshold == 0.65
    assert built.neg_to_pos_ratio == pytest.approx(4)

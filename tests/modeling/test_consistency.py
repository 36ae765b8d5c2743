"""CSD's and ISD's losses beside values computed by hand."""

import itertools
import math

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from runs import ROOT

from d2_ssod.engine.configs.files import read_config
from d2_ssod.modeling.baselines import (
    Ramp,
    box_consistency,
    class_consistency,
    is_foreground,
    mirror,
    one_sided_consistency,
)
from d2_ssod.modeling.one_stage.ssd import Outputs


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


P, Q = [0.2, 0.7, 0.1], [0.5, 0.25, 0.25]


def test_one_sided_consistency_is_the_divergence():
    found = one_sided_consistency(torch.tensor([P, Q]), torch.tensor([Q, Q]))
    assert found.item() == pytest.approx(kl(P, Q) / 2, rel=1e-5)  # the mean of that and 0


def test_class_consistency_is_half_of_both_divergences():
    found = class_consistency(torch.tensor([P]), torch.tensor([Q]))
    assert found.item() == pytest.approx((kl(P, Q) + kl(Q, P)) / 2, rel=1e-5)


def test_what_is_aimed_at_has_no_gradient():
    p = torch.tensor([P], requires_grad=True)
    q = torch.tensor([Q], requires_grad=True)
    one_sided_consistency(p, q).backward()
    assert p.grad is None
    assert torch.allclose(q.grad, -torch.tensor([P]) / torch.tensor([Q]))  # d KL / dq = -p / q
    class_consistency(p, q).backward()
    # Of KL(q, p) / 2, where q is aimed at: the other half reaches q alone.
    assert torch.allclose(p.grad, -torch.tensor([Q]) / torch.tensor([P]) / 2)


def test_a_class_that_is_ruled_out_gives_a_finite_loss():
    found = class_consistency(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert found.item() == pytest.approx(math.log(1e7), rel=1e-3)


def test_box_consistency_is_the_mean_square():
    a, b = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[0.0, 4.0, 3.0, 1.0]])
    assert box_consistency(a, b).item() == (1 + 4 + 0 + 9) / 4
    assert box_consistency(a, b, mirrored=True).item() == (1 + 4 + 0 + 9) / 4
    b[0, 0] = -1.0
    assert box_consistency(a, b, mirrored=True).item() == (0 + 4 + 0 + 9) / 4


def test_nothing_to_agree_on_gives_no_loss():
    nothing = torch.zeros(0, 3, requires_grad=True)
    assert class_consistency(nothing, nothing).item() == 0
    assert box_consistency(torch.zeros(0, 4), torch.zeros(0, 4)).item() == 0


def test_foreground_is_what_has_a_class_that_is_likelier_than_the_background():
    assert is_foreground(torch.tensor([P, Q, [0.4, 0.4, 0.2]])).tolist() == [True, False, False]


def test_mirrored_priors_are_those_on_the_other_side():
    # Maps of 2 x 3 places with two shapes, and of one place with one.
    first = [f"{y}{x}{a}" for y in range(2) for x in range(3) for a in range(2)]
    names = [*first, "last"]
    values = torch.arange(13.0)[None, :, None]
    moved = mirror(values, [(2, 3), (1, 1)], [2, 1])[0, :, 0].int().tolist()
    assert [names[i] for i in moved] == [
        *("020", "021", "010", "011", "000", "001"),
        *("120", "121", "110", "111", "100", "101", "last"),
    ]


@pytest.mark.parametrize(
    ("iteration", "weight"),
    [
        (0, math.exp(-5)),
        (16_000, math.exp(-5 / 4)),
        (32_000, 1.0),
        (100_000, 1.0),
        (110_000, math.exp(-12.5 / 4)),
        (119_999, pytest.approx(math.exp(-12.5), rel=2e-3)),
    ],
)
def test_ramp_is_the_papers(iteration, weight):
    ramp = Ramp(length=120_000, up=32 / 120, down=20 / 120)
    assert ramp(iteration) == pytest.approx(weight)


@pytest.mark.parametrize("iteration", [0, 5])
def test_ramp_may_be_left_out(iteration):
    assert Ramp(length=10, up=0.0, down=0.0)(iteration) == 1.0


# --- The detectors -------------------------------------------------------------------------------


def model(architecture, **keys):
    cfg = read_config(str(ROOT / "configs" / "digits_ssd.yaml"))
    cfg.defrost()
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.DEVICE = "cpu"
    for key, value in keys.items():
        cfg.MODEL.SSD.CONSISTENCY[key] = value
    cfg.SOLVER.MAX_ITER = 100
    torch.manual_seed(0)
    return build_model(cfg).train()


def pixels(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 128, 128), generator=generator).to(torch.uint8)


def labeled(seed):
    instances = Instances((128, 128))
    instances.gt_boxes = Boxes(torch.tensor([[20.0, 30.0, 40.0, 60.0]]))
    instances.gt_classes = torch.tensor([2])
    return {"image": pixels(seed), "instances": instances}


def losses(detector, batch, iteration=50):
    torch.manual_seed(3)
    with EventStorage(iteration):
        return detector(batch)


NAMES = {
    "CSD": ["loss_consistency_cls", "loss_consistency_box"],
    "ISD": [
        *("loss_consistency_cls", "loss_consistency_box", "loss_mixed_both", "loss_mixed_one"),
    ],
}


@pytest.mark.parametrize("architecture", ["CSD", "ISD"])
def test_labels_are_learned_from_the_images_that_have_some(architecture):
    detector = model(architecture, WEIGHT=0.0).eval()  # fixed statistics of BatchNorm
    detector.training = True
    alone = losses(detector, [labeled(1)])
    mixed = losses(detector, [{"image": pixels(5)}, labeled(1)])
    assert set(alone) == {"loss_cls", "loss_box_reg", *NAMES[architecture]}
    for name in ("loss_cls", "loss_box_reg"):
        assert mixed[name].item() == pytest.approx(alone[name].item(), rel=1e-5)
        assert mixed[name].item() > 0


@pytest.mark.parametrize("architecture", ["CSD", "ISD"])
def test_batch_without_labels_has_the_same_losses_and_they_teach(architecture):
    detector = model(architecture)
    with torch.no_grad():  # priors on objects
        head = detector.ssd.head.classification_head.module_list
        for convolution in head:
            convolution.bias.view(-1, 6)[:, 0] = -1.0
    found = losses(detector, [{"image": pixels(5)}, {"image": pixels(6)}])
    assert list(found) == ["loss_cls", "loss_box_reg", *NAMES[architecture]]
    assert found["loss_cls"].item() == found["loss_box_reg"].item() == 0
    assert all(found[name].item() > 0 for name in NAMES[architecture])
    sum(found.values()).backward()
    without = [n for n, p in detector.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_consistency_counts_as_the_ramp_says():
    detector = model("CSD")
    batch = [{"image": pixels(5)}]
    with torch.no_grad():
        for convolution in detector.ssd.head.classification_head.module_list:
            convolution.bias.view(-1, 6)[:, 0] = -1.0
    detector.eval()
    detector.training = True
    full, early = losses(detector, batch, 50), losses(detector, batch, 0)
    for name in NAMES["CSD"]:
        assert early[name].item() == pytest.approx(full[name].item() * math.exp(-5), rel=1e-4)


def outputs(rows, deltas):
    """Outputs of one image whose priors, one shape on a map of 1 x n, have these probabilities."""
    logits = torch.tensor([rows]).log()
    return Outputs(logits, torch.tensor([deltas]), torch.zeros(len(rows), 4), [(1, len(rows))])


SURE, OTHER, NONE = [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]
D0, D1, D2 = [1.0, 2.0, 3.0, 4.0], [-1.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0]


@pytest.fixture
def of_one_shape(monkeypatch):
    """An ISD, whose losses are given outputs of priors of one shape."""
    detector = model("ISD", BOTH_WEIGHT=0.1)
    generator = detector.ssd.anchor_generator
    monkeypatch.setattr(generator, "num_anchors_per_location", lambda: [1])
    return detector


def mirrored_deltas(deltas):
    return [-deltas[0], *deltas[1:]]


def test_exact_mirror_images_give_no_loss(of_one_shape):
    image = outputs([SURE, OTHER, NONE], [D0, D1, D2])
    mirrored = outputs([NONE, OTHER, SURE], [mirrored_deltas(d) for d in (D2, D1, D0)])
    found = of_one_shape.with_mirrored(image, mirrored)
    assert [loss.item() for loss in found.values()] == [0.0, 0.0]


def test_what_differs_from_the_mirror_image_is_computed_by_hand(of_one_shape):
    image = outputs([SURE, NONE, OTHER], [D0, D1, D2])
    mirrored = outputs([SURE, SURE, SURE], [D0, D1, D1])  # the first lies over the image's last
    found = of_one_shape.with_mirrored(image, mirrored)
    # Priors 0 and 2 are on objects in the image: SURE and SURE, OTHER and SURE.
    symmetric = (kl(OTHER, SURE) + kl(SURE, OTHER)) / 2
    assert found["loss_consistency_cls"].item() == pytest.approx(symmetric / 2, rel=1e-4)
    # D0 and the mirrored D1: 1 - 1, 2 - 0, 3 - 1, 4 - .5; D2 and the mirrored D0: 1, -2, -3, -4.
    expected = ((0 + 4 + 4 + 12.25) / 4 + (1 + 4 + 9 + 16) / 4) / 2
    assert found["loss_consistency_box"].item() == pytest.approx(expected)


def test_losses_of_a_mixture_are_computed_by_hand(of_one_shape):
    first = outputs([SURE, SURE, NONE, NONE], [D0, D1, D0, D1])
    second = outputs([OTHER, NONE, OTHER, NONE], [D2, D2, D1, D1])
    mixed = outputs([SURE, OTHER, SURE, SURE], [D2, D0, D0, D0])
    found = of_one_shape.with_mixture(first, second, mixed, share=0.25)
    expected = [0.25 * a + 0.75 * b for a, b in zip(SURE, OTHER, strict=True)]
    both = (kl(expected, SURE) + kl(SURE, expected)) / 2
    assert found["loss_mixed_both"].item() == pytest.approx(0.1 * both, rel=1e-4)
    # Prior 1 is on an object of the first image, 2 of the second; 3 of none.
    classes = (kl(SURE, OTHER) + kl(OTHER, SURE)) / 2
    boxes = ((4 + 4 + 4 + 12.25) / 4 + (4 + 4 + 4 + 12.25) / 4) / 2
    assert found["loss_mixed_one"].item() == pytest.approx(classes + boxes, rel=1e-4)


def test_losses_of_ranks_are_together_those_of_the_whole_batch(of_one_shape, monkeypatch):
    """However many of the priors that count are in the images of each."""
    rows = [[SURE, SURE, NONE, OTHER], [NONE, OTHER, NONE, NONE], [NONE, NONE, NONE, NONE]]
    others = [[OTHER, NONE, OTHER, SURE], [NONE, NONE, SURE, NONE], [NONE, NONE, NONE, NONE]]
    mixtures = [[SURE, OTHER, SURE, NONE], [OTHER, SURE, NONE, SURE], [SURE, NONE, NONE, OTHER]]
    deltas = [D0, D1, D2, D0]

    def losses_of(images):
        first, second, mixed = (
            outputs(rows[0], deltas)._replace(
                logits=torch.tensor([of[n] for n in images]).log(),
                deltas=torch.tensor([[[v + n for v in d] for d in deltas] for n in images]),
            )
            for of in (rows, others, mixtures)
        )
        return {
            **of_one_shape.with_mirrored(first, second),
            **of_one_shape.with_mixture(first, second, mixed, share=0.25),
        }

    whole, ranks, counts = losses_of([0, 1, 2]), ([0], [1], [2]), []
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda n: counts.append(n.clone()))
    for rank in ranks:  # first each one's own counts, one of a loss after the other
        losses_of(rank)
    kinds = len(counts) // 3
    sums = itertools.cycle([sum(counts[kind::kinds]) for kind in range(kinds)])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda n: n.copy_(next(sums)))
    found = [losses_of(rank) for rank in ranks]
    for name, loss in whole.items():
        assert loss > 0
        assert sum(of[name] for of in found) / 3 == pytest.approx(loss.item(), rel=1e-5)


def test_a_mixture_that_is_what_is_expected_gives_no_loss(of_one_shape):
    first = outputs([SURE, SURE, NONE], [D0, D1, D0])
    second = outputs([SURE, NONE, OTHER], [D2, D2, D1])
    mixed = outputs([SURE, SURE, OTHER], [D2, D1, D1])
    found = of_one_shape.with_mixture(first, second, mixed, share=0.5)
    assert [loss.item() for loss in found.values()] == [pytest.approx(0, abs=1e-6)] * 2


@pytest.mark.parametrize("architecture", ["SSD", "CSD", "ISD"])
def test_losses_in_half_precision_are_near_those_in_full(architecture):
    detector = model(architecture).eval()
    detector.training = True
    with torch.no_grad():  # priors on objects
        for convolution in detector.ssd.head.classification_head.module_list:
            convolution.bias.view(-1, 6)[:, 0] = -1.0
    batch = [labeled(1), labeled(2)]
    full = losses(detector, batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = losses(detector, batch)
    assert {loss.dtype for loss in half.values()} == {torch.float32}
    for name, loss in full.items():
        assert half[name].item() == pytest.approx(loss.item(), rel=0.1, abs=1e-3)


def test_a_mixture_is_of_an_image_and_the_mirror_image_of_another(monkeypatch):
    detector = model("ISD").eval()
    drawn, given = [], {}

    class Beta:
        def __init__(self, a, b):
            drawn.append((a, b))

        def sample(self):
            return torch.tensor(0.25)

    def with_mixture(first, second, mixed, share):
        given.update(first=first, second=second, mixed=mixed, share=share)
        return {}

    monkeypatch.setattr(torch.distributions, "Beta", Beta)
    monkeypatch.setattr(torch, "randperm", lambda count: torch.tensor([1, 0]))
    monkeypatch.setattr(detector, "with_mixture", with_mixture)
    x = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    other = x.flip(3)[[1, 0]]
    with torch.no_grad():
        found = detector.outputs_of(x)
        detector.consistency(x, found)
        expected = {"second": other, "mixed": 0.25 * x + 0.75 * other}
        expected = {name: detector.outputs_of(pixels) for name, pixels in expected.items()}
    assert drawn == [(100.0, 100.0)]
    assert given["share"] == 0.25
    assert given["first"] is found
    for name, outputs_ in expected.items():
        assert torch.allclose(given[name].logits, outputs_.logits, atol=1e-5), name
        assert torch.allclose(given[name].deltas, outputs_.deltas, atol=1e-5), name


def requiring_gradient(of):
    return of._replace(
        logits=of.logits.clone().requires_grad_(), deltas=of.deltas.clone().requires_grad_()
    )


def test_offsets_of_both_views_are_learned_but_of_a_mixture_alone(of_one_shape):
    image, mirrored = (
        requiring_gradient(outputs([SURE, OTHER], [D0, D1])),
        requiring_gradient(outputs([OTHER, SURE], [D1, D2])),
    )
    of_one_shape.with_mirrored(image, mirrored)["loss_consistency_box"].backward()
    assert image.deltas.grad.any()
    assert mirrored.deltas.grad.any()
    first, second, mixed = (
        requiring_gradient(outputs(rows, of_rows))
        for rows, of_rows in (
            ([SURE, NONE], [D0, D1]),
            ([NONE, SURE], [D0, D1]),
            ([OTHER, OTHER], [D2, D2]),
        )
    )
    of_one_shape.with_mixture(first, second, mixed, 0.25)["loss_mixed_one"].backward()
    assert first.deltas.grad is None
    assert second.deltas.grad is None
    assert mixed.deltas.grad.any()


def test_weight_and_ramp_are_the_configs():
    detector = model("CSD", WEIGHT=3.0, RAMP_UP=0.3, RAMP_DOWN=0.2)
    assert detector.weight == 3.0
    assert detector.ramp == Ramp(length=100, up=0.3, down=0.2)
    with torch.no_grad():
        for convolution in detector.ssd.head.classification_head.module_list:
            convolution.bias.view(-1, 6)[:, 0] = -1.0
    detector.eval()
    detector.training = True
    batch = [{"image": pixels(5)}]
    weighted = losses(detector, batch, 50)
    detector.weight = 1.0
    plain = losses(detector, batch, 50)
    for name in NAMES["CSD"]:
        assert plain[name].item() > 0
        assert weighted[name].item() == pytest.approx(3 * plain[name].item(), rel=1e-5)


def test_csds_second_view_is_the_mirror_image():
    detector = model("CSD").eval()
    with torch.no_grad():  # priors on objects
        for convolution in detector.ssd.head.classification_head.module_list:
            convolution.bias.view(-1, 6)[:, 0] = -1.0
        x = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        found = detector.outputs_of(x)
        given = detector.consistency(x, found)
        expected = detector.with_mirrored(found, detector.outputs_of(x.flip(3)))
    for name, loss in expected.items():
        assert loss > 0
        assert given[name].item() == pytest.approx(loss.item(), rel=1e-5)

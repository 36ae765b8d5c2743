import dataclasses
import math

import pytest
import torch
from op_samples import DTYPES, assert_matches, make_sample, sample_inputs

from d2_ssod.ops import (
    gompertz,
    overlap_weights,
    reference,
    uncertainty_terms,
    uncertainty_weights,
)

VARIANTS = ("paper", "released")


def keywords(sample, variant):
    return sample.ground_truth() if variant == "released" else {}


def curve(x, a=0.25, b=50.0, c=15.0):
    return a + (1 - a) * math.exp(-b * math.exp(-c * x))


def two_boxes(device):
    """A foreground box, a background box with IoU 1/3 and IoF 1/2, and one far away."""
    boxes = torch.tensor([[0, 0, 10, 10], [5, 0, 15, 10], [50, 50, 60, 60]], dtype=torch.float32)
    embeddings = torch.tensor([[1.0, 0.0], [-3.0, 4.0], [2.0, 0.0]])
    return (
        boxes.to(device),
        embeddings.to(device),
        torch.tensor([True, False, False], device=device),
    )


def test_gompertz_known_values():
    x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    expected = [curve(0), curve(0.5), curve(1)]
    torch.testing.assert_close(gompertz(x, 0.25, 50, 15).tolist(), expected)
    assert curve(0.5) == pytest.approx(0.980, abs=5e-4)


def test_gompertz_gradients():
    x = torch.linspace(-0.2, 1.2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gompertz(x, 0.25, 5.0, 3.0), (x,))


def test_uncertainty_known_values_paper(device):
    boxes, embeddings, foreground = two_boxes(device)
    weights, max_iou, dissimilarity = uncertainty_terms(boxes, embeddings, foreground, [3])
    expected = [1.0, 1 - 0.6 * (1 - 0.5), 1 - 1.0]
    torch.testing.assert_close(dissimilarity.tolist(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(max_iou.tolist(), [1.0, 1 / 3, 0.0], rtol=1e-6, atol=1e-6)
    by_hand = [1.0, curve(1 / 3) * curve(0.7, a=0, c=10), curve(0) * curve(0, a=0, c=10)]
    torch.testing.assert_close(weights.tolist(), by_hand, rtol=1e-5, atol=1e-6)


def test_a_box_whose_area_has_no_finite_inverse_is_compared(device):
    boxes = torch.tensor([[5, 5, 9, 9], [0, 0, 1e-20, 1e-20]], device=device)
    embeddings = torch.ones(2, 4, device=device)
    foreground = torch.tensor([True, False], device=device)
    terms = uncertainty_terms(boxes, embeddings, foreground, [2])
    assert terms[2].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)  # 1 - |cosine| (1 - IoF)


def test_uncertainty_known_values_released(device):
    boxes, embeddings, foreground = two_boxes(device)
    ground_truth = torch.tensor([[0.0, 0, 10, 20], [5, 0, 15, 10]], device=device)
    weights, max_iou, dissimilarity = uncertainty_terms(
        *(boxes, embeddings, foreground, [3]),
        variant="released",
        gt_boxes=ground_truth,
        gts_per_image=[2],
    )
    torch.testing.assert_close(max_iou.tolist(), [0.5, 1.0, 0.0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dissimilarity.tolist(), [1.0, 1.0, 0.0], rtol=1e-6, atol=1e-6)
    by_hand = [curve(0.5), curve(1) * curve(1, a=0, c=10), curve(0) * curve(0, a=0, c=10)]
    torch.testing.assert_close(weights.tolist(), by_hand, rtol=1e-5, atol=1e-6)


def test_overlap_known_values(device):
    boxes, _, foreground = two_boxes(device)
    weights = overlap_weights(boxes, foreground, [3])
    expected = [1.0, curve(1 / 3, c=20), curve(0, c=20)]
    torch.testing.assert_close(weights.tolist(), expected, rtol=1e-5, atol=1e-6)
    ground_truth = torch.tensor([[0.0, 0, 10, 20]], device=device)
    weights = overlap_weights(boxes, foreground, [3], gt_boxes=ground_truth, gts_per_image=[1])
    expected = [curve(0.5, c=20), curve(0.2, c=20), curve(0, c=20)]
    torch.testing.assert_close(weights.tolist(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sample", sample_inputs())
def test_uncertainty_matches_reference(sample, dtype, variant, device):
    sample = sample.with_embeddings(dtype).to(device)
    exact = sample.to(torch.float64)
    actual = uncertainty_terms(*sample.rois(), variant=variant, **keywords(sample, variant))
    expected = reference.uncertainty_terms(*exact.rois(), **keywords(exact, variant))
    for ours, plain in zip(actual, expected, strict=True):
        assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert_matches(ours, plain, dtype)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sample", sample_inputs())
def test_overlap_matches_reference(sample, dtype, variant, device):
    sample = sample.to(dtype).to(device)
    exact = sample.to(torch.float64)
    rois = (sample.boxes, sample.is_foreground, sample.rois_per_image)
    exact_rois = (exact.boxes, exact.is_foreground, exact.rois_per_image)
    assert_matches(
        overlap_weights(*rois, **keywords(sample, variant)),
        reference.overlap_weights(*exact_rois, **keywords(exact, variant)),
        dtype,
    )


@pytest.mark.parametrize("depth", [1, 15, 16, 17, 31, 32, 33, 128, 1024])
def test_uncertainty_any_depth_matches_reference(depth, device):
    sample = make_sample([150], depth, seed=depth).to(device)
    expected = reference.uncertainty_weights(*sample.to(torch.float64).rois())
    assert_matches(uncertainty_weights(*sample.rois()), expected, torch.float32)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e15])
def test_uncertainty_scale_of_embeddings_hardly_matters(scale, device):
    sample = make_sample([80, 40], 32).to(device)
    scaled = dataclasses.replace(sample, embeddings=sample.embeddings * scale)
    expected = reference.uncertainty_weights(*scaled.to(torch.float64).rois())
    assert_matches(uncertainty_weights(*scaled.rois()), expected, torch.float32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_uncertainty_images_are_independent(variant, device):
    sample = make_sample([60, 0, 45, 70], 24).to(device)
    together = uncertainty_weights(*sample.rois(), variant=variant, **keywords(sample, variant))
    alone = []
    rois = (sample.boxes, sample.embeddings, sample.is_foreground)
    per_image = zip(
        *(x.split(sample.rois_per_image) for x in rois),
        sample.gt_boxes.split(sample.gts_per_image),
        strict=True,
    )
    for *image, gts in per_image:
        truth = {"gt_boxes": gts, "gts_per_image": [len(gts)]} if variant == "released" else {}
        alone.append(uncertainty_weights(*image, [len(image[0])], variant=variant, **truth))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=1e-6)


def test_uncertainty_follows_the_order_of_rois(device):
    sample = make_sample([200], 40).to(device)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1)).to(device)
    boxes, embeddings, foreground, counts = sample.rois()
    shuffled = uncertainty_weights(boxes[order], embeddings[order], foreground[order], counts)
    straight = uncertainty_weights(*sample.rois())
    torch.testing.assert_close(shuffled, straight[order], rtol=1e-6, atol=1e-6)


def test_uncertainty_without_foreground_is_the_floor(device):
    sample = make_sample([50], 16, foreground=0.0).to(device)
    terms = uncertainty_terms(*sample.rois())
    assert not terms.max_iou.any()
    assert torch.equal(terms.dissimilarity, torch.ones(50, device=device))
    expected = curve(0) * curve(1, a=0, c=10)
    torch.testing.assert_close(terms.weights, torch.full_like(terms.weights, expected))


def test_weights_without_ground_truth_have_overlap_factor_one(device):
    sample = make_sample([50], 16).to(device)
    none = {"gt_boxes": sample.boxes[:0], "gts_per_image": [0]}
    boxes, _, foreground, counts = sample.rois()
    assert torch.equal(
        overlap_weights(boxes, foreground, counts, **none), torch.ones_like(boxes[:, 0])
    )
    weights = uncertainty_weights(*sample.rois(), variant="released", **none)
    assert torch.equal(weights[foreground], torch.ones_like(weights[foreground]))
    assert (weights[~foreground] < 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_with_ground_truth_of_no_memory_have_overlap_factor_one(dtype, device):
    # Unlike boxes[:0] it has no address, which must not be taken for an argument left out.
    none = {"gt_boxes": torch.empty(0, 4, dtype=dtype, device=device), "gts_per_image": [0, 0]}
    assert none["gt_boxes"].data_ptr() == 0
    sample = make_sample([20, 9], 16).to(dtype).to(device)
    boxes, _, foreground, counts = sample.rois()
    assert torch.equal(
        overlap_weights(boxes, foreground, counts, **none), torch.ones_like(boxes[:, 0])
    )
    actual = uncertainty_terms(*sample.rois(), variant="released", **none)
    expected = reference.uncertainty_terms(*sample.to(torch.float64).rois(), **none)
    for ours, plain in zip(actual, expected, strict=True):
        assert_matches(ours, plain, dtype)


def test_uncertainty_all_foreground_has_weight_one(device):
    sample = make_sample([40], 16, foreground=1.0).to(device)
    assert torch.equal(uncertainty_weights(*sample.rois()), torch.ones(40, device=device))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("foreground", [True, False])
@pytest.mark.parametrize("what", ["box", "embedding"])
def test_uncertainty_nan_stays_in_its_row(what, foreground, variant, device):
    sample = make_sample([90, 60], 24)
    row = int((sample.is_foreground == foreground).nonzero()[3])
    boxes, embeddings = sample.boxes.clone(), sample.embeddings.clone()
    (boxes if what == "box" else embeddings)[row, 1] = torch.nan
    with_nan = dataclasses.replace(sample, boxes=boxes, embeddings=embeddings).to(device)
    terms = uncertainty_terms(*with_nan.rois(), variant=variant, **keywords(with_nan, variant))
    own_row = torch.arange(150, device=device) == row
    assert torch.equal(terms.weights.isnan(), own_row)
    assert torch.equal(terms.dissimilarity.isnan(), own_row)
    assert torch.equal(terms.max_iou.isnan(), own_row & (what == "box"))
    # The others' weights are those they would have if the pairs with this RoI did not count.
    expected = reference.uncertainty_terms(
        *with_nan.to(torch.float64).rois(), **keywords(with_nan.to(torch.float64), variant)
    )
    for ours, plain in zip(terms, expected, strict=True):
        assert_matches(ours, plain, torch.float32)


def test_overlap_nan_stays_in_its_row(device):
    sample = make_sample([90], 1)
    boxes = sample.boxes.clone()
    boxes[17, 2] = torch.nan
    weights = overlap_weights(boxes.to(device), sample.is_foreground.to(device), [90])
    assert weights.isnan().nonzero().tolist() == [[17]]


def test_uncertainty_overflowing_embedding_is_nan_rather_than_dissimilar(device):
    sample = make_sample([30], 8, foreground=0.5)
    embeddings = sample.embeddings.clone()
    embeddings[4] = 1e30
    weights = uncertainty_weights(
        *(dataclasses.replace(sample, embeddings=embeddings).to(device).rois())
    )
    assert weights.isnan().nonzero().tolist() == [[4]]


def test_uncertainty_zero_vectors_are_dissimilar(device):
    sample = make_sample([30], 8).to(device)
    zero = dataclasses.replace(sample, embeddings=torch.zeros_like(sample.embeddings))
    assert torch.equal(uncertainty_terms(*zero.rois()).dissimilarity, torch.ones(30, device=device))


def test_overlap_more_than_2_to_31_pairs(device):
    # 65,600 x 32,800 pairs; the last rows would be wrong if a pair's number were 32 bits.
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(65_600, 1)
    boxes[:, ::2] += 2 * torch.arange(65_600)[:, None] % 60_000
    foreground = torch.arange(65_600) % 2 == 0
    boxes[-1] = boxes[-2] + 0.5
    weights = overlap_weights(boxes.to(device), foreground.to(device), [65_600])
    assert weights[-2].item() == 1
    assert weights[-1].item() == pytest.approx(curve(0.25 / 1.75, c=20), rel=1e-4)
    assert weights[1].item() == pytest.approx(curve(0, c=20), rel=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_uncertainty_threads_do_not_change_results(variant):
    sample = make_sample([300, 200, 1], 48)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(
                torch.stack(
                    uncertainty_terms(*sample.rois(), variant=variant, **keywords(sample, variant))
                )
            )
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": torch.zeros(6, 5)}, r"boxes must be a Tensor\[N, 4\].*\[6, 5\]"),
        ({"embeddings": torch.zeros(5, 3)}, r"embeddings must be a Tensor\[6, D\].*\[5, 3\]"),
        ({"boxes": torch.zeros(6, 4, dtype=torch.int32)}, "^boxes must be a floating.*int32"),
        ({"embeddings": torch.zeros(6, 3, dtype=torch.int64)}, "embeddings must be float32.*Long"),
        (
            {"is_foreground": torch.zeros(7, dtype=torch.bool)},
            r"is_foreground must be a Tensor\[6\]",
        ),
        ({"is_foreground": torch.zeros(6)}, "is_foreground must be bool.*Float"),
        ({"rois_per_image": [2, 3]}, r"rois_per_image must add up to .*6, got \[2, 3\].*5"),
        ({"rois_per_image": [7, -1]}, r"rois_per_image\[1\] must not be negative, got -1"),
        # Their sum is 6 in 64 bits.
        ({"rois_per_image": [2**63 - 1] * 2 + [8]}, "rois_per_image must add up to .*6, .* more"),
    ],
)
def test_uncertainty_wrong_arguments_raise(change, message):
    arguments = {
        "boxes": torch.zeros(6, 4),
        "embeddings": torch.zeros(6, 3),
        "is_foreground": torch.zeros(6, dtype=torch.bool),
        "rois_per_image": [2, 4],
    }
    with pytest.raises(ValueError, match=message):
        uncertainty_weights(**(arguments | change))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "other"}, 'variant must be "paper" or "released", got \'other\''),
        ({"variant": "released"}, 'variant "released" with neither'),
        ({"variant": "released", "gt_boxes": torch.zeros(1, 4)}, '"released" with gt_boxes'),
        ({"gts_per_image": [1]}, '"paper" with gts_per_image'),
        (
            {"variant": "released", "gt_boxes": torch.zeros(1, 4), "gts_per_image": [1, 0]},
            "gts_per_image must have one entry per image, 1 .*got 2",
        ),
        (
            {"variant": "released", "gt_boxes": torch.zeros(1, 4), "gts_per_image": [2]},
            "gts_per_image must add up to the number of gt_boxes, 1",
        ),
    ],
)
def test_uncertainty_wrong_variant_raises(arguments, message):
    sample = make_sample([6], 3)
    with pytest.raises(ValueError, match=message):
        uncertainty_weights(*sample.rois(), **arguments)


@pytest.mark.parametrize("name", ["boxes", "gt_boxes"])
def test_overlap_of_integers_raises(name):
    arguments = {"boxes": torch.zeros(6, 4), "gt_boxes": torch.zeros(2, 4)}
    arguments[name] = arguments[name].int()
    with pytest.raises(ValueError, match=rf"^{name} must be a floating.*int32.*\.float\(\)"):
        overlap_weights(
            is_foreground=torch.zeros(6, dtype=torch.bool),
            rois_per_image=[6],
            gts_per_image=[2],
            **arguments,
        )


@pytest.mark.parametrize("boxes", [[[0.0, 0, 1, 1]], torch.zeros(1, 4).numpy()])
def test_overlap_of_what_is_no_tensor_raises(boxes):
    with pytest.raises(TypeError, match=r"^boxes must be a Tensor\[N, 4\], got (list|ndarray); .*"):
        overlap_weights(boxes, torch.zeros(1, dtype=torch.bool), [1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_flags_are_what_torch_takes_them_for(variant, device):
    sample = make_sample([6, 5], 3, foreground=0.5).to(device)
    boxes, embeddings, flags, counts = sample.rois()
    mask = (flags.to(torch.uint8) * 255).view(torch.bool)  # as of a mask of another library
    assert mask.tolist() == flags.tolist()
    of_truth = keywords(sample, variant)
    assert torch.equal(
        uncertainty_weights(boxes, embeddings, mask, counts, variant=variant, **of_truth),
        uncertainty_weights(boxes, embeddings, flags, counts, variant=variant, **of_truth),
    )
    assert torch.equal(
        overlap_weights(boxes, mask, counts, **of_truth),
        overlap_weights(boxes, flags, counts, **of_truth),
    )


def test_overlap_half_of_the_ground_truth_raises():
    sample = make_sample([6], 3)
    with pytest.raises(ValueError, match="go together, got only gt_boxes"):
        overlap_weights(sample.boxes, sample.is_foreground, [6], gt_boxes=torch.zeros(1, 4))


@pytest.mark.parametrize("requires_grad", ["boxes", "embeddings"])
def test_weights_have_no_gradient(requires_grad, device):
    sample = make_sample([20], 8).to(device)
    getattr(sample, requires_grad).requires_grad_()
    weights = uncertainty_weights(*sample.rois())
    assert not weights.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        weights.sum().backward()
    losses = torch.ones(20, device=device, requires_grad=True)
    (weights * losses).sum().backward()
    torch.testing.assert_close(losses.grad, weights)
    assert getattr(sample, requires_grad).grad is None


def test_dtypes_may_differ(device):
    """All is computed in float64 if something is, of half boxes in float32."""
    sample = make_sample([12, 0, 5], 6).to(device)
    exact = sample.to(torch.float64)
    flags = (sample.is_foreground, sample.rois_per_image)
    truth = {"gt_boxes": exact.gt_boxes / 3, "gts_per_image": sample.gts_per_image}
    assert_matches(
        overlap_weights(sample.boxes.half(), *flags, **truth),
        reference.overlap_weights(sample.boxes.half().double(), *flags, **truth),
        torch.float32,
    )
    rois = (sample.boxes, exact.embeddings / 3, *flags)
    assert_matches(
        uncertainty_weights(*rois, variant="released", **truth),
        reference.uncertainty_weights(rois[0].double(), *rois[1:], **truth),
        torch.float64,
    )

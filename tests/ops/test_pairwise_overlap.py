import pytest
import torch
from op_samples import HALVES, TOLERANCES, assert_matches, random_boxes, sample_inputs

from d2_ssod.ops import pairwise_iof, pairwise_iou, reference

OPERATORS = {
    "iou": (pairwise_iou, reference.pairwise_iou),
    "iof": (pairwise_iof, reference.pairwise_iof),
}


@pytest.fixture(params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def seeded(count, seed=0):
    return random_boxes(count, torch.Generator().manual_seed(seed))


def test_iou_known_values(device):
    first = boxes([0, 0, 10, 10], [0, 0, 4, 4]).to(device)
    second = boxes([5, 0, 15, 10], [0, 0, 10, 10], [10, 0, 20, 10]).to(device)
    expected = torch.tensor([[50 / 150, 1.0, 0.0], [0.0, 16 / 100, 0.0]])
    torch.testing.assert_close(pairwise_iou(first, second).cpu(), expected)


def test_iof_known_values(device):
    first = boxes([0, 0, 10, 10], [0, 0, 4, 4]).to(device)
    second = boxes([5, 0, 15, 10], [0, 0, 10, 10], [0, 0, 2, 8]).to(device)
    expected = torch.tensor([[0.5, 1.0, 0.16], [0.0, 1.0, 0.5]])
    torch.testing.assert_close(pairwise_iof(first, second).cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sample", sample_inputs())
def test_pairwise_matches_reference(operator, sample, dtype, device):
    ours, plain = operator
    sample = sample.to(dtype).to(device)
    exact = sample.to(torch.float64)
    for first, second in (("boxes", "gt_boxes"), ("gt_boxes", "boxes"), ("boxes", "boxes")):
        assert_matches(
            ours(getattr(sample, first), getattr(sample, second)),
            plain(getattr(exact, first), getattr(exact, second)),
            dtype,
        )


@pytest.mark.parametrize("columns", [1, 7, 8, 31, 32, 33, 64, 100])
def test_pairwise_any_width_matches_reference(operator, columns, device):
    ours, plain = operator
    first, second = seeded(19).to(device), seeded(columns, seed=1).to(device)
    assert_matches(ours(first, second), plain(first.double(), second.double()), torch.float32)


@pytest.mark.parametrize("dtype", HALVES)
def test_pairwise_half_is_computed_in_float32(operator, dtype, device):
    ours, _ = operator
    first, second = seeded(20).to(device, dtype), seeded(30, seed=1).to(device, dtype)
    actual = ours(first, second)
    assert actual.dtype == dtype
    assert torch.equal(actual, ours(first.float(), second.float()).to(dtype))


def test_pairwise_iou_matches_detectron2(device):
    structures = pytest.importorskip("detectron2.structures")
    first, second = seeded(300).abs(), seeded(200, seed=1).abs()
    first[:, 2:] = torch.maximum(first[:, :2], first[:, 2:])
    second[:, 2:] = torch.maximum(second[:, :2], second[:, 2:])
    expected = structures.pairwise_iou(structures.Boxes(first), structures.Boxes(second))
    assert_matches(pairwise_iou(first.to(device), second.to(device)), expected, torch.float32)


def test_pairwise_iof_matches_detectron2_ioa_transposed(device):
    boxes_module = pytest.importorskip("detectron2.structures.boxes")
    first, second = seeded(300).abs(), seeded(200, seed=1).abs()
    # Its boxes of no area give NaN or infinity.
    first[:, 2:] = first[:, :2] + first[:, 2:] + 1
    second[:, 2:] = second[:, :2] + second[:, 2:] + 1
    expected = boxes_module.pairwise_ioa(boxes_module.Boxes(second), boxes_module.Boxes(first)).T
    assert_matches(pairwise_iof(first.to(device), second.to(device)), expected, torch.float32)


def test_pairwise_iou_matches_torchvision(device):
    box_iou = pytest.importorskip("torchvision.ops").box_iou
    first, second = seeded(300).sort(dim=1).values, seeded(200, seed=1).sort(dim=1).values
    assert_matches(
        pairwise_iou(first.to(device), second.to(device)), box_iou(first, second), torch.float32
    )


def test_iou_is_symmetric_and_at_most_one(device):
    first = seeded(100).to(device)
    overlaps = pairwise_iou(first, first)
    # Within rounding: a compiler may keep one of the two products unrounded.
    torch.testing.assert_close(overlaps, overlaps.T)
    assert overlaps.min() >= 0
    assert overlaps.max() <= 1 + TOLERANCES[device][torch.float32][0]


def test_iof_is_one_inside_and_at_most_one(device):
    outer = boxes([0, 0, 97.3, 51.7]).to(device)
    inner = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)).sort(dim=1).values * 50
    inner = inner[(inner[:, 2] > inner[:, 0]) & (inner[:, 3] > inner[:, 1])].to(device)
    assert torch.equal(pairwise_iof(inner, outer), torch.ones(len(inner), 1, device=device))


def test_pairwise_translation_and_scale_do_not_matter(operator, device):
    ours, _ = operator
    first, second = seeded(40).round().to(device), seeded(50, seed=1).round().to(device)
    expected = ours(first, second)
    assert torch.equal(ours(first + 1024, second + 1024), expected)
    torch.testing.assert_close(ours(first * 8, second * 8), expected)


def test_pairwise_degenerate_and_inverted_overlap_nothing(operator, device):
    ours, _ = operator
    broken = boxes([5, 5, 5, 9], [5, 5, 9, 5], [5, 5, 5, 5], [9, 9, 5, 5], [9, 5, 5, 9]).to(device)
    good = boxes([0, 0, 20, 20]).to(device)
    assert not ours(broken, torch.cat([broken, good])).any()
    assert not ours(good, broken).any()


def test_pairwise_nan_stays_in_its_row_and_column(operator, device):
    ours, _ = operator
    first, second = seeded(20), seeded(40, seed=1)
    for column in range(4):
        first[3 + column, column] = torch.nan
        second[30 + column, column] = torch.nan
    actual = ours(first.to(device), second.to(device)).cpu()
    expected = torch.zeros(20, 40, dtype=torch.bool)
    expected[3:7] = True
    expected[:, 30:34] = True
    assert torch.equal(actual.isnan(), expected)
    clean = ours(first.nan_to_num(0).to(device), second.nan_to_num(0).to(device)).cpu()
    assert torch.equal(actual[~expected], clean[~expected])


def test_pairwise_empty(operator, device):
    ours, _ = operator
    none, some = torch.zeros(0, 4, device=device), seeded(3).to(device)
    assert ours(none, some).shape == (0, 3)
    assert ours(some, none).shape == (3, 0)
    assert ours(none, none).shape == (0, 0)


def test_pairwise_more_than_2_to_31_results_have_a_shape(operator):
    ours, _ = operator
    many = torch.zeros(50_000, 4, device="meta")
    assert ours(many, many).shape == (50_000, 50_000)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (torch.zeros(3, 5), torch.zeros(2, 4), r"boxes1 must be a Tensor\[N, 4\].*\[3, 5\]"),
        (torch.zeros(3, 4), torch.zeros(4), r"boxes2 must be a Tensor\[N, 4\].*\[4\]"),
        (torch.zeros(3, 4), torch.zeros(3, 4).long(), "boxes2 must be a floating.*int64"),
    ],
)
def test_pairwise_wrong_arguments_raise(operator, first, second, message):
    ours, _ = operator
    with pytest.raises(ValueError, match=message):
        ours(first, second)


@pytest.mark.parametrize("wide", [0, 1])
def test_pairwise_takes_the_wider_of_two_dtypes(operator, wide, device):
    ours, plain = operator
    given = [seeded(9).to(device), seeded(7, seed=1).to(device)]
    given[wide] = given[wide].double() / 3  # which no float32 is
    assert_matches(ours(*given), plain(*(each.double() for each in given)), torch.float64)
    given[wide] = given[wide].float()
    given[1 - wide] = given[1 - wide].half()
    assert ours(*given).dtype == torch.float32

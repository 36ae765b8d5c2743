import pytest
import torch
from op_samples import assert_matches

from d2_ssod.ops import pairwise_cosine_similarity, reference


def vectors(count, depth, seed=0, dtype=torch.float32):
    return torch.randn(count, depth, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_cosine_known_values(device):
    first = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0]], device=device)
    second = torch.tensor([[-2.0, 0.0], [0.0, 5.0]], device=device)
    expected = torch.tensor([[-1.0, 0.0], [-0.6, 0.8], [0.0, 0.0]])
    torch.testing.assert_close(pairwise_cosine_similarity(first, second).cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cosine_matches_reference_and_torch(dtype, device):
    first, second = vectors(30, 17, dtype=dtype), vectors(20, 17, seed=1, dtype=dtype)
    actual = pairwise_cosine_similarity(first.to(device), second.to(device))
    assert actual.dtype == dtype
    expected = reference.pairwise_cosine_similarity(first.double(), second.double())
    assert_matches(actual, expected, dtype)
    library = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=2)
    assert_matches(actual, library, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cosine_half_does_not_overflow(dtype, device):
    # The squared norms are beyond the largest half.
    first = (vectors(8, 64) * 1000).to(device, dtype)
    actual = pairwise_cosine_similarity(first, first)
    assert actual.dtype == dtype
    expected = reference.pairwise_cosine_similarity(first.double(), first.double())
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=2e-2)


def test_cosine_gradcheck(device):
    first = vectors(4, 3, dtype=torch.float64).to(device).requires_grad_()
    second = vectors(5, 3, seed=1, dtype=torch.float64).to(device).requires_grad_()
    assert torch.autograd.gradcheck(pairwise_cosine_similarity, (first, second))


def test_cosine_nan_stays_in_its_row(device):
    first = vectors(5, 4)
    first[2, 1] = torch.nan
    actual = pairwise_cosine_similarity(first.to(device), vectors(3, 4, seed=1).to(device))
    assert actual.isnan().any(dim=1).nonzero().tolist() == [[2]]


def test_cosine_of_a_norm_that_overflows_is_nan(device):
    large = torch.full((1, 4), 1e25, device=device)
    assert pairwise_cosine_similarity(large, torch.ones(2, 4, device=device)).isnan().all()


def test_cosine_empty(device):
    none, some = torch.zeros(0, 4, device=device), torch.zeros(3, 4, device=device)
    assert pairwise_cosine_similarity(none, some).shape == (0, 3)


def test_cosine_wrong_shapes_raise():
    with pytest.raises(ValueError, match=r"got shapes \[2, 3\] and \[2, 4\]"):
        pairwise_cosine_similarity(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize("shapes", [((4,), (2, 4)), ((2, 4), (4,)), ((2, 4), (2, 4, 4))])
def test_cosine_of_what_has_no_rows_raises(shapes):
    with pytest.raises(ValueError, match="x1 and x2 must be"):
        pairwise_cosine_similarity(*map(torch.zeros, shapes))


def test_cosine_counts_small_norms_as_eps(device):
    first, second = torch.tensor([[1e-7, 0.0], [0.0, 0.25]], device=device)[:, None]
    assert pairwise_cosine_similarity(first, first).item() == pytest.approx(1.0)
    assert pairwise_cosine_similarity(second, second, eps=0.5).item() == pytest.approx(0.25)
    unit = torch.tensor([[0.0, 1.0]], device=device)
    assert pairwise_cosine_similarity(unit, second, eps=0.5).item() == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cosine_norms_of_halves_are_not_halves(dtype, device):
    # Beyond the largest float16; and of three digits in bfloat16.
    rows = (vectors(16, 1024).sign() * 3000 + vectors(16, 1024, seed=1) * 500).to(device, dtype)
    own = pairwise_cosine_similarity(rows, rows).diagonal()
    torch.testing.assert_close(own.double(), torch.ones_like(own).double(), rtol=0, atol=2e-3)

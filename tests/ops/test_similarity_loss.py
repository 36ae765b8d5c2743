import dataclasses

import pytest
import torch
from op_samples import DTYPES, assert_matches, make_sample, sample_inputs
from torch.autograd import forward_ad

from d2_ssod.ops import reference, similarity_loss


def run(sample, loss_of, **keywords):
    """Loss and gradient."""
    embeddings = sample.embeddings.clone().requires_grad_()
    loss = loss_of(sample.boxes, embeddings, sample.rois_per_image, **keywords)
    loss.backward()
    return loss.detach(), embeddings.grad


def size(gradient):
    """Largest entry; at least what the gradients of these samples usually are."""
    return max(gradient.abs().max().item(), 1e-3) if gradient.numel() else 1.0


def test_similarity_known_values(device):
    # 0 lies in 1; 2 is elsewhere. Cosines: 01 0.6, 02 1, 12 0.6.
    boxes = torch.tensor([[2.0, 2, 4, 4], [0, 0, 10, 10], [50, 50, 60, 60]], device=device)
    embeddings = torch.tensor([[1.0, 0.0], [-3.0, 4.0], [2.0, 0.0]], device=device)
    pairs = 2 * ((1 - 0.6) ** 2 + 1.0**2 + 0.6**2)
    assert similarity_loss(boxes, embeddings, [3]).item() == pytest.approx(pairs / 9)
    # 0 and 2 of one class, 1 of none.
    classes = torch.tensor([5, -1, 5], device=device)
    pairs = 2 * ((1 - 0.6) ** 2 + 0.6**2)
    loss = similarity_loss(boxes, embeddings, [3], classes=classes)
    assert loss.item() == pytest.approx(pairs / 9)


@pytest.mark.parametrize("with_classes", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sample", sample_inputs())
def test_similarity_matches_reference(sample, dtype, with_classes, device):
    sample = sample.with_embeddings(dtype).to(device)
    exact = sample.to(torch.float64)
    classes = sample.classes if with_classes else None
    expected, expected_gradient = run(exact, reference.similarity_loss, classes=classes)
    loss, gradient = run(sample, similarity_loss, classes=classes)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.dtype == dtype
    assert_matches(loss, expected, dtype)
    if dtype in (torch.float32, torch.float64):
        assert_matches(gradient, expected_gradient, dtype, scale=size(expected_gradient))
    else:
        torch.testing.assert_close(gradient, expected_gradient.to(dtype), rtol=2e-2, atol=1e-6)
    with torch.no_grad():
        without_gradient = similarity_loss(
            sample.boxes, sample.embeddings, sample.rois_per_image, classes=classes
        )
    assert_matches(without_gradient, expected, dtype)


@pytest.mark.parametrize("depth", [2, 15, 16, 17, 33, 128, 1024])
def test_similarity_any_depth_matches_reference(depth, device):
    sample = make_sample([150], depth, seed=depth).to(device)
    expected, expected_gradient = run(sample.to(torch.float64), reference.similarity_loss)
    loss, gradient = run(sample, similarity_loss)
    assert_matches(loss, expected, torch.float32)
    assert_matches(gradient, expected_gradient, torch.float32, scale=size(expected_gradient))


@pytest.mark.parametrize("with_classes", [False, True])
def test_similarity_gradcheck(with_classes, device):
    sample = make_sample([7, 0, 5], 4).to(torch.float64).to(device)
    classes = sample.classes if with_classes else None
    assert torch.autograd.gradcheck(
        lambda embeddings: similarity_loss(
            sample.boxes, embeddings, sample.rois_per_image, classes=classes
        ),
        (sample.embeddings.requires_grad_(),),
    )


def test_similarity_gradient_leaves_the_length_alone(device):
    sample = make_sample([60], 12).to(device)
    _, gradient = run(sample, similarity_loss)
    along = (gradient * sample.embeddings).sum(dim=1)
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-6)


def test_similarity_second_derivative_raises(device):
    sample = make_sample([9], 4).to(device)
    embeddings = sample.embeddings.requires_grad_()
    loss = similarity_loss(sample.boxes, embeddings, [9])
    (gradient,) = torch.autograd.grad(loss, embeddings, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


def test_similarity_gradient_is_differentiable_in_its_factor(device):
    """A weight of the loss that is learned by the norms of gradients (GradNorm)."""
    sample = make_sample([9], 4).to(device)
    embeddings = sample.embeddings.requires_grad_()
    weight = torch.tensor(2.0, device=device, requires_grad=True)
    loss = weight * similarity_loss(sample.boxes, embeddings, [9])
    (gradient,) = torch.autograd.grad(loss, embeddings, create_graph=True)
    (of_weight,) = torch.autograd.grad(gradient.norm(), weight)
    torch.testing.assert_close(of_weight, gradient.detach().norm() / 2)


def test_similarity_embeddings_must_be_a_tensor():
    sample = make_sample([9], 4)
    with pytest.raises(TypeError, match=r"embeddings must be a Tensor\[R, D\], got list"):
        similarity_loss(sample.boxes, sample.embeddings.tolist(), [9])


def test_similarity_forward_mode_derivative_raises(device):
    sample = make_sample([9], 4).to(device)
    embeddings, tangent = sample.embeddings, torch.ones_like(sample.embeddings)

    def loss_of(embeddings):
        return similarity_loss(sample.boxes, embeddings, [9])

    with pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.func.jvp(loss_of, (embeddings,), (tangent,))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(embeddings, tangent)
        with pytest.raises(RuntimeError, match="no forward-mode derivative"):
            loss_of(dual)
        assert loss_of(embeddings) > 0


def test_similarity_trains_the_embedding_alone(device):
    sample = make_sample([9], 4).to(device)
    boxes = sample.boxes.requires_grad_()
    loss = similarity_loss(boxes, sample.embeddings.requires_grad_(), [9])
    loss.backward()
    assert boxes.grad is None
    assert sample.embeddings.grad.abs().sum() > 0


def test_similarity_of_boxes_that_require_grad_alone_has_none(device):
    torch._dynamo.reset()
    sample = make_sample([9], 4).to(device)
    boxes = sample.boxes.requires_grad_()
    weight = torch.ones((), device=device, requires_grad=True)
    for loss_of in (similarity_loss, torch.compile(similarity_loss, backend="aot_eager")):
        loss = loss_of(boxes, sample.embeddings, [9])
        assert not loss.requires_grad
        (loss + weight).backward()  # beside losses that do
        assert boxes.grad is None


def test_similarity_is_the_mean_of_the_images(device):
    sample = make_sample([30, 0, 50], 8).to(device)
    boxes, embeddings = sample.boxes.split([30, 50]), sample.embeddings.split([30, 50])
    alone = [similarity_loss(b, e, [len(b)]) for b, e in zip(boxes, embeddings, strict=True)]
    together = similarity_loss(sample.boxes, sample.embeddings, [30, 0, 50])
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 3)


def test_similarity_perfect_embedding_costs_nothing(device):
    boxes = torch.tensor(
        [[0.0, 0, 9, 9], [1, 1, 8, 8], [50, 0, 59, 9], [51, 1, 58, 8]], device=device
    )
    embeddings = torch.tensor([[2.0, 0], [-1, 0], [0, 3], [0, 0.5]], device=device)
    assert similarity_loss(boxes, embeddings, [4]).item() == pytest.approx(0, abs=1e-12)


def test_similarity_threshold_is_exclusive(device):
    # IoF of the first in the second is 1/2, exactly.
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 0, 12, 4]], device=device)
    embeddings = torch.tensor([[1.0, 0], [1, 0]], device=device)
    apart = similarity_loss(boxes, embeddings, [2], iof_threshold=0.5)
    assert apart.item() == pytest.approx(2 / 4)
    together = similarity_loss(boxes, embeddings, [2], iof_threshold=0.499)
    assert together.item() == pytest.approx(0)


def test_similarity_empty_is_zero(device):
    none = torch.zeros(0, 4, device=device)
    for counts in ([], [0], [0, 0]):
        embeddings = torch.zeros(0, 8, device=device, requires_grad=True)
        loss = similarity_loss(none, embeddings, counts)
        assert loss.item() == 0
        loss.backward()
        assert embeddings.grad.shape == (0, 8)


@pytest.mark.parametrize("what", ["box", "embedding"])
def test_similarity_nan_gives_nan(what, device):
    sample = make_sample([40, 30], 8)
    boxes, embeddings = sample.boxes.clone(), sample.embeddings.clone()
    (boxes if what == "box" else embeddings)[3, 1] = torch.nan
    sample = dataclasses.replace(sample, boxes=boxes, embeddings=embeddings).to(device)
    loss, gradient = run(sample, similarity_loss)
    assert loss.isnan()
    assert gradient[40:].isfinite().all()
    with torch.no_grad():
        assert similarity_loss(sample.boxes, sample.embeddings, [40, 30]).isnan()


def test_similarity_more_than_2_to_31_pairs(device):
    # 47,000 squared: of the pairs of embeddings of disjoint boxes, half are alike.
    count = 47_000
    boxes = torch.arange(count)[:, None] * 2.0 + torch.tensor([0.0, 0.0, 1.0, 1.0])
    embeddings = torch.eye(2).repeat(count // 2, 1)
    loss = similarity_loss(boxes.to(device), embeddings.to(device), [count], iof_threshold=1.0)
    assert loss.item() == pytest.approx(0.5, rel=1e-6)


def test_similarity_threads_do_not_change_results():
    sample = make_sample([700, 200, 1], 48)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(run(sample, similarity_loss))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iof_threshold": 1.5}, "iof_threshold must be in 0..1, got 1.5"),
        ({"iof_threshold": float("nan")}, "iof_threshold must be in 0..1"),
        ({"classes": torch.zeros(5, dtype=torch.int64)}, r"classes must be a Tensor\[6\]"),
        ({"classes": torch.zeros(6)}, "classes must be int64.*Float"),
        ({"rois_per_image": [5]}, "rois_per_image must add up to the number of boxes, 6"),
        ({"embeddings": torch.zeros(6)}, r"embeddings must be a Tensor\[6, D\]"),
        ({"boxes": torch.zeros(6, 4).long()}, "boxes must be a floating.*int64"),
    ],
)
def test_similarity_wrong_arguments_raise(change, message):
    arguments = {
        "boxes": torch.zeros(6, 4),
        "embeddings": torch.zeros(6, 3),
        "rois_per_image": [6],
    }
    with pytest.raises(ValueError, match=message):
        similarity_loss(**(arguments | change))


@pytest.mark.parametrize("large", [2**24, 2**53, 2**62])
def test_similarity_large_classes_are_told_apart(large, device):
    sample = make_sample([40, 30], 8).to(device)
    arguments = (sample.boxes, sample.embeddings, sample.rois_per_image)
    expected = similarity_loss(*arguments, classes=sample.classes)
    moved = torch.where(sample.classes < 0, sample.classes, sample.classes + large)
    assert torch.equal(similarity_loss(*arguments, classes=moved), expected)

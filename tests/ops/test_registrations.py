"""What the dispatcher is told: torch.compile, opcheck, autocast, meta tensors."""

import dataclasses

import pytest
import torch
import torch._dynamo.testing
from op_samples import HALVES, NAMES, OPERATORS, make_sample, operator_arguments, sample_inputs
from torch.utils._python_dispatch import TorchDispatchMode

from d2_ssod import ops


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sample", sample_inputs())
def test_opcheck_schema_and_fake(sample, name, device):
    for arguments in operator_arguments(sample.to(device))[name]:
        torch.library.opcheck(
            getattr(OPERATORS, name).default,
            arguments,
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )


@pytest.mark.parametrize("name", NAMES)
def test_operator_is_tagged_for_the_compiler(name):
    assert torch.Tag.pt2_compliant_tag in getattr(OPERATORS, name).default.tags


@pytest.mark.parametrize("name", NAMES)
def test_opcheck_with_gradients(name, device):
    sample = make_sample([12, 0, 5], 6).to(device)
    sample.embeddings.requires_grad_()
    for arguments in operator_arguments(sample)[name]:
        if name == "similarity_loss" and not arguments[-1]:
            continue  # a gradient is then an error, by design
        torch.library.opcheck(getattr(OPERATORS, name).default, arguments)


def everything(sample):
    """All public functions, in one graph."""
    rois = (sample.boxes, sample.is_foreground, sample.rois_per_image)
    truth = sample.ground_truth()
    return (
        ops.pairwise_iou(sample.boxes, sample.gt_boxes),
        ops.pairwise_iof(sample.boxes, sample.gt_boxes),
        ops.pairwise_cosine_similarity(sample.embeddings, sample.embeddings),
        ops.gompertz(sample.boxes, 0.1, 5.0, 0.01),
        ops.overlap_weights(*rois),
        ops.overlap_weights(*rois, **truth),
        *ops.uncertainty_terms(*sample.rois()),
        ops.uncertainty_weights(*sample.rois(), variant="released", **truth),
        ops.similarity_loss(sample.boxes, sample.embeddings, sample.rois_per_image),
        ops.similarity_loss(
            sample.boxes, sample.embeddings, sample.rois_per_image, classes=sample.classes
        ),
    )


def test_compile_fullgraph_with_changing_sizes_compiles_twice(device):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(everything, fullgraph=True, backend=counter)
    for seed, counts in enumerate([[30, 20], [41, 17], [5, 60], [33, 34], [100, 2]]):
        sample = make_sample(counts, 8, seed=seed).to(device)
        for actual, expected in zip(compiled(sample), everything(sample), strict=True):
            torch.testing.assert_close(actual, expected)
    # The first sizes as constants, then all others at once.
    assert counter.frame_count == 2


def test_compile_gradient_of_the_loss(device):
    torch._dynamo.reset()
    loss_of = torch.compile(ops.similarity_loss, fullgraph=True, backend="aot_eager")
    for counts in ([20, 9], [14, 31]):
        sample = make_sample(counts, 8).to(device)
        gradients = []
        for function in (loss_of, ops.similarity_loss):
            embeddings = sample.embeddings.clone().requires_grad_()
            (3 * function(sample.boxes, embeddings * 2, counts)).backward()
            gradients.append(embeddings.grad)
        torch.testing.assert_close(*gradients)


def test_compile_with_inductor(device):
    torch._dynamo.reset()

    def weighted(boxes, embeddings, foreground, losses):
        weights = ops.uncertainty_weights(boxes, embeddings * 2, foreground, [50])
        return (weights * losses.exp()).mean()

    sample = make_sample([50], 8).to(device)
    losses = torch.rand(50, device=device)
    arguments = (sample.boxes, sample.embeddings, sample.is_foreground, losses)
    compiled = torch.compile(weighted, fullgraph=True)
    torch.testing.assert_close(compiled(*arguments), weighted(*arguments))


def test_meta_tensors_give_shapes(device):
    sample = make_sample([7, 4], 3)
    for result, expected in zip(everything(sample.to("meta")), everything(sample), strict=True):
        assert result.is_meta
        assert (result.shape, result.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("name", NAMES)
def test_meta_tensors_beside_real_ones_are_refused(name, device):
    operator = getattr(OPERATORS, name).default
    for arguments in operator_arguments(make_sample([7, 4], 3).to(device))[name]:
        tensors = [i for i, given in enumerate(arguments) if isinstance(given, torch.Tensor)]
        for place in tensors:
            mixed = list(arguments)
            mixed[place] = mixed[place].to("meta")
            with pytest.raises(ValueError, match=r"must be on .* like the boxes, got "):
                operator(*mixed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"is_foreground": s.is_foreground.byte()}, "is_foreground must be bool"),
        (lambda s: {"embeddings": s.embeddings[1:]}, "one row per box"),
        (lambda s: {"boxes": s.boxes[:, 1:]}, r"boxes must be a Tensor\[N, 4\]"),
        (lambda s: {"rois_per_image": [7, 5]}, "must add up to the number of boxes"),
    ],
)
def test_what_the_kernels_refuse_is_refused_while_a_program_is_traced(change, message):
    sample = make_sample([7, 4], 3)
    names = ("boxes", "embeddings", "is_foreground", "rois_per_image")
    given = dict(zip(names, sample.rois(), strict=True)) | change(sample)
    with pytest.raises(ValueError, match=message):
        ops.uncertainty_weights(**given)
    torch._dynamo.reset()
    traced = torch.compile(ops.uncertainty_weights, fullgraph=True, backend="eager", dynamic=True)
    with pytest.raises((ValueError, torch._dynamo.exc.TorchRuntimeError), match=message):
        traced(**given)


def test_compile_counts_that_only_a_run_tells(device):
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=True)
    def traced(boxes, embeddings, counts):
        return ops.similarity_loss(boxes, embeddings, counts.tolist())

    sample = make_sample([30, 20], 8).to(device)
    rois = sample.boxes, sample.embeddings
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        for counts in ([30, 20], [50, 0]):
            actual = traced(*rois, torch.tensor(counts))
            torch.testing.assert_close(actual, ops.similarity_loss(*rois, counts))
        with pytest.raises(RuntimeError, match="Eq"):
            traced(*rois, torch.tensor([30, 21]))


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_changes_nothing_but_the_embeddings(dtype, device):
    sample = make_sample([60, 40], 32).to(device)
    half = dataclasses.replace(sample, embeddings=sample.embeddings.to(dtype))
    weights = ops.uncertainty_weights(*half.rois())
    loss = ops.similarity_loss(half.boxes, half.embeddings, half.rois_per_image)
    with torch.autocast(device, dtype):
        # As in a network: a layer gives half embeddings.
        embeddings = torch.nn.functional.linear(sample.embeddings, torch.eye(32, device=device))
        assert embeddings.dtype == dtype
        rois = (sample.boxes, embeddings, sample.is_foreground, sample.rois_per_image)
        assert torch.equal(ops.uncertainty_weights(*rois), weights)
        autocast_loss = ops.similarity_loss(sample.boxes, embeddings, sample.rois_per_image)
        assert autocast_loss.dtype == torch.float32
        torch.testing.assert_close(autocast_loss, loss)


def test_autocast_keeps_boxes_in_float32(device):
    sample = make_sample([20], 2).to(device)
    expected = ops.pairwise_iou(sample.boxes, sample.gt_boxes)
    rounded = OPERATORS.pairwise_iou(sample.boxes.half().float(), sample.gt_boxes.half().float())
    with torch.autocast(device, torch.bfloat16):
        actual = ops.pairwise_iou(sample.boxes, sample.gt_boxes)
        direct = OPERATORS.pairwise_iou(sample.boxes.half(), sample.gt_boxes.half())
    assert torch.equal(actual, expected)
    assert direct.dtype == torch.float32
    assert torch.equal(direct, rounded)


def test_autocast_gradient_has_the_dtype_of_the_embeddings(device):
    sample = make_sample([30], 16).to(device)
    weight = torch.eye(16, device=device, requires_grad=True)
    with torch.autocast(device, torch.bfloat16):
        embeddings = torch.nn.functional.linear(sample.embeddings, weight)
        loss = ops.similarity_loss(sample.boxes, embeddings, [30])
    loss.backward()
    assert weight.grad.dtype == torch.float32
    assert weight.grad.abs().sum() > 0


def test_small_gradients_of_half_embeddings_survive_a_loss_scale(device):
    # Unscaled they are below the smallest half, 6e-8.
    sample = make_sample([600], 8).to(device)
    embeddings = (sample.embeddings * 100).half().requires_grad_()
    (ops.similarity_loss(sample.boxes, embeddings, [600]) * 2.0**16).backward()
    assert (embeddings.grad == 0).float().mean() < 0.05


def test_mixed_precision_takes_the_wider(device):
    sample = make_sample([20], 8).to(device)
    arguments = (sample.boxes.double(), *sample.rois()[1:])
    assert ops.uncertainty_weights(*arguments).dtype == torch.float64
    assert ops.pairwise_iou(sample.boxes.double(), sample.gt_boxes).dtype == torch.float64
    arguments = (sample.boxes.half(), sample.embeddings.bfloat16(), *sample.rois()[2:])
    assert ops.uncertainty_weights(*arguments).dtype == torch.float32


def test_inference_mode_and_no_grad_work(device):
    sample = make_sample([20], 8).to(device)
    sample.embeddings.requires_grad_()
    with torch.inference_mode():
        first = everything(sample)
    with torch.no_grad():
        second = everything(sample)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert not b.requires_grad


def test_operator_without_gradient_says_so(device):
    sample = make_sample([9], 4).to(device)
    embeddings = sample.embeddings.requires_grad_()
    loss, _ = OPERATORS.similarity_loss(sample.boxes, embeddings, [9], 0.7, None, False)
    with pytest.raises(RuntimeError, match="with_grad=False"):
        loss.backward()


def test_gradient_that_is_kept_for_later_is_no_result_to_differentiate(device):
    sample = make_sample([9], 4).to(device)
    embeddings = sample.embeddings.requires_grad_()
    loss, gradient = OPERATORS.similarity_loss(sample.boxes, embeddings, [9], 0.7, None, True)
    assert loss.requires_grad
    assert not gradient.requires_grad


class WithGrad(TorchDispatchMode):
    """Notes whether each similarity loss is asked for a gradient."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is OPERATORS.similarity_loss.default:
            self.asked.append(arguments[-1])
        return function(*arguments, **(keywords or {}))


def test_a_gradient_is_made_only_where_it_will_be_needed(device):
    sample = make_sample([9], 4).to(device)
    rois = (sample.boxes, sample.embeddings, [9])
    with WithGrad() as mode:
        ops.similarity_loss(*rois)
        sample.embeddings.requires_grad_()
        ops.similarity_loss(*rois)
        with torch.no_grad():
            ops.similarity_loss(*rois)
    assert mode.asked == [False, True, False]

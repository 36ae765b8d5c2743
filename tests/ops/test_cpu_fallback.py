"""Tensors on a GPU for which no CUDA operators are compiled."""

import pytest
import torch
from op_samples import NAMES, OPERATORS, make_sample, operator_arguments
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only

from d2_ssod.ops._cpu_fallback import on_cpu

WARNING = "the CUDA operators of d2_ssod are not compiled"
HERE = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_kernel_for_cuda_whatever_is_compiled(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"d2_ssod::{name}", "CUDA")


@pytest.mark.parametrize("where", HERE)
@pytest.mark.parametrize("name", NAMES)
def test_results_are_those_of_the_cpu_on_the_device_of_the_arguments(name, where):
    operator = getattr(OPERATORS, name).default
    for arguments in operator_arguments(make_sample([12, 0, 5], 6))[name]:
        given = tree_map_only(torch.Tensor, lambda tensor: tensor.to(where), arguments)
        with pytest.warns(UserWarning, match=WARNING):
            actual = tree_leaves(on_cpu(operator)(*given))
        for result, expected in zip(actual, tree_leaves(operator(*arguments)), strict=True):
            assert result.device.type == where
            assert torch.equal(result.cpu(), expected)


@pytest.mark.filterwarnings(f"ignore:{WARNING}")
@pytest.mark.parametrize("name", NAMES)
def test_results_lie_on_the_gpu(name):
    with FakeTensorMode(allow_non_fake_inputs=True):
        for arguments in operator_arguments(make_sample([12, 0, 5], 6))[name]:
            given = tree_map_only(
                torch.Tensor,
                lambda x: torch.empty(x.shape, dtype=x.dtype, device="cuda"),
                arguments,
            )
            results = tree_leaves(on_cpu(getattr(OPERATORS, name).default)(*given))
            assert {result.device for result in results} == {torch.device("cuda", 0)}


@pytest.mark.filterwarnings(f"ignore:{WARNING}")
def test_tensors_of_two_devices_are_refused():
    with FakeTensorMode():
        boxes = torch.empty(3, 4, device="cuda")
        with pytest.raises(ValueError, match="on cuda:0 like the first, got one on cpu"):
            on_cpu(OPERATORS.pairwise_iou.default)(boxes, torch.empty(2, 4))


@pytest.mark.filterwarnings(f"ignore:{WARNING}")
def test_tensors_of_two_gpus_are_refused():
    with FakeTensorMode():
        boxes = torch.empty(3, 4, device="cuda:0")
        with pytest.raises(ValueError, match="on cuda:0 like the first, got one on cuda:1"):
            on_cpu(OPERATORS.pairwise_iou.default)(boxes, torch.empty(2, 4, device="cuda:1"))

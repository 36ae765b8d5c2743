"""What only a GPU can show: graphs, streams, no waiting, memory, reproducible results."""

import pytest
import torch

from d2_ssod.ops import (
    build_info,
    overlap_weights,
    pairwise_iof,
    pairwise_iou,
    reference,
    similarity_loss,
    uncertainty_terms,
    uncertainty_weights,
)

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or build_info()["cuda"] == "cpu only",
    reason="no GPU, or built without the CUDA operators",
)

COUNTS = [300, 0, 512, 7]


def make_boxes(count, generator):
    corner = torch.rand(count, 2, device="cuda", generator=generator) * 500
    extent = torch.rand(count, 2, device="cuda", generator=generator) * 200
    return torch.cat([corner, corner + extent], dim=1)


def make_batch(counts=COUNTS, depth=128, share=0.25, seed=0):
    """Boxes, embeddings, foreground."""
    generator = torch.Generator("cuda").manual_seed(seed)
    rows = sum(counts)
    return (
        make_boxes(rows, generator),
        torch.randn(rows, depth, device="cuda", generator=generator) + 0.5,
        torch.rand(rows, device="cuda", generator=generator) < share,
    )


def run_all(boxes, embeddings, foreground, counts=COUNTS):
    """Every operator, forward and backward."""
    leaf = embeddings.detach().requires_grad_()
    loss = similarity_loss(boxes, leaf, counts)
    (gradient,) = torch.autograd.grad(loss, leaf)
    truth = {"gt_boxes": boxes[: len(counts)], "gts_per_image": [1] * len(counts)}
    return [
        pairwise_iou(boxes, boxes[:50]),
        pairwise_iof(boxes, boxes[:51]),
        overlap_weights(boxes, foreground, counts),
        overlap_weights(boxes, foreground, counts, **truth),
        *uncertainty_terms(boxes, embeddings, foreground, counts),
        *uncertainty_terms(boxes, embeddings, foreground, counts, variant="released", **truth),
        loss.detach(),
        gradient,
    ]


def assert_equal(results, expected):
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_results_are_reproducible(dtype):
    boxes, embeddings, foreground = make_batch()
    if dtype == torch.float64:
        boxes = boxes.double()
    expected = run_all(boxes, embeddings.to(dtype), foreground)
    for _ in range(20):
        assert_equal(run_all(boxes, embeddings.to(dtype), foreground), expected)


def test_operators_do_not_wait_for_the_device():
    batch = make_batch()
    run_all(*batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run_all(*batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_graph_replays_with_new_inputs():
    static = make_batch(seed=1)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run_all(*static)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run_all(*static)
    for seed, share in ((2, 0.0), (3, 0.25), (4, 1.0)):
        new = make_batch(share=share, seed=seed)
        for place, value in zip(static, new, strict=True):
            place.copy_(value)
        for result in results:
            result.fill_(torch.nan)
        graph.replay()
        assert_equal(results, run_all(*new))


def test_operators_run_on_the_current_stream():
    batch = make_batch()
    expected = run_all(*batch)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # what runs on another stream would be done before this
        late = [x.clone() for x in batch]
        results = run_all(*late)
    stream.synchronize()
    assert_equal(results, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_operators_run_on_the_device_of_their_arguments():
    batch = make_batch()
    expected = run_all(*batch)
    results = run_all(*(x.to("cuda:1") for x in batch))
    assert all(result.device == torch.device("cuda:1") for result in results)
    assert_equal([x.to("cuda:0") for x in results], expected)


def test_tf32_is_used_only_if_allowed():
    batch = make_batch(depth=256)
    exact = reference.uncertainty_terms(*(x.double() for x in batch[:2]), batch[2], COUNTS)[2]

    def error():
        terms = uncertainty_terms(*batch, COUNTS)
        return (terms.dissimilarity - exact).abs().max().item()

    allowed = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = False
        precise = error()
        torch.backends.cuda.matmul.allow_tf32 = True
        coarse = error()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    assert precise < 1e-5 < coarse < 1e-3


@pytest.mark.parametrize("depth", [128, 256, 1024])
@pytest.mark.parametrize(("rows", "share"), [(2048, 0.25), (8192, 0.25), (4097, 0.9)])
def test_large_images_match_reference(rows, share, depth):
    batch = make_batch([rows], depth, share)
    weights = uncertainty_weights(*batch, [rows])
    expected = reference.uncertainty_weights(*(x.double() for x in batch[:2]), batch[2], [rows])
    torch.testing.assert_close(weights.double(), expected, rtol=0, atol=1e-4)


def test_largest_image_needs_no_matrix_and_matches_reference():
    rows = 65536
    boxes, embeddings, foreground = make_batch([rows], 128, share=0.125)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    weights = uncertainty_weights(boxes, embeddings, foreground, [rows])
    assert torch.cuda.max_memory_allocated() - before < 3 * embeddings.nbytes
    # Against some of the rows with all of the foreground.
    some = torch.cat([(~foreground).nonzero()[::500, 0], foreground.nonzero()[:, 0]])
    expected = reference.uncertainty_weights(
        boxes[some].double(), embeddings[some].double(), foreground[some], [len(some)]
    )
    torch.testing.assert_close(weights[some].double(), expected, rtol=0, atol=1e-4)


def test_similarity_loss_of_a_large_image_matches_reference():
    boxes, embeddings, _ = make_batch([3000], 300)
    leaf, exact = embeddings.requires_grad_(), embeddings.detach().double().requires_grad_()
    loss = similarity_loss(boxes, leaf, [3000])
    expected = reference.similarity_loss(boxes.double(), exact, [3000])
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    largest = exact.grad.abs().max().item()
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=0, atol=1e-4 * largest)

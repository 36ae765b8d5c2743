"""Small inputs of any kind, against the reference in the same precision."""

import pytest
import torch

from d2_ssod import ops
from d2_ssod.ops import reference

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

COORDINATES = st.one_of(
    st.sampled_from([0.0, 1.0, 10.0, 10.0, 20.0, -3.0, float("nan"), 1e-30, 1e4]),
    st.floats(-50, 50, width=32),
)
NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1e-9, 1e-20, float("nan"), 1e10]), st.floats(-4, 4, width=32)
)


def draw_tensor(data, numbers, rows, columns):
    values = data.draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(values, dtype=torch.float64).reshape(rows, columns)


@hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(st.data())
def test_operators_match_reference_on_any_input(data):
    counts = data.draw(st.lists(st.integers(0, 9), max_size=4))
    gts = data.draw(st.lists(st.integers(0, 3), min_size=len(counts), max_size=len(counts)))
    total = sum(counts)
    boxes = draw_tensor(data, COORDINATES, total, 4)
    gt_boxes = draw_tensor(data, COORDINATES, sum(gts), 4)
    embeddings = draw_tensor(data, NUMBERS, total, data.draw(st.integers(0, 4)))
    flags = st.lists(st.booleans(), min_size=total, max_size=total)
    foreground = torch.tensor(data.draw(flags), dtype=torch.bool)

    def compare(ours, plain):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9, equal_nan=True)

    rois = (boxes, embeddings, foreground, counts)
    truth = {"gt_boxes": gt_boxes, "gts_per_image": gts}
    for variant, keywords in (("paper", {}), ("released", truth)):
        actual = ops.uncertainty_terms(*rois, variant=variant, **keywords)
        compare(tuple(actual), reference.uncertainty_terms(*rois, **keywords))
        arguments = (boxes, foreground, counts)
        compare(
            ops.overlap_weights(*arguments, **keywords),
            reference.overlap_weights(*arguments, **keywords),
        )
    compare(ops.pairwise_iou(boxes, gt_boxes), reference.pairwise_iou(boxes, gt_boxes))
    compare(ops.pairwise_iof(boxes, gt_boxes), reference.pairwise_iof(boxes, gt_boxes))
    for threshold in (0.0, 0.7, 1.0):
        arguments = (boxes, embeddings, counts)
        compare(
            ops.similarity_loss(*arguments, iof_threshold=threshold),
            reference.similarity_loss(*arguments, iof_threshold=threshold),
        )

import itertools
from collections import Counter

import detectron2.data.build
import pytest
from detectron2.config import get_cfg
from detectron2.utils import comm
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import save_picture

from d2_ssod.config import add_ssod_config
from d2_ssod.data.loader import StreamSampler, build_inference_loader, build_phase_loader


@pytest.fixture
def as_rank(monkeypatch):
    """Call with a rank and a number of processes to be that one from then on."""

    def become(rank, world_size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        for module in (comm, detectron2.data.build):
            monkeypatch.setattr(module, "get_world_size", lambda: world_size)

    return become


def draw(count, groups, **arguments):
    return list(itertools.islice(StreamSampler(groups, **arguments), count))


TWO_GROUPS = [range(5), range(5, 16)]


def test_one_group_gives_every_image_once_per_epoch():
    drawn = draw(40, [range(10)], seed=3)
    epochs = [drawn[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_two_groups_alternate():
    drawn = draw(60, TWO_GROUPS, seed=3)
    assert all((index < 5) == (number % 2 == 0) for number, index in enumerate(drawn))


def test_two_groups_give_every_image_once_per_epoch_of_its_group():
    drawn = draw(2 * 55, TWO_GROUPS, seed=3)
    assert Counter(drawn[0::2]) == dict.fromkeys(range(5), 11)
    assert Counter(drawn[1::2]) == dict.fromkeys(range(5, 16), 5)


def test_groups_are_shuffled_independently():
    drawn = draw(40, [range(20), range(20, 40)], seed=0)
    assert drawn[0::2] != [index - 20 for index in drawn[1::2]]


def test_seed_decides_the_order():
    assert draw(30, TWO_GROUPS, seed=1) == draw(30, TWO_GROUPS, seed=1)
    assert draw(30, TWO_GROUPS, seed=1) != draw(30, TWO_GROUPS, seed=2)


@pytest.mark.parametrize("groups", [[range(0), range(3)], [range(3), range(0)]])
def test_empty_groups_are_left_out(groups):
    assert Counter(draw(9, groups, seed=0)) == {0: 3, 1: 3, 2: 3}


def test_sampler_without_images_ends():
    assert draw(3, [range(0)], seed=0) == []


def test_sampler_can_be_iterated_again():
    sampler = StreamSampler(TWO_GROUPS, seed=0)
    first = list(itertools.islice(sampler, 20))
    assert list(itertools.islice(sampler, 20)) == first


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    start=st.integers(0, 50),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50, deadline=None)
def test_start_resumes_exactly(sizes, start, seed):
    ends = list(itertools.accumulate(sizes))
    groups = [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    whole = draw(start + 30, groups, seed=seed)
    assert draw(30, groups, seed=seed, start=start) == whole[start:]


@pytest.mark.parametrize("groups", [[range(10)], TWO_GROUPS])
@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_draw_what_one_process_would(as_rank, groups, world_size):
    count = 60
    as_rank(0, 1)
    alone = draw(count, groups, seed=5)
    parts = []
    for rank in range(world_size):
        as_rank(rank, world_size)
        parts.append(draw(count // world_size, groups, seed=5))
    assert sorted(itertools.chain(*parts)) == sorted(alone)
    # The first step of all ranks is the first of the one process, too, and so on.
    per_step = world_size * len(groups)
    for step in range(count // per_step):
        together = [part[step * len(groups) : (step + 1) * len(groups)] for part in parts]
        expected = alone[step * per_step : (step + 1) * per_step]
        assert sorted(itertools.chain(*together)) == sorted(expected)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_each_rank_alternates_and_every_other_begins_labeled(as_rank, rank):
    as_rank(rank, 4)
    drawn = draw(20, TWO_GROUPS, seed=0)
    assert all((index < 5) == ((rank + number) % 2 == 0) for number, index in enumerate(drawn))


# Whole loaders, of dicts in place of images


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    return cfg


def images(prefix, count):
    return [{"name": f"{prefix}{i}", "width": 4, "height": 4} for i in range(count)]


def names_drawn(cfg, steps, labeled=3, pseudo=5, mapper=lambda image: image, **arguments):
    arguments = {"labeled_repeat": 1, "seed": 0, **arguments}
    loader = build_phase_loader(cfg, mapper, images("l", labeled), images("p", pseudo), **arguments)
    return [[image["name"] for image in batch] for batch in itertools.islice(loader, steps)]


@pytest.mark.parametrize("sampling", ["union", "balanced"])
def test_without_pseudo_labels_labeled_images_are_drawn_uniformly(cfg, sampling):
    cfg.SSOD.SAMPLING = sampling
    batches = names_drawn(cfg, 3, pseudo=0, labeled_repeat=4)
    assert Counter(itertools.chain(*batches)) == {"l0": 4, "l1": 4, "l2": 4}


def test_union_draws_every_image_once_per_epoch(cfg):
    batches = names_drawn(cfg, 2)
    assert all(len(batch) == 4 for batch in batches)
    assert Counter(itertools.chain(*batches)) == Counter(
        image["name"] for image in images("l", 3) + images("p", 5)
    )


def test_union_repeats_labeled_images(cfg):
    # 3 labeled images three times and 5 others once: 14 in an epoch, 2 epochs in 7 steps of 4.
    drawn = Counter(itertools.chain(*names_drawn(cfg, 7, labeled_repeat=3)))
    assert drawn == {"l0": 6, "l1": 6, "l2": 6, **{f"p{i}": 2 for i in range(5)}}


def test_balanced_batches_are_half_labeled(cfg):
    cfg.SSOD.SAMPLING = "balanced"
    for batch in names_drawn(cfg, 10, labeled_repeat=3):
        assert [name[0] for name in batch] == ["l", "p", "l", "p"]


@pytest.mark.parametrize("sampling", ["union", "balanced"])
def test_loader_resumes_exactly(cfg, sampling):
    cfg.SSOD.SAMPLING = sampling
    whole = names_drawn(cfg, 9, labeled_repeat=2)
    assert names_drawn(cfg, 4, labeled_repeat=2, iterations_done=5) == whole[5:]


def test_loader_gives_each_rank_its_share(cfg, as_rank):
    batches = []
    for rank in range(2):
        as_rank(rank, 2)
        batches.append(names_drawn(cfg, 4))
    assert all(len(batch) == 2 for of_rank in batches for batch in of_rank)
    drawn = Counter(itertools.chain(*itertools.chain(*batches)))
    assert set(drawn.values()) == {2}
    assert len(drawn) == 8


def test_loader_draws_another_image_for_none(cfg):
    batches = names_drawn(cfg, 5, mapper=lambda image: None if image["name"] == "p0" else image)
    assert all(len(batch) == 4 for batch in batches)
    assert "p0" not in set(itertools.chain(*batches))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_inference_loader_gives_every_image_once_in_order(cfg, tmp_path, batch_size):
    cfg.SSOD.INFERENCE_BATCH_SIZE = batch_size
    files = [str(save_picture(tmp_path / f"{i}.png")) for i in range(7)]
    records = [
        {"file_name": file, "image_id": number, "height": 16, "width": 24}
        for number, file in enumerate(files)
    ]
    batches = list(build_inference_loader(cfg, records))
    assert [image["image_id"] for batch in batches for image in batch] == list(range(7))
    assert max(len(batch) for batch in batches) == batch_size


def test_inference_loader_leaves_out_what_is_done(cfg, tmp_path, as_rank):
    """Each rank has the images that it would have had, without those."""
    file = str(save_picture(tmp_path / "0.png"))
    records = [
        {"file_name": file, "image_id": f"i{number}", "height": 16, "width": 24}
        for number in range(8)
    ]
    as_rank(1, 2)
    done = {"i0": None, "i1": None, "i5": None, "unknown": None}
    batches = list(build_inference_loader(cfg, records, done=done.keys()))
    assert [image["image_id"] for batch in batches for image in batch] == ["i3", "i7"]
    as_rank(0, 1)
    assert list(build_inference_loader(cfg, records, done={r["image_id"] for r in records})) == []


def test_inference_loaders_share_out_neighbours(cfg, tmp_path, as_rank):
    file = str(save_picture(tmp_path / "0.png"))
    records = [
        {"file_name": file, "image_id": number, "height": 16, "width": 24} for number in range(8)
    ]
    of_ranks = []
    for rank in range(3):
        as_rank(rank, 3)
        batches = list(build_inference_loader(cfg, records))
        of_ranks.append([image["image_id"] for batch in batches for image in batch])
    assert of_ranks == [[0, 3, 6], [1, 4, 7], [2, 5]]

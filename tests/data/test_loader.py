import itertools
import re
from collections import Counter

import detectron2.data.build
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import detection_utils
from detectron2.utils import comm
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import save_picture
from runs import bare_config

from d2_ssod.config import add_ssod_config
from d2_ssod.data.loader import (
    PhaseBatches,
    PhaseImages,
    build_inference_loader,
    build_phase_loader,
)
from d2_ssod.errors import ConfigError


@pytest.fixture
def as_rank(monkeypatch):
    """Call with a rank and a number of processes to be that one from then on."""

    def become(rank, world_size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        for module in (comm, detectron2.data.build):
            monkeypatch.setattr(module, "get_world_size", lambda: world_size)

    return become


def images(prefix, count, shapes=((4, 4),)):
    """Dicts of images whose widths and heights take turns."""
    sizes = itertools.cycle(shapes)
    return [
        {"name": f"{prefix}{i}", "width": width, "height": height}
        for i, (width, height) in zip(range(count), sizes, strict=False)
    ]


def merge(labeled=3, pseudo=5, sampling="union", labeled_repeat=1, **shapes):
    return PhaseImages.merge(
        images("l", labeled, **shapes),
        images("p", pseudo, **shapes),
        sampling=sampling,
        labeled_repeat=labeled_repeat,
    )


def draw(count, of, seed=0, phase=0):
    """Names of the first images of the endless sequence."""
    samples = list(itertools.islice(of.samples(seed, phase), count))
    assert [sample.number for sample in samples] == list(range(count))
    return [of.images[sample.image]["name"] for sample in samples]


def test_union_draws_every_image_once_per_epoch():
    drawn = draw(32, merge())
    epochs = [drawn[start : start + 8] for start in range(0, 32, 8)]
    everything = sorted(image["name"] for image in merge().images)
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_union_repeats_labeled_images():
    # 3 labeled images three times and 5 others once: 14 in an epoch.
    drawn = Counter(draw(28, merge(labeled_repeat=3)))
    assert drawn == {"l0": 6, "l1": 6, "l2": 6, **{f"p{i}": 2 for i in range(5)}}


@pytest.mark.parametrize("sampling", ["union", "balanced"])
def test_without_pseudo_labels_labeled_images_are_drawn_uniformly(sampling):
    drawn = draw(12, merge(pseudo=0, sampling=sampling, labeled_repeat=4))
    assert Counter(drawn) == {"l0": 4, "l1": 4, "l2": 4}


def test_balanced_images_take_turns_and_each_group_has_its_epochs():
    drawn = draw(2 * 30, merge(sampling="balanced", labeled_repeat=3))
    assert all((name[0] == "l") == (number % 2 == 0) for number, name in enumerate(drawn))
    assert Counter(drawn[0::2]) == {"l0": 10, "l1": 10, "l2": 10}
    assert Counter(drawn[1::2]) == dict.fromkeys((f"p{i}" for i in range(5)), 6)


def test_groups_are_shuffled_independently():
    drawn = draw(40, merge(labeled=20, pseudo=20, sampling="balanced"))
    assert [name[1:] for name in drawn[0::2]] != [name[1:] for name in drawn[1::2]]


def test_seed_and_phase_decide_the_order():
    of = merge(labeled=20, pseudo=20)
    orders = {tuple(draw(40, of, seed=seed, phase=phase)) for seed in (1, 2) for phase in (0, 1)}
    assert len(orders) == 4
    assert draw(40, of, seed=1, phase=1) == draw(40, of, seed=1, phase=1)


# Batches

WIDE_AND_TALL = ((8, 4), (4, 8), (4, 8))


def batches(count, of, **arguments):
    arguments = {"batch_size": 3, "seed": 0, "phase": 1, **arguments}
    return list(itertools.islice(PhaseBatches(of, **arguments), count))


def test_batches_cut_the_sequence():
    of = merge()
    found = batches(5, of)
    assert [sample.number for batch in found for sample in batch] == list(range(15))
    assert all(len(batch) == 3 for batch in found)


def test_batches_by_shape_hold_images_of_one_orientation_and_lose_none():
    of = merge(labeled=6, pseudo=9, shapes=WIDE_AND_TALL)
    found = batches(200, of, by_shape=True)
    for batch in found:
        assert len({of.images[s.image]["width"] > of.images[s.image]["height"] for s in batch}) == 1
    numbers = sorted(sample.number for batch in found for sample in batch)
    assert len(set(numbers)) == 600
    assert numbers[-1] < 600 + 2 * 3  # what waits for others of its shape


@given(
    start=st.integers(0, 30),
    world_size=st.integers(1, 3),
    by_shape=st.booleans(),
    sampling=st.sampled_from(["union", "balanced"]),
)
@settings(max_examples=40, deadline=None)
def test_batches_are_a_function_of_their_position(start, world_size, by_shape, sampling):
    of = merge(labeled=4, pseudo=7, sampling=sampling, shapes=WIDE_AND_TALL)
    alone = batches((start + 6) * world_size, of, by_shape=by_shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comm, "get_world_size", lambda: world_size)
        for rank in range(world_size):
            patch.setattr(comm, "get_rank", lambda rank=rank: rank)
            found = batches(6, of, by_shape=by_shape, start=start)
            turns = sampling == "balanced" and world_size == 2  # of batches of three
            steps = range(start, start + 6)
            places = [step * world_size + (rank + step * turns) % world_size for step in steps]
            assert found == [alone[place] for place in places]


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_balanced_steps_of_one_image_per_rank_are_balanced(as_rank, world_size):
    """Each rank sees both kinds in turn, and an even number of them both in each step."""
    of = merge(sampling="balanced")
    drawn = []
    for rank in range(world_size):
        as_rank(rank, world_size)
        drawn.append([of.images[b[0].image]["name"][0] for b in batches(10, of, batch_size=1)])
    assert all("".join(of_rank) in ("lp" * 5, "pl" * 5) for of_rank in drawn)
    if world_size % 2 == 0:
        half = world_size // 2
        assert all(sorted(step) == ["l"] * half + ["p"] * half for step in zip(*drawn, strict=True))


# Whole loaders, of dicts in place of images


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.SEED = 3
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    return cfg


def augment(image):
    """A mapper whose augmentation uses all three random number generators."""
    import random

    return {
        "name": image["name"],
        "drawn": (random.random(), np.random.rand(), torch.rand(1).item()),
    }


def load(cfg, steps, of=None, mapper=augment, **arguments):
    arguments = {"phase": 1, **arguments}
    loader = build_phase_loader(cfg, mapper, of or merge(), **arguments)
    return list(itertools.islice(loader, steps))


@pytest.mark.parametrize("by_shape", [False, True])
def test_augmentation_does_not_depend_on_workers(cfg, by_shape):
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = by_shape
    of = merge(labeled=5, pseudo=6, shapes=WIDE_AND_TALL)
    expected = load(cfg, 7, of)
    assert len({image["drawn"] for batch in expected for image in batch}) == 28
    for workers in (1, 4):
        cfg.DATALOADER.NUM_WORKERS = workers
        assert load(cfg, 7, of) == expected


@pytest.mark.parametrize("sampling", ["union", "balanced"])
def test_loader_resumes_exactly(cfg, sampling):
    of = merge(sampling=sampling, labeled_repeat=2)
    assert load(cfg, 4, of, start=5) == load(cfg, 9, of)[5:]


def test_ranks_together_load_what_one_process_would(cfg, as_rank):
    alone = load(cfg, 4)
    of_ranks = []
    for rank in range(2):
        as_rank(rank, 2)
        of_ranks.append(load(cfg, 4))
    assert [one + other for one, other in zip(*of_ranks, strict=True)] == alone


def numbers_in_steps(cfg, steps, start=0, phase=1):
    """What a step on each batch would draw."""
    loader = build_phase_loader(cfg, augment, merge(), phase=phase, start=start)
    return [(torch.rand(1).item(), np.random.rand()) for _ in itertools.islice(loader, steps)]


def test_steps_are_seeded_by_iteration_phase_and_rank(cfg, as_rank):
    whole = numbers_in_steps(cfg, 6)
    assert len(set(whole)) == 6
    assert numbers_in_steps(cfg, 2, start=4) == whole[4:]
    cfg.DATALOADER.NUM_WORKERS = 2
    assert numbers_in_steps(cfg, 6) == whole
    assert not set(numbers_in_steps(cfg, 6, phase=2)) & set(whole)
    as_rank(1, 2)
    assert not set(numbers_in_steps(cfg, 6)) & set(whole)


def without_p0(image):
    return None if image["name"] == "p0" else augment(image)


@pytest.mark.parametrize("sampling", ["union", "balanced"])
def test_loader_draws_another_image_of_the_group_for_none(cfg, sampling):
    of = merge(sampling=sampling)
    plain, found = load(cfg, 12, of), load(cfg, 12, of, mapper=without_p0)
    for one, other in zip(itertools.chain(*plain), itertools.chain(*found), strict=True):
        if one["name"] == "p0":
            assert other["name"] != "p0"
            assert sampling == "union" or other["name"][0] == "p"
        else:
            assert one == other
    cfg.DATALOADER.NUM_WORKERS = 1
    assert load(cfg, 12, of, mapper=without_p0) == found


def test_loader_whose_images_are_all_refused_says_so(cfg):
    with pytest.raises(ConfigError, match=r"SSOD\.AUG"):
        load(cfg, 1, mapper=lambda image: None)


# Inference


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


def test_inference_loader_leaves_out_batches_that_are_done(cfg, tmp_path, as_rank):
    """Batches stay what they would have been; a batch is made again if one of its images is."""
    file = str(save_picture(tmp_path / "0.png"))
    records = [
        {"file_name": file, "image_id": f"i{number}", "height": 16, "width": 24}
        for number in range(8)
    ]
    cfg.SSOD.INFERENCE_BATCH_SIZE = 2
    done = {"i0": None, "i1": None, "i5": None, "unknown": None}

    def of_rank(rank, world_size, done):
        as_rank(rank, world_size)
        batches = build_inference_loader(cfg, records, done=done)
        return [[image["image_id"] for image in batch] for batch in batches]

    assert of_rank(0, 2, done.keys()) == [["i2", "i3"], ["i6", "i7"]]
    assert of_rank(1, 2, done.keys()) == [["i4", "i5"]]
    assert of_rank(0, 1, {r["image_id"] for r in records}) == []
    assert of_rank(0, 1, {"i0", "i2", "i3", "i6", "i7"}) == [["i0", "i1"], ["i4", "i5"]]


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


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_inference_batches_are_the_same_for_any_number_of_ranks(cfg, tmp_path, as_rank, world_size):
    file = str(save_picture(tmp_path / "0.png"))
    cfg.SSOD.INFERENCE_BATCH_SIZE = 3
    records = [
        {"file_name": file, "image_id": number, "height": 16, "width": 24} for number in range(8)
    ]
    found = []
    for rank in range(world_size):
        as_rank(rank, world_size)
        loader = build_inference_loader(cfg, records)
        found += [[image["image_id"] for image in batch] for batch in loader]
    assert sorted(found) == [[0, 1, 2], [3, 4, 5], [6, 7]]


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_pictures_of_the_original_size_are_as_they_are(cfg, tmp_path, image_format):
    file = str(save_picture(tmp_path / "0.png"))
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST = image_format, 99
    record = {"file_name": file, "image_id": 0, "height": 16, "width": 24}
    (((mapped),),) = build_inference_loader(cfg, [record], original_size=True)
    expected = detection_utils.read_image(file, image_format).transpose(2, 0, 1)
    assert (mapped["image"].numpy() == expected).all()


def test_segmentations_are_not_opened(tmp_path):
    path = save_picture(tmp_path / "a.png")
    record = {"file_name": str(path), "image_id": 1, "sem_seg_file_name": "/no/such/file.png"}
    (batch,) = build_inference_loader(bare_config(tmp_path), [record])
    assert batch[0]["image_id"] == 1


@pytest.mark.parametrize("other", [{"phase": 2}, {"seed": 4}])
def test_augmentation_is_another_in_each_phase_and_with_each_seed(cfg, other):
    """The samples are numbered alike, whatever images they are."""

    def drawn(seed=3, phase=1):
        cfg.SEED = seed
        return [image["drawn"] for batch in load(cfg, 4, phase=phase) for image in batch]

    assert not set(drawn()) & set(drawn(**other))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [None, b"", "other size"])
def test_a_picture_that_cannot_be_read_any_more_is_named(tmp_path, workers, content):
    path = tmp_path / "a.png"
    if content == "other size":
        save_picture(path, 30, 20)
    elif content is not None:
        path.write_bytes(content)
    cfg = bare_config(tmp_path)
    cfg.DATALOADER.NUM_WORKERS = workers
    image = {"file_name": str(path), "image_id": 1, "width": 40, "height": 20}
    with pytest.raises(ConfigError) as caught:
        list(build_inference_loader(cfg, [image]))
    assert re.fullmatch(
        rf"{path}: cannot be read any more \([^\n]+\); restore it, then start again "
        r"\(training with --resume\)",
        str(caught.value),
    )
    assert "Traceback" not in str(caught.value)


def test_of_no_images_there_is_nothing_to_predict(cfg):
    assert list(build_inference_loader(cfg, [])) == []


def test_loader_gathers_orientations_as_the_config_says(cfg):
    of = merge(labeled=6, pseudo=9, shapes=WIDE_AND_TALL)

    def is_mixed(by_shape):
        cfg.DATALOADER.ASPECT_RATIO_GROUPING = by_shape
        loaded = itertools.islice(build_phase_loader(cfg, lambda image: image, of, phase=1), 30)
        return any(len({i["width"] > i["height"] for i in batch}) > 1 for batch in loaded)

    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = 3, 0
    assert is_mixed(False)
    assert not is_mixed(True)

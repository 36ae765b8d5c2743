"""Loaders: of a phase, labeled images alone or with pseudo-labeled ones; and for inference."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.utils import comm
from torch.utils.data import DataLoader, Sampler


class StreamSampler(Sampler[int]):
    """Endless shuffled indices of several groups of images, drawn in turn.

    Each group is shuffled anew once all its images were drawn. Rank r of W takes every W-th image
    of each group, so the ranks together draw what one process would. With one group this is
    uniform sampling; with a group of labeled and one of pseudo-labeled images, every other image
    of a batch is labeled: rank r begins with group r, so that this holds where each rank has an
    odd number of images, too.
    """

    def __init__(self, groups: list[range], *, seed: int, start: int = 0) -> None:
        """Groups that are empty are left out.

        Args:
            groups: indices of the images of each group.
            seed: the same on all ranks.
            start: images that this rank has drawn before an interruption, to be skipped.
        """
        self._groups = [group for group in groups if len(group) > 0]
        self._seed = seed
        self._start = start
        self._rank, self._world_size = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        streams = [
            itertools.islice(self._endless(number), self._rank, None, self._world_size)
            for number in range(len(self._groups))
        ]
        first = self._rank % max(len(streams), 1)
        in_turn = (next(stream) for stream in itertools.cycle(streams[first:] + streams[:first]))
        return itertools.islice(in_turn, self._start, None)

    def _endless(self, number: int) -> Iterator[int]:
        group = self._groups[number]
        generator = torch.Generator()
        seed = np.random.SeedSequence([self._seed, number]).generate_state(1)[0]
        generator.manual_seed(int(seed))
        while True:
            order = torch.randperm(len(group), generator=generator)
            yield from (group[position] for position in order.tolist())


def build_phase_loader(
    cfg: CfgNode,
    mapper: Callable[[dict], dict | None],
    labeled: list[dict],
    pseudo: list[dict],
    *,
    labeled_repeat: int,
    seed: int,
    iterations_done: int = 0,
) -> DataLoader:
    """An endless loader over labeled and pseudo-labeled images.

    Args:
        cfg: batch size, workers and ``SSOD.SAMPLING``.
        mapper: what turns a data set dict into a model input.
        labeled: dicts of the labeled images.
        pseudo: dicts of the selected pseudo-labeled images; empty in phase 0.
        labeled_repeat: how often each labeled image stands in the union of both.
        seed: of the order of the images, the same on all ranks.
        iterations_done: iterations of the phase that have been trained before an interruption.
    """
    dataset = labeled + pseudo
    if not pseudo:
        groups = [range(len(labeled))]
    elif cfg.SSOD.SAMPLING == "balanced":
        groups = [range(len(labeled)), range(len(labeled), len(dataset))]
    else:
        dataset = labeled * labeled_repeat + pseudo
        groups = [range(len(dataset))]
    images_per_step = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
    return build_detection_train_loader(
        dataset,
        mapper=mapper,
        sampler=StreamSampler(groups, seed=seed, start=iterations_done * images_per_step),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def build_inference_loader(
    cfg: CfgNode,
    images: list[dict],
    *,
    original_size: bool = False,
    done: Collection[int | str] = (),
) -> DataLoader:
    """A loader that gives each image once; rank r of W has every W-th.

    So images that take long, which often lie side by side, are shared out.

    Args:
        cfg: sizes and format of the images, batch size, workers.
        images: data set dicts.
        original_size: leave resizing to the model, as multi-transform inference does.
        done: ``image_id`` of those to be left out; a set or a mapping.
    """
    if original_size:
        mapper = DatasetMapper(is_train=False, augmentations=[], image_format=cfg.INPUT.FORMAT)
    else:
        mapper = DatasetMapper(cfg, is_train=False)
    own = range(comm.get_rank(), len(images), comm.get_world_size())
    return build_detection_test_loader(
        images,
        mapper=mapper,
        sampler=[number for number in own if images[number]["image_id"] not in done],
        batch_size=cfg.SSOD.INFERENCE_BATCH_SIZE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )

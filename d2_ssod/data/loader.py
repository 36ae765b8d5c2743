"""Batches: of a phase, labeled images alone or with pseudo-labeled ones; and for inference.

Which images stand in a batch, and how each is augmented, is a pure function of the batch's
position. So a run that is resumed, or has another number of workers, trains on the same batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, DatasetMapper, build_detection_test_loader
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from d2_ssod.errors import ConfigError, one_line
from d2_ssod.randomness import Purpose, derive_seed, seed_generators

from .workers import obey_own_process_only

_MAX_DRAWS = 1000  # of one sample, until an image is left with a box


class Sample(NamedTuple):
    """Which image stands at a place of the endless sequence that a phase trains on."""

    number: int
    image: int


@dataclass(frozen=True)
class PhaseImages:
    """The images of a phase, and how they are drawn.

    Attributes:
        images: data set dicts, each once; stored serialized, and made anew at each access: as
            objects of Python's, the boxes of all images would take far more memory.
        groups: indices of the images of each group; groups take turns, and within a group each
            entry is drawn once before any is drawn again.
    """

    images: DatasetFromList
    groups: list[list[int]]

    @classmethod
    def merge(
        cls, labeled: list[dict], pseudo: list[dict], *, sampling: str, labeled_repeat: int
    ) -> PhaseImages:
        """Merge labeled and pseudo-labeled images.

        Args:
            labeled: dicts of the labeled images.
            pseudo: dicts of the selected pseudo-labeled images; empty in phase 0.
            sampling: ``SSOD.SAMPLING``.
            labeled_repeat: how often each labeled image stands in the union of both.
        """
        of_labeled = list(range(len(labeled)))
        of_pseudo = list(range(len(labeled), len(labeled) + len(pseudo)))
        if not pseudo:
            groups = [of_labeled]
        elif sampling == "balanced":
            groups = [of_labeled, of_pseudo]
        else:
            groups = [of_labeled * labeled_repeat + of_pseudo]
        return cls(DatasetFromList(labeled + pseudo, copy=False), groups)

    def samples(self, seed: int, phase: int) -> Iterator[Sample]:
        """Yield the endless sequence of what is drawn."""
        streams = [self._shuffled(seed, phase, number) for number in range(len(self.groups))]
        in_turn = (next(stream) for stream in itertools.cycle(streams))
        return itertools.starmap(Sample, enumerate(in_turn))

    def _shuffled(self, seed: int, phase: int, number: int) -> Iterator[int]:
        """Yield a group's indices, shuffled anew once all were drawn."""
        group = self.groups[number]
        for epoch in itertools.count():
            own_seed = derive_seed(seed, phase, Purpose.ORDER, number, epoch)
            yield from (group[i] for i in np.random.default_rng(own_seed).permutation(len(group)))


class PhaseBatches(Sampler[list[Sample]]):
    """This process's endless batches; each of W ranks takes one of every W of the sequence of all.

    With ``by_shape``, landscape and portrait pictures are gathered in batches of their own, which
    saves padding; a sample then waits until there are enough of its shape.
    """

    def __init__(
        self,
        images: PhaseImages,
        *,
        batch_size: int,
        seed: int,
        phase: int,
        by_shape: bool = False,
        start: int = 0,
    ) -> None:
        """Describe the sequence.

        Args:
            images: the images of the phase.
            batch_size: images per process and step.
            seed: of the run, the same on all ranks.
            phase: 0..N.
            by_shape: gather images of one orientation; their dicts need ``width`` and ``height``.
            start: the step to begin with.
        """
        self._images, self._batch_size = images, batch_size
        self._seed, self._phase, self._start = seed, phase, start
        self._by_shape = by_shape

    def __iter__(self) -> Iterator[list[Sample]]:
        rank, world_size = comm.get_rank(), comm.get_world_size()
        # Two groups take turns. Of odd batches and an even number of processes, every second one
        # would have the images of one group alone, or more of them, for ever: they take turns, too.
        is_odd = self._batch_size % 2 == 1 and world_size % 2 == 0
        turns = len(self._images.groups) > 1 and is_odd
        batches = itertools.islice(self._of_all(), self._start * world_size, None)
        for step in itertools.count(self._start):
            of_step = list(itertools.islice(batches, world_size))
            yield of_step[(rank + step * turns) % world_size]

    def _of_all(self) -> Iterator[list[Sample]]:
        waiting: dict[bool, list[Sample]] = {False: [], True: []}
        is_wide = self._which_are_wide()
        for sample in self._images.samples(self._seed, self._phase):
            batch = waiting[is_wide[sample.image]]
            batch.append(sample)
            if len(batch) == self._batch_size:
                yield batch.copy()
                batch.clear()

    def _which_are_wide(self) -> list[bool]:
        """Tell of each image whether it is; of none where that does not matter."""
        images = self._images.images
        if not self._by_shape:
            return [False] * len(images)
        in_order = (images[number] for number in range(len(images)))
        return [image["width"] > image["height"] for image in in_order]


@dataclass(frozen=True)
class _Naming:
    """A mapper that names a picture which cannot be read any more; all could, at the start."""

    mapper: Callable[[dict], dict | None]

    def __call__(self, image: dict) -> dict | None:
        try:
            return self.mapper(image)
        except (OSError, SizeMismatchError) as error:
            raise ConfigError(
                f"{image['file_name']}: cannot be read any more ({one_line(error)}); restore it, "
                "then start again (training with --resume)"
            ) from error


class _MappedSamples(Dataset):
    """The model input of a sample, with the augmentation that belongs to its place."""

    def __init__(
        self, images: PhaseImages, mapper: Callable[[dict], dict | None], seed: int, phase: int
    ) -> None:
        self._images, self._groups = images.images, images.groups
        self._mapper, self._seed, self._phase = _Naming(mapper), seed, phase

    def __getitem__(self, sample: Sample) -> dict:
        """Map the image; where the mapper gives None, another one of its group."""
        image = sample.image
        for draw in range(_MAX_DRAWS):
            place = (sample.number, draw)
            seed_generators(derive_seed(self._seed, self._phase, Purpose.SAMPLE, *place))
            mapped = self._mapper(self._images[image])
            if mapped is not None:
                return mapped
            group = next(group for group in self._groups if sample.image in group)
            image = group[np.random.randint(len(group))]
        raise ConfigError(
            f"the augmentation removed all boxes of {_MAX_DRAWS} images in a row; weaken SSOD.AUG "
            "or INPUT.CROP"
        )


def build_phase_loader(
    cfg: CfgNode,
    mapper: Callable[[dict], dict | None],
    images: PhaseImages,
    *,
    phase: int,
    start: int = 0,
) -> Iterator[list[dict]]:
    """Yield the endless batches of a phase, for this process.

    With each batch, the random number generators are seeded for the step that is made on it, such
    as for the sampling of anchors and RoIs: a function of seed, phase, iteration and rank.

    Args:
        cfg: ``SEED``, the total batch size, and ``DATALOADER``.
        mapper: what turns a data set dict into a model input; None to have another image drawn.
        images: the images of the phase.
        phase: 0..N.
        start: the iteration to begin with, after an interruption.
    """
    loader = DataLoader(
        _MappedSamples(images, mapper, cfg.SEED, phase),
        batch_sampler=PhaseBatches(
            images,
            batch_size=cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
            seed=cfg.SEED,
            phase=phase,
            by_shape=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            start=start,
        ),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=list,
        # Its own: making the loader's iterator must not advance the global one.
        generator=torch.Generator(),
        worker_init_fn=obey_own_process_only,
    )
    for iteration, batch in enumerate(loader, start):
        seed_generators(derive_seed(cfg.SEED, phase, Purpose.STEP, iteration, comm.get_rank()))
        yield batch


def build_inference_loader(
    cfg: CfgNode,
    images: Sequence[dict],
    *,
    original_size: bool = False,
    done: Collection[int | str] = (),
) -> DataLoader:
    """Build a loader of each image once, in batches that depend on nothing but the images.

    Rank r of W takes every W-th batch: images that take long, which often lie side by side, are
    shared out. A batch is left out once all its images are done.

    Args:
        cfg: sizes and format of the images, batch size, workers.
        images: data set dicts.
        original_size: leave resizing to the model, as multi-transform inference does.
        done: ``image_id`` of those that need not be given; a set or a mapping.
    """
    if not images:  # of which Detectron2 makes no data set
        return DataLoader([])
    if original_size:
        mapper = DatasetMapper(is_train=False, augmentations=[], image_format=cfg.INPUT.FORMAT)
    else:
        mapper = DatasetMapper(cfg, is_train=False)
    size = cfg.SSOD.INFERENCE_BATCH_SIZE
    starts = range(0, len(images), size)
    batches = [range(start, min(start + size, len(images))) for start in starts]
    remaining = [
        batch for batch in batches if any(images[i]["image_id"] not in done for i in batch)
    ]
    # Only the last batch can be a short one, so that the loader cuts where the batches end.
    own = itertools.chain.from_iterable(remaining[comm.get_rank() :: comm.get_world_size()])
    loader = build_detection_test_loader(
        # Detectron2's mapper would open segmentations, which nothing looks at.
        [{k: v for k, v in image.items() if k != "sem_seg_file_name"} for image in images],
        mapper=_Naming(mapper),
        sampler=list(own),
        batch_size=size,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    loader.worker_init_fn = obey_own_process_only
    return loader

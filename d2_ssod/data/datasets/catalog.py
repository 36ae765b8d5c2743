"""Data sets that this project reads: registered by name, loaded when first asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from detectron2.data import DatasetCatalog, MetadataCatalog

from d2_ssod.class_lists import describe_difference
from d2_ssod.errors import ConfigError

from ..findings import Finding, Findings, raise_first
from .records import read_records


@dataclass(frozen=True)
class DataSet:
    """What was read from a user's files.

    Attributes:
        images: Detectron2's dicts; those of an unlabeled data set have no ``annotations``. An
            annotation has ``bbox``, ``bbox_mode``, ``category_id`` (contiguous), ``iscrowd`` and
            ``area`` (square pixels), and neither masks nor keypoints: only boxes are trained.
        thing_classes: names of the classes; None if the files name none.
        category_ids: the files' own id of each class; empty if they have none.
        findings: what is wrong or odd.
    """

    images: list[dict]
    thing_classes: list[str] | None = None
    category_ids: Sequence[int | str] = ()
    findings: Findings = field(default_factory=Findings)

    def usable_images(self) -> list[dict]:
        """Give the images, after the warnings.

        Raises:
            ConfigError: the first thing in the files that cannot be used.
        """
        raise_first(self.findings)
        return self.images


class Files(Protocol):
    """Where a data set lies and how it is laid out; two of the same are equal."""

    def read(self) -> DataSet:
        """Read it anew.

        Raises:
            ConfigError: it cannot be read at all.
        """


@dataclass(frozen=True)
class DataSource:
    """What is registered under a name in Detectron2's ``DatasetCatalog``."""

    name: str
    files: Files

    def __call__(self) -> list[dict]:
        """Load the images, as Detectron2 asks for them.

        Raises:
            ConfigError: the first thing in the files that cannot be used.
        """
        return self.read().usable_images()

    def read(self) -> DataSet:
        """Read the files, and complete the metadata by the classes that they name."""
        data_set = self.files.read()
        if data_set.thing_classes is not None and not data_set.findings.has_errors:
            self._complete_metadata(data_set)
        return data_set

    def _complete_metadata(self, data_set: DataSet) -> None:
        metadata = MetadataCatalog.get(self.name)
        known = metadata.get("thing_classes", data_set.thing_classes)
        if list(known) != data_set.thing_classes:
            data_set.findings.error(
                self.name,
                "other classes than expected",
                "the classes are not those of this name: "
                f"{describe_difference(data_set.thing_classes, known)}",
                "use the file that belongs to this name, or register yours in SSOD.REGISTER",
            )
            return
        metadata.set(thing_classes=data_set.thing_classes)
        numbers = {category_id: number for number, category_id in enumerate(data_set.category_ids)}
        if numbers and metadata.get("thing_dataset_id_to_contiguous_id", numbers) == numbers:
            metadata.set(thing_dataset_id_to_contiguous_id=numbers)


def is_registered_otherwise(name: str) -> bool:
    """Tell whether a name is that of a data set that was registered without this package."""
    return name in DatasetCatalog and not isinstance(DatasetCatalog[name], DataSource)


def register_files(name: str, files: Files, **metadata: Any) -> None:
    """Register a data set; nothing is read yet.

    Args:
        name: nothing else may be registered by it; the same files may be.
        files: where it lies.
        metadata: what is known beforehand.

    Raises:
        ConfigError: the name is taken.
    """
    source = DataSource(name, files)
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, source)
        MetadataCatalog.get(name).set(**metadata)
    elif DatasetCatalog[name] != source:
        raise ConfigError(
            f"{name!r} is already the name of another data set; choose another one, or, to read "
            f"other files by it in the same process, call DatasetCatalog.remove({name!r}) and "
            f"MetadataCatalog.remove({name!r}) first"
        )


def read_data_set(name: str) -> DataSet:
    """Read a registered data set and all that is found in it; also one that others registered.

    Args:
        name: what cannot be read at all is an error among the findings.
    """
    source = DatasetCatalog[name]
    try:
        if isinstance(source, DataSource):
            return source.read()
        images = source()
    except ConfigError as error:
        return DataSet([], findings=Findings([_unreadable(str(error))]))
    except OSError as error:
        problem = f"{name}: cannot be read ({error}); correct the path"
        return DataSet([], findings=Findings([_unreadable(problem)]))
    classes, findings = MetadataCatalog.get(name).get("thing_classes"), Findings()
    if not is_of_detectron2(name):
        images = read_records(name, images, findings)
    return DataSet(images, None if classes is None else list(classes), findings=findings)


def is_of_detectron2(name: str) -> bool:
    """Tell whether a data set is read by a function of Detectron2's, also of one's own files."""
    function = DatasetCatalog.data.get(name)
    while isinstance(function, functools.partial):
        function = function.func
    return (getattr(function, "__module__", None) or "").startswith("detectron2.")


def category_ids_of(name: str) -> list[int | str]:
    """List the category id of each class in the data set's own files, as the metadata knows it.

    Raises:
        ConfigError: it gives a class none.
    """
    metadata = MetadataCatalog.get(name)
    numbers = metadata.get("thing_dataset_id_to_contiguous_id")
    classes = len(metadata.thing_classes)
    if not numbers:
        return list(range(classes))
    first: dict[int, int | str] = {}  # several ids may be one class here
    for category_id, number in numbers.items():
        first.setdefault(number, category_id)
    if without := sorted(set(range(classes)) - set(first)):
        raise ConfigError(
            f"{name}: thing_dataset_id_to_contiguous_id in its metadata is {dict(numbers)}, which "
            f"has no id for class {without[0]} of the {classes} thing_classes; add one"
        )
    return [first[number] for number in range(classes)]


def with_unique_ids(images: list[dict]) -> list[dict]:
    """Give images new ids, from 1 on, where data sets that count for themselves share ids."""
    if len({image["image_id"] for image in images}) == len(images):
        return images
    return [{**image, "image_id": number} for number, image in enumerate(images, start=1)]


def _unreadable(problem: str) -> Finding:
    return Finding("error", "", "data sets that cannot be read", (problem,), "", 1)

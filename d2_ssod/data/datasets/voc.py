"""Pascal VOC's XML files: the official layout, and folders as labeling tools write them."""

from __future__ import annotations

import functools
import logging
import os
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from typing import Any, Literal

from d2_ssod.errors import ConfigError
from d2_ssod.file_names import base_name

from ..findings import Findings
from ..images import EXTENSIONS, ImageError, map_threaded, read_size, size_or_error
from .boxes import corner_annotation, is_usable
from .catalog import DataSet
from .folder import is_image_name
from .values import as_flag, as_number, as_whole

logger = logging.getLogger(__name__)

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_OWN_CLASSES = (
    "correct it; data sets with classes of their own are registered in SSOD.REGISTER, with CLASSES"
)


@dataclass(frozen=True)
class VocFolder:
    """A folder of VOC annotation files, and its pictures.

    Attributes:
        folder: with ``Annotations`` and ``JPEGImages``, as VOC has them, or with XML files and
            pictures side by side.
        split: which ``ImageSets/Main/<split>.txt`` lists the images; empty: ``list_file`` does.
        list_file: text file with an image per line; empty: every XML file is of an image.
        image_root: folder of the pictures where it is not in ``folder``.
        class_names: their order gives the category ids. None: those in the files, sorted.
        annotations: False: pictures alone; XML files need not be there.
        difficult: what becomes of objects marked so: ``drop`` them, as the method trains without
            them, or make them a ``crowd``, which is neither trained nor counted.
        advice: what to do if files are missing.
    """

    folder: str
    split: str = ""
    list_file: str = ""
    image_root: str = ""
    class_names: tuple[str, ...] | None = None
    annotations: bool = True
    difficult: Literal["drop", "crowd"] = "crowd"
    advice: str = field(default="correct the path", compare=False)

    def read(self) -> DataSet:
        """Read it. What cannot be understood is among the findings.

        Boxes are converted as by Detectron2: 1-based inclusive pixels to continuous XYXY
        coordinates, (x0 - 1, y0 - 1, x1, y1). Corners may be decimals, in any order; ``size`` may
        be missing (taken from the picture), and so may ``pose``, ``truncated``, ``difficult``.

        Raises:
            ConfigError: there is no such folder or list.
        """
        findings = Findings()
        names = self._image_names()
        pictures = self._pictures()
        read = functools.partial(self._read_image, pictures=pictures)
        found = list(map_threaded(read, names, description=f"Reading {self.folder}"))
        images = [record for record, _ in found]
        for _, of_image in found:
            findings.extend(of_image)
        if not self.annotations:
            return DataSet(images, findings=findings)
        classes = self._number_classes(images, findings)
        if self.difficult == "drop":
            self._drop_difficult(images)
        return DataSet(images, classes, findings=findings)

    def _image_names(self) -> list[str]:
        """List the images as the list, or the XML files, name them."""
        path = self.list_file
        if self.split:
            path = os.path.join(self.folder, "ImageSets", "Main", f"{self.split}.txt")
        try:
            if not path:
                return sorted(
                    os.path.splitext(name)[0]
                    for name in os.listdir(self._annotation_folder())
                    if name.lower().endswith(".xml") and not name.startswith(".")
                )
            with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
                # The per-class lists have a second column; the first one is the image everywhere.
                names = [line.split()[0] for line in file if line.strip()]
        except OSError as error:
            raise ConfigError(
                f"{path or self.folder}: cannot be read ({error.strerror}); {self.advice}"
            ) from None
        return [_stem(name) for name in names]

    def _annotation_folder(self) -> str:
        own = os.path.join(self.folder, "Annotations")
        return own if os.path.isdir(own) else self.folder

    def _image_folder(self) -> str:
        places = (os.path.join(self.folder, name) for name in ("JPEGImages", "images", "Images"))
        return self.image_root or next(filter(os.path.isdir, places), self.folder)

    def _pictures(self) -> dict[str, str]:
        """Find each picture, by its name without extension."""
        folder = self._image_folder()
        if not os.path.isdir(folder):
            return {}
        names = filter(is_image_name, sorted(os.listdir(folder), reverse=True))
        return {os.path.splitext(name)[0]: os.path.join(folder, name) for name in names}

    def _read_image(self, name: str, pictures: dict[str, str]) -> tuple[dict[str, Any], Findings]:
        """Read one image; its annotations have the class's name as ``category_id``."""
        findings = Findings()
        path = pictures.get(name, os.path.join(self._image_folder(), f"{name}.jpg"))
        record: dict[str, Any] = {"file_name": path, "image_id": name}
        root = self._parse(name, findings) if self.annotations else None
        size = [as_whole(_text(root, f"size/{side}")) or 0 for side in ("height", "width")]
        if min(size) <= 0:
            size = size_or_error(read_size, path)
        if not isinstance(size, ImageError):
            record["height"], record["width"] = size
        elif not self.annotations:
            findings.error(
                self.folder,
                "bad images",
                f"{path} {size}",
                "replace it or take it off the list",
            )
        if root is not None:
            record["annotations"] = self._annotations(root, name, record, findings)
        return record, findings

    def _parse(self, name: str, findings: Findings) -> ElementTree.Element | None:
        path = self._xml_file(name)
        try:
            return ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
            findings.error(
                self.folder,
                "annotation files that cannot be read",
                f"{path} is not a VOC annotation file ({error})",
                "correct it, or take the image out of the list",
            )
            return None

    def _xml_file(self, name: str) -> str:
        return os.path.join(self._annotation_folder(), f"{name}.xml")

    def _annotations(
        self, root: ElementTree.Element, name: str, record: dict, findings: Findings
    ) -> list[dict]:
        kept = []
        for number, item in enumerate(root.findall("object"), start=1):
            class_name = _text(item, "name")
            who = f"{name}.xml: object {number} ({class_name or 'no name'})"
            corners = [as_number(_text(item, f"bndbox/{corner}")) for corner in _CORNERS]
            difficult = as_flag(_text(item, "difficult"))
            if not class_name or None in corners or difficult is None:
                findings.error(
                    self.folder,
                    "objects that cannot be read",
                    f"{who} has the corners {corners} and difficult {_text(item, 'difficult')!r}",
                    f"every object needs a name and a bndbox with {', '.join(_CORNERS)}",
                )
                continue
            (x0, x1), (y0, y1) = (sorted(corners[i::2]) for i in (0, 1))
            if [x0, y0, x1, y1] != corners:
                findings.warning(
                    self.folder,
                    "boxes with exchanged corners",
                    f"{who} has xmin above xmax, or ymin above ymax; they are exchanged",
                    "correct the file",
                )
            box = [x0 - 1.0, y0 - 1.0, float(x1), float(y1)]
            if is_usable(box, record, self.folder, who, findings):
                kept.append(corner_annotation(class_name, box, is_crowd=difficult))
        return kept

    def _number_classes(self, images: list[dict], findings: Findings) -> list[str]:
        """Put the number of the class into each annotation in place of its name."""
        in_files = {a["category_id"] for record in images for a in record.get("annotations", ())}
        names = sorted(in_files) if self.class_names is None else list(self.class_names)
        numbers = {name: number for number, name in enumerate(names)}
        for record in images:
            for annotation in record.get("annotations", ()):
                name = annotation["category_id"]
                if name not in numbers:
                    findings.error(
                        self.folder,
                        "unknown classes",
                        f"{record['image_id']}.xml has an object of the class {name!r}, which is "
                        f"not one of {', '.join(names)}",
                        _OWN_CLASSES,
                    )
                annotation["category_id"] = numbers.get(name, -1)
        return names

    def _drop_difficult(self, images: list[dict]) -> None:
        dropped = 0
        for record in images:
            kept = [a for a in record.get("annotations", ()) if not a["iscrowd"]]
            dropped += len(record.get("annotations", ())) - len(kept)
            record["annotations"] = kept
        logger.info(
            "%s %s: %d images; left out %d difficult objects",
            *(self.folder, self.split, len(images), dropped),
        )


def _stem(name: str) -> str:
    """Take the image's name out of a list's entry, which may be a path with an extension."""
    base = base_name(name)
    stem, extension = os.path.splitext(base)
    return stem if extension.lower() in EXTENSIONS | {".xml"} else base


def _text(item: ElementTree.Element | None, path: str) -> str:
    return "" if item is None else (item.findtext(path) or "").strip()

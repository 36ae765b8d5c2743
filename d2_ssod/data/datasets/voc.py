"""Pascal VOC's XML files: the official layout, and folders as labeling tools write them."""

from __future__ import annotations

import functools
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from d2_ssod.errors import ConfigError
from d2_ssod.file_names import base_name, parts_of
from d2_ssod.values import as_flag, as_number, as_whole

from ..findings import Findings
from ..images import EXTENSIONS, ImageError, map_threaded, read_size, size_or_error
from .boxes import corner_annotation, is_usable, warn_of_copies
from .catalog import DataSet
from .folder import is_image_name, walk_files

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_EXTENSIONS = EXTENSIONS | {".xml"}
_PARTS = frozenset({"train", "val", "valid", "validation", "test"})
_OWN_CLASSES = (
    "correct it; data sets with classes of their own are registered in SSOD.REGISTER, with CLASSES"
)


@dataclass(frozen=True)
class VocFolder:
    """A folder of VOC annotation files, and its pictures.

    Both may be in sub-folders. A picture belongs to the XML file of the same path in its own
    folder, without extension; this path, with ``/``, is the image's name and id. Objects marked
    difficult are crowds here, which are neither trained on nor counted.

    Attributes:
        folder: with ``Annotations`` and ``JPEGImages``, as VOC has them, ``labels`` and ``data``,
            as FiftyOne does, or with XML files and pictures side by side.
        split: which ``ImageSets/Main/<split>.txt`` lists the images; empty: ``list_file`` does.
        list_file: text file with an image per line; empty: every XML file is of an image.
        image_root: folder of the pictures where it is not in ``folder``.
        class_names: their order gives the category ids. None: those in the files, sorted.
        annotations: False: pictures alone; XML files need not be there.
        advice: what to do if files are missing.
    """

    folder: str
    split: str = ""
    list_file: str = ""
    image_root: str = ""
    class_names: tuple[str, ...] | None = None
    annotations: bool = True
    advice: str = field(default="correct the path", compare=False)

    def read(self) -> DataSet:
        """Read it. What cannot be understood is among the findings.

        Boxes are converted as by Detectron2: 1-based inclusive pixels to continuous XYXY
        coordinates, (x0 - 1, y0 - 1, x1, y1). Corners may be decimals, in any order; ``size`` may
        be missing (taken from the picture), and so may ``pose``, ``truncated``, ``difficult``.

        Raises:
            ConfigError: there is no such folder or list, or no XML file.
        """
        findings = Findings()
        listed = self._listed()
        files = self._find_files(with_annotations=self.annotations or listed is None)
        if listed is None:
            self._check_one_part(files)
        names = sorted(files.annotations) if listed is None else list(map(files.find, listed))
        read = functools.partial(self._read_image, files=files)
        found = list(map_threaded(read, names, description=f"Reading {self.folder}"))
        images = [record for record, _ in found]
        for _, of_image in found:
            findings.extend(of_image)
        if not self.annotations:
            return DataSet(images, findings=findings)
        classes = self._number_classes(images, findings)
        warn_of_copies(images, self.folder, findings)
        return DataSet(images, classes, findings=findings)

    def _listed(self) -> list[str] | None:
        """Read the lines of the list; None if there is none."""
        path = self.list_file
        if self.split:
            path = os.path.join(self.folder, "ImageSets", "Main", f"{self.split}.txt")
        if not path:
            return None
        try:
            with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
                return [line.strip() for line in file if line.strip()]
        except OSError as error:
            self._refuse(error, path)

    def _refuse(self, error: OSError, path: str = "") -> NoReturn:
        raise ConfigError(
            f"{path or error.filename}: cannot be read ({error.strerror}); {self.advice}"
        ) from None

    def _annotation_folder(self) -> str:
        return self._first_of("Annotations", "annotations") or self._of_fiftyone(0) or self.folder

    def _image_folder(self) -> str:
        own = self._first_of("JPEGImages", "images", "Images") or self._of_fiftyone(1)
        return self.image_root or own or self.folder

    def _of_fiftyone(self, number: int) -> str:
        """Give one of the folders that its exports have: either name alone may mean anything."""
        both = [self._first_of(name) for name in ("labels", "data")]
        return both[number] if all(both) else ""

    def _first_of(self, *names: str) -> str:
        places = (os.path.join(self.folder, name) for name in names)
        return next(filter(os.path.isdir, places), "")

    def _find_files(self, *, with_annotations: bool) -> _Files:
        """Find the pictures and XML files, in one walk of each folder."""
        images, annotations = self._image_folder(), self._annotation_folder()
        folders = {images} if os.path.isdir(images) else set()
        if with_annotations:
            folders.add(annotations)
        walked = {folder: list(walk_files(folder, self._refuse)) for folder in folders}
        xml = list(filter(_is_xml_name, walked.get(annotations, ()))) if with_annotations else []
        if with_annotations and not xml:
            raise ConfigError(
                f"{annotations}: was read as Pascal VOC, but there are no .xml files in it or its "
                f"sub-folders; {self.advice}, or for YOLO name its data.yaml (where a tool has "
                "written none, write it: train: images, val: images, names: [cat, dog])"
            )
        below = os.path.join(images, "")
        if annotations == self.folder and all(path.startswith(below) for path in xml):
            annotations = images  # side by side, in a folder of the pictures
        pictures = filter(is_image_name, walked.get(images, ()))
        first_xml = {name: paths[0] for name, paths in _by_name(xml, annotations).items()}
        return _Files(first_xml, _by_name(pictures, images), annotations, images)

    def _check_one_part(self, files: _Files) -> None:
        """Refuse what has test images beside those to be learned, as Roboflow's exports."""
        parts = sorted({name.split("/")[0] for name in files.annotations if "/" in name} & _PARTS)
        if len(parts) > 1:
            raise ConfigError(
                f"{files.annotation_folder}: has annotations of several parts, {', '.join(parts)}; "
                "give one as a folder of its own, or list its images (SPLIT or LIST)"
            )

    def _read_image(self, name: str, files: _Files) -> tuple[dict[str, Any], Findings]:
        """Read one image; its annotations have the class's name as ``category_id``."""
        findings = Findings()
        root = self._parse(files.xml(name), findings) if self.annotations else None
        path = self._picture(name, files, findings)
        record: dict[str, Any] = {"file_name": path, "image_id": name}
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

    def _picture(self, name: str, files: _Files, findings: Findings) -> str:
        """Find the picture of a name; of several (``1.jpg``, ``1.png``) the one that is written."""
        candidates = files.pictures.get(name) or [
            os.path.join(files.image_folder, f"{name}.jpg")  # missing; it would be here
        ]
        if len(candidates) == 1:
            return candidates[0]
        # Also where annotations are left out: the data set has the same pictures.
        written = _written_name(files.xml(name))
        found = next((p for p in candidates if os.path.basename(p) == written), None)
        if found is None:
            findings.warning(
                self.folder,
                "pictures of one name",
                f"{candidates[0]} is taken for {name!r}, not {candidates[1]}",
                "give pictures names that differ without the extension, too",
            )
        return found or candidates[0]

    def _parse(self, path: str, findings: Findings) -> ElementTree.Element | None:
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
            if x0 < 1 or y0 < 1:
                findings.warning(
                    self.folder,
                    "boxes that begin before the first pixel",
                    f"{who} has xmin {x0:g} and ymin {y0:g}, but VOC counts pixels from 1",
                    "if the tool counts from 0, as CVAT does, add 1 to xmin and ymin of all files",
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


@dataclass(frozen=True)
class _Files:
    """Where the XML file and the picture of each name are.

    Attributes:
        annotations: paths of XML files, by name.
        pictures: paths of pictures, by name; several where they differ in the extension alone.
        annotation_folder: where a missing XML file should be.
        image_folder: where a missing picture should be.
    """

    annotations: dict[str, str]
    pictures: dict[str, list[str]]
    annotation_folder: str
    image_folder: str

    def xml(self, name: str) -> str:
        return self.annotations.get(name) or os.path.join(self.annotation_folder, f"{name}.xml")

    def find(self, line: str) -> str:
        """Find the name that a line of a list means; if no such file is there, the likely one.

        Names may have spaces, but the per-class lists have a second column.
        """
        first = line.split()[0]
        for entry in (line, line.rsplit(maxsplit=1)[0], first):
            for name in _names_in(entry):
                if name in self.annotations or name in self.pictures:
                    return name
        *_, base = _names_in(line if _has_known_extension(line) else first)
        return base


def _names_in(entry: str) -> Iterator[str]:
    """Yield what a path may name: itself without extension, without its first folder, ..."""
    stem = os.path.splitext(entry)[0] if _has_known_extension(entry) else entry
    parts = parts_of(stem) or (stem,)
    yield from ("/".join(parts[start:]) for start in range(len(parts)))


def _has_known_extension(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _EXTENSIONS


def _is_xml_name(path: str) -> bool:
    name = os.path.basename(path)
    return name.lower().endswith(".xml") and not name.startswith(".")


def _by_name(paths: Iterable[str], folder: str) -> dict[str, list[str]]:
    """Sort paths by the name of their image."""
    start = len(os.path.join(folder, ""))
    by_name: dict[str, list[str]] = {}
    for path in sorted(paths):
        stem = os.path.splitext(path)[0][start:]
        by_name.setdefault(stem.replace(os.sep, "/"), []).append(path)
    return by_name


def _written_name(xml: str) -> str:
    """Read the picture's name, without folders, in an annotation file; empty if it has none."""
    try:
        return base_name(_text(ElementTree.parse(xml).getroot(), "filename"))
    except (OSError, ElementTree.ParseError, ValueError, LookupError):  # said where it is read
        return ""


def _text(item: ElementTree.Element | None, path: str) -> str:
    return "" if item is None else (item.findtext(path) or "").strip()

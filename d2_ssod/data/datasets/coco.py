"""Reading COCO instances files, of whatever tool: normalized once into our own records."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.structures import BoxMode

from d2_ssod.errors import ConfigError
from d2_ssod.file_names import FileFinder
from d2_ssod.json_files import read_json
from d2_ssod.values import as_flag, as_id, as_number, as_whole, find_id, problem_with_ignore

from ..findings import Findings
from ..images import ImageError, read_size
from .boxes import is_usable, read_four, warn_of_copies
from .catalog import DataSet

logger = logging.getLogger(__name__)

_FEDERATED = ("neg_category_ids", "not_exhaustive_category_ids")  # LVIS's
# Not copied into our dicts: what every COCO image has, and what Detectron2's mapper would act on.
_DROPPED_IMAGE_KEYS = frozenset(
    {"id", "file_name", "height", "width"}
    | {"license", "flickr_url", "coco_url", "date_captured"}
    | {"image_id", "annotations", "is_pseudo", "image", "instances"}
    | {"sem_seg_file_name", "pan_seg_file_name", "segments_info"}
    | {"proposal_boxes", "proposal_objectness_logits", "proposal_bbox_mode", "proposal_file"}
)
_LAYOUT = '{"images": [...], "annotations": [...], "categories": [...]}'


@dataclass(frozen=True)
class CocoFile:
    """A COCO instances file and the folder of its images.

    Attributes:
        json_file: the file; without categories or annotations it is an unlabeled data set.
        image_root: folder that its file names are relative to.
        annotations: False leaves the annotations out, for use as unlabeled images.
    """

    json_file: str
    image_root: str
    annotations: bool = True

    def read(self) -> DataSet:
        """Read it. What cannot be understood is among the findings.

        What tools do, and what is made of it: ids that are texts or decimals, numbers as texts,
        mixed ids; annotation ids of any kind, which are not used; ``iscrowd`` and ``area`` that are
        missing or null (no crowd; width x height); file names with backslashes or URLs; missing
        sizes (taken from the picture). Segmentations are not looked at. Boxes without area or
        outside their image are left out with a warning.

        Raises:
            ConfigError: it is not a COCO file at all.
        """
        content = read_json(self.json_file)
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            raise ConfigError(
                f'{self.json_file}: is not a COCO instances file (no list "images"); expected '
                f"{_LAYOUT}"
            )
        findings = Findings()
        classes = self._categories(content, findings)
        images = self._images(content["images"], findings)
        rows = self._list(content, "annotations", findings) if self.annotations else []
        if rows:
            self._annotate(images, rows, classes, findings)
        ordered = sorted(images.items(), key=lambda item: (isinstance(item[0], str), item[0]))
        return DataSet(
            [record for _, record in ordered],
            list(classes.values()) if classes else None,
            list(classes),
            findings,
        )

    def _list(self, content: dict, key: str, findings: Findings) -> list[dict]:
        """Take a list of records, which may be missing, out of the file."""
        rows = content.get(key) or []
        good = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        if not isinstance(rows, list) or len(good) < len(rows):
            findings.error(
                self.json_file, f'malformed "{key}"', f'"{key}" is no list of records', _LAYOUT
            )
        return good

    def _categories(self, content: dict, findings: Findings) -> dict[int | str, str]:
        """Read the name of each category, by its id in the file; in the order of the ids."""
        names: dict[int | str, str] = {}
        rows = self._list(content, "categories", findings)
        group = _only_a_group(rows, content.get("annotations"))
        if group is not None:
            _say_once(f"{self.json_file}: category {group['name']!r} only groups the others")
        for row in rows:
            if row is group:
                continue
            category_id, name = category_id_of(row.get("id")), row.get("name")
            if category_id is None or name is None or name == "" or isinstance(name, (list, dict)):
                missing = "name" if category_id is not None else "id"
                findings.error(
                    self.json_file,
                    "categories without name or id",
                    f"category {row} has no {missing}",
                    'give every category an "id" and a "name"',
                )
            elif category_id in names:
                findings.error(
                    self.json_file,
                    "repeated category ids",
                    f"categories {names[category_id]!r} and {name!r} both have the id "
                    f"{category_id!r}",
                    "ids are unique: renumber one, and its annotations",
                )
            else:
                names[category_id] = str(name)
        return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))

    def _images(self, rows: list, findings: Findings) -> dict[int | str, dict[str, Any]]:
        """Make the dict of each image, by its id in the file."""
        images: dict[int | str, dict[str, Any]] = {}
        names = [row.get("file_name") for row in rows if isinstance(row, dict)]
        finder = FileFinder(self.image_root, [name for name in names if isinstance(name, str)])
        for number, row in enumerate(rows):
            who = f"image number {number + 1}"
            if not isinstance(row, dict):
                findings.error(self.json_file, 'malformed "images"', f"{who} is {row!r}", _LAYOUT)
                continue
            image_id, file_name = as_id(row.get("id")), row.get("file_name")
            if image_id is None or not isinstance(file_name, str) or not file_name:
                key = "id" if image_id is None else "file_name"
                findings.error(
                    self.json_file,
                    "images without id or file_name",
                    f"{who} has the {key} {row.get(key)!r}",
                    'every image needs an "id" (number or text) and a "file_name"',
                )
            elif image_id in images:
                findings.error(
                    self.json_file,
                    "repeated image ids",
                    f"two images have the id {image_id!r}, the second is {file_name}",
                    "ids are unique: renumber one, and its annotations",
                )
            else:
                path = finder.find(file_name)
                images[image_id] = self._image(image_id, path, row, findings)
        return images

    def _image(
        self, image_id: int | str, path: str, row: dict, findings: Findings
    ) -> dict[str, Any]:
        extra = {key: value for key, value in row.items() if key not in _DROPPED_IMAGE_KEYS}
        record = {"file_name": path, "height": 0, "width": 0, "image_id": image_id, **extra}
        if self.annotations and any(row.get(key) for key in _FEDERATED):
            findings.warning(
                self.json_file,
                "images of which not all objects are labeled (LVIS)",
                f"image {row['file_name']} has {' and '.join(k for k in _FEDERATED if row.get(k))}",
                "objects without a label are learned as background, and AP is COCO's, not LVIS's: "
                "train and judge by data whose images are labeled throughout",
            )
        given = {side: row.get(side) for side in ("height", "width")}
        sizes = {side: as_whole(value) or 0 for side, value in given.items() if value is not None}
        record.update(sizes)
        if any(size <= 0 for size in sizes.values()):
            findings.error(
                self.json_file,
                "image sizes that are no numbers of pixels",
                f"image {row['file_name']} has the width {given['width']!r} and the height "
                f"{given['height']!r}",
                "give both in whole pixels, or neither",
            )
        elif len(sizes) < 2:
            try:
                record["height"], record["width"] = read_size(path)
            except ImageError:  # said where the images are looked at
                del record["height"], record["width"]
        return record

    def _annotate(
        self,
        images: dict[int | str, dict[str, Any]],
        rows: list[dict],
        classes: dict[int | str, str],
        findings: Findings,
    ) -> None:
        """Give every image its annotations."""
        for record in images.values():
            record["annotations"] = []
        numbers = {category_id: number for number, category_id in enumerate(classes)}
        for number, row in enumerate(rows):
            who = f"annotation {row.get('id', f'number {number + 1}')}"
            image_id = find_id(row.get("image_id"), images)
            category_id = category_id_of(row.get("category_id"))
            if image_id not in images:
                findings.error(
                    self.json_file,
                    "annotations of unknown images",
                    f'{who} is of the image {row.get("image_id")!r}, which is not in "images"',
                    "add the image or remove its annotations",
                )
                continue
            record = images[image_id]
            who += f" of image {os.path.basename(record['file_name'])}"
            if category_id not in numbers:
                findings.error(
                    self.json_file,
                    "annotations of unknown categories",
                    f"{who} has category_id {row.get('category_id')!r}, which is not in "
                    '"categories"',
                    "add the category, or correct the annotation",
                )
                continue
            annotation = self._annotation(row, numbers[category_id], record, who, findings)
            if annotation is not None:
                record["annotations"].append(annotation)
        warn_of_copies(images.values(), self.json_file, findings)

    def _annotation(
        self, row: dict, category: int, record: dict, who: str, findings: Findings
    ) -> dict[str, Any] | None:
        """Read one annotation; None if it is left out."""
        box, is_crowd = read_four(row.get("bbox")), as_flag(row.get("iscrowd"))
        problem = problem_with_ignore(row)
        if box is None:
            problem = f"has the bbox {row.get('bbox')!r}; expected four numbers"
        elif box[2] < 0 or box[3] < 0:
            problem = f"has the bbox {row['bbox']} of negative size"
        elif is_crowd is None:
            problem = f"has iscrowd {row['iscrowd']!r}; expected 0 or 1"
        if problem is not None:
            findings.error(
                self.json_file,
                "annotations that cannot be read",
                f"{who} {problem}",
                "correct or remove it; a bbox is [x, y, width, height] in pixels",
            )
            return None
        x, y, width, height = box
        _warn_of_rotation(row, self.json_file, who, findings)
        if not is_usable((x, y, x + width, y + height), record, self.json_file, who, findings):
            return None
        _warn_of_prediction(row, self.json_file, who, findings)
        area = as_number(row.get("area"))
        return {
            "iscrowd": int(is_crowd),
            "bbox": box,
            "category_id": category,
            "bbox_mode": BoxMode.XYWH_ABS,
            "area": area if area is not None and area > 0 else width * height,
        }


def category_id_of(value: Any) -> int | str | None:
    """Read a category's id, also a number that is given as a text: their order is that of ids."""
    whole = as_whole(value)
    return as_id(value) if whole is None else whole


def _only_a_group(categories: Sequence[dict], annotations: Any) -> dict | None:
    """Find a category without objects that is there to group the others, as Roboflow writes it."""
    grouping = [row.get("supercategory") for row in categories]
    groups = [
        row
        for row in categories
        if row.get("supercategory") == "none" and row.get("name") in grouping
    ]
    if not groups:  # as in most files, of whose annotations there may be millions
        return None
    rows = annotations if isinstance(annotations, list) else []
    used = {category_id_of(row.get("category_id")) for row in rows if isinstance(row, dict)}
    return next((row for row in groups if category_id_of(row.get("id")) not in used), None)


def _warn_of_rotation(row: dict, file: str, who: str, findings: Findings) -> None:
    """Say that a box is an upright one, though it was drawn turned, as CVAT writes it."""
    attributes = row.get("attributes")
    angle = as_number(attributes.get("rotation")) if isinstance(attributes, dict) else None
    if angle is not None and angle % 180 != 0:
        findings.warning(
            file,
            "boxes that were drawn turned",
            f"{who} has a rotation of {angle:g} degrees, which its bbox is without",
            "export them as polygons, or draw upright boxes: it is read as an upright one",
        )


def _warn_of_prediction(row: dict, file: str, who: str, findings: Findings) -> None:
    """Say that an object is as sure as any other here, though a model was not sure of it."""
    score = as_number(row.get("score"))
    if score is not None and score < 1:
        findings.warning(
            file,
            "objects with the score of a model",
            f"{who} has the score {score:g}",
            "each is taken for an object, as a person's labels are: leave out those that nobody "
            "has looked at, and the scores of the others",
        )


@functools.cache
def _say_once(line: str) -> None:
    """Files are read many times in a run."""
    logger.info("%s: left out", line)

"""YOLO's text files, in the layout of Ultralytics' ``data.yaml``."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

import yaml

from d2_ssod.errors import ConfigError, one_line
from d2_ssod.file_names import FileFinder
from d2_ssod.values import as_number, as_whole
from d2_ssod.yaml_files import AsWritten, check_repeated_keys

from ..findings import Findings
from ..images import map_threaded
from .boxes import corner_annotation, is_usable, warn_of_copies
from .catalog import DataSet
from .folder import ImageFolders

_LINE = (
    "a line is `class x y width height`, or `class x1 y1 x2 y2 ...` for a polygon, in units of the "
    "image (0 to 1)"
)
_WITH_SCORE = 5  # numbers after the class, as of predictions
_POSE_LINE = (
    "by kpt_shape a line is `class x y width height`, alone or with {} values of keypoints, in "
    "units of the image (0 to 1)"
)


@dataclass(frozen=True)
class YoloSplit:
    """One split of a data set described by a ``data.yaml``.

    Attributes:
        yaml_file: with ``names`` (a list, or numbers to names), the splits, and maybe ``path``.
            With ``kpt_shape`` keypoints follow the boxes, and are passed over; without, a line may
            be a polygon.
        split: ``train``, ``val``, ``test``, ...: a folder of pictures, a text file that lists them,
            or a list of such. The labels of ``images/a.jpg`` are in ``labels/a.txt``, or beside it.
        annotations: False: pictures alone.
    """

    yaml_file: str
    split: str = "train"
    annotations: bool = True

    def read(self) -> DataSet:
        """Read it. A picture without a label file is one without objects, as Ultralytics has it.

        Raises:
            ConfigError: the ``data.yaml`` cannot be read, or lacks the split.
        """
        content = self._content()
        places = self._places(content)
        listed = ImageFolders(places, self.yaml_file).read()
        findings = listed.findings
        if not self.annotations:
            return listed
        names = self._names(content)
        read = functools.partial(
            self._read_labels, num_classes=len(names), num_values=self._keypoint_values(content)
        )
        labels = map_threaded(read, listed.images, description=f"Reading {self.yaml_file}")
        without = 0
        for record, (found, of_image) in zip(listed.images, labels, strict=True):
            without += found is None
            record["annotations"] = found or []
            findings.extend(of_image)
        warn_of_copies(listed.images, self.yaml_file, findings)
        self._warn_of_shared_labels(listed.images, findings)
        if without:
            findings.warning(
                self.yaml_file,
                "pictures without a label file",
                f"{without} of {len(listed.images)} pictures of {self.split!r} have no label file",
                "they count as pictures without objects; name them as unlabeled instead if nobody "
                "has labeled them",
            )
        return DataSet(listed.images, names, findings=findings)

    def _warn_of_shared_labels(self, images: list[dict], findings: Findings) -> None:
        """Say which pictures (``1.jpg``, ``1.png``) have one label file, as by Ultralytics."""
        by_stem: dict[str, list[str]] = {}
        for path in (image["file_name"] for image in images if image["annotations"]):
            by_stem.setdefault(os.path.splitext(path)[0], []).append(path)
        for first, *others in by_stem.values():
            for other in others:
                findings.warning(
                    self.yaml_file,
                    "pictures of one name",
                    f"{other} has the label file of {first}",
                    "give pictures names that differ without the extension, too",
                )

    def splits(self) -> list[str]:
        """List the keys that may name a split: those with a path, or a list."""
        named = self._content().items()
        return [key for key, value in named if value and isinstance(value, (str, list))]

    def _content(self) -> dict:
        check_repeated_keys(self.yaml_file)
        try:
            with open(self.yaml_file, encoding="utf-8-sig") as file:
                text = file.read()
            content = yaml.safe_load(text)
            if isinstance(content, dict) and "names" in content:
                content["names"] = yaml.load(text, AsWritten)["names"]  # on, no, 010, null
        except OSError as error:
            raise ConfigError(f"{self.yaml_file}: cannot be read ({error.strerror})") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            line = one_line(error)
            raise ConfigError(f"{self.yaml_file}: is not a YAML file ({line})") from None
        if not isinstance(content, dict):
            raise ConfigError(
                f"{self.yaml_file}: is not a data.yaml; expected keys names, {self.split}, ..."
            )
        return content

    def _names(self, content: dict) -> list[str]:
        names = content.get("names")
        if isinstance(names, dict) and set(map(as_whole, names)) == set(range(len(names))):
            names = [name for _, name in sorted(names.items(), key=lambda item: as_whole(item[0]))]
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise ConfigError(
                f"{self.yaml_file}: names is {names!r}; expected a list of the classes, or their "
                "numbers from 0 and names"
            )
        return names

    def _keypoint_values(self, content: dict) -> int:
        """Count the values of an object's keypoints; 0 if it has none."""
        shape = content.get("kpt_shape")
        if shape is None:
            return 0
        sides = list(map(as_whole, shape)) if isinstance(shape, list) else []
        if len(sides) != 2 or None in sides or sides[0] < 1 or sides[1] not in (2, 3):
            raise ConfigError(
                f"{self.yaml_file}: kpt_shape is {shape!r}; expected the number of keypoints and "
                "of values of each, 2 or 3, such as [17, 3]; correct it, or remove it if there are "
                "no keypoints"
            )
        return sides[0] * sides[1]

    def _places(self, content: dict) -> tuple[str, ...]:
        """Find the folders and lists of the split, relative to ``path`` or to the YAML file."""
        given = content.get(self.split)
        entries = [given] if isinstance(given, str) else given
        if not isinstance(entries, list) or not all(e and isinstance(e, str) for e in entries):
            splits = ", ".join(key for key in ("train", "val", "test") if content.get(key))
            raise ConfigError(
                f"{self.yaml_file}: the split {self.split!r} is {given!r}; expected a folder or a "
                f"text file, or a list of such (the file has {splits or 'no split'})"
            )
        own = os.path.dirname(self.yaml_file)
        root = os.path.join(own, str(content.get("path") or ""))
        return tuple(self._find(entry, root, own) for entry in entries)

    def _find(self, entry: str, root: str, own: str) -> str:
        # Some exports write ../train/images for what lies beside the YAML file, some backslashes.
        candidates = [
            FileFinder(folder, [name]).find(name)
            for folder in (root, own)
            for name in (entry, entry.replace("\\", "/").removeprefix("../"))
        ]
        for candidate in candidates:
            if os.path.exists(candidate):
                return os.path.normpath(candidate)
        raise ConfigError(
            f"{self.yaml_file}: {self.split} names {entry}, which is not there; looked for "
            f"{candidates[0]}"
        )

    def _read_labels(
        self, record: dict, num_classes: int, num_values: int
    ) -> tuple[list[dict] | None, Findings]:
        """Read the annotations of a picture; None if there is no file for them."""
        findings = Findings()
        path = _label_file(record["file_name"])
        if path is None:
            return None, findings
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            lines = [(number, line.split()) for number, line in enumerate(file, 1) if line.strip()]
        found = []
        for number, words in lines:
            who = f"{path}:{number}"
            row = _read_line(words, num_classes, num_values)
            if isinstance(row, str):
                findings.error(
                    self.yaml_file,
                    "label lines that cannot be read",
                    f"{who} {row}",
                    _POSE_LINE.format(num_values) if num_values else _LINE,
                )
                continue
            category, numbers = row
            box = _corners(numbers, record["width"], record["height"])
            if is_usable(box, record, self.yaml_file, who, findings):
                found.append(corner_annotation(category, box))
        return found, findings


def _read_line(
    words: list[str], num_classes: int, num_values: int
) -> tuple[int, list[float]] | str:
    """Read the class, and the numbers of the box or polygon; or say what is wrong.

    Args:
        words: of the line.
        num_classes: how many there are.
        num_values: numbers of keypoints after the box; 0: there may be polygons instead.
    """
    category, numbers = as_whole(words[0]), [as_number(word) for word in words[1:]]
    if num_values:
        fits, outline = len(numbers) in (4, 4 + num_values), numbers[:4]
    else:
        fits, outline = len(numbers) == 4 or _is_polygon(numbers), numbers
    if category is None or None in numbers or not fits:
        found = f"reads {' '.join(words)[:80]!r}, {len(numbers)} values after the class"
        return f"{found} (with a score?)" if len(numbers) == _WITH_SCORE else found
    if not 0 <= category < num_classes:
        return f"has the class {category}, of {num_classes} classes"
    if min(outline) < -0.01 or max(outline) > 1.01:
        return f"has the value {max(outline, key=abs):g}, outside 0 to 1"
    return category, outline


def _label_file(image: str) -> str | None:
    stem = os.path.splitext(os.path.abspath(image))[0]
    head, found, tail = stem.rpartition(f"{os.sep}images{os.sep}")
    in_labels = f"{head}{os.sep}labels{os.sep}{tail}" if found else stem
    return next((f"{s}.txt" for s in (in_labels, stem) if os.path.isfile(f"{s}.txt")), None)


def _is_polygon(numbers: list) -> bool:
    return len(numbers) >= 6 and len(numbers) % 2 == 0


def _corners(numbers: list[float], width: int, height: int) -> list[float]:
    """Give the corners in pixels of a center and size, or of a polygon."""
    if _is_polygon(numbers):
        xs, ys = numbers[::2], numbers[1::2]
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
    else:
        x, y, w, h = numbers
        x0, y0, x1, y1 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return [x0 * width, y0 * height, x1 * width, y1 * height]

"""Which images the files of an earlier note are now, where data may have been moved since."""

from __future__ import annotations

import filecmp
import operator
import os
from collections.abc import Mapping, Sequence

from d2_ssod.file_names import common_folder
from d2_ssod.structures import ImageId

from .file_lengths import lengths_of


def match_files(files: Sequence[str], images: Sequence[dict]) -> dict[str, ImageId] | None:
    """Find the images that files of an earlier note are now, by their names.

    Args:
        files: absolute paths. Where all were moved, they are found by what is below their deepest
            common folder, in front of which there may be others now.
        images: dicts of all unlabeled images.

    Returns:
        The image's id by the file; None if not all of them are among the images, or if several
        folders have files of these names.
    """
    if not files:
        return {}
    id_of = {os.path.abspath(image["file_name"]): image["image_id"] for image in images}
    if all(file in id_of for file in files):
        return {file: id_of[file] for file in files}
    if any(file in id_of for file in files):  # nothing was moved, but some are gone
        return None
    root = common_folder(files)
    names = [os.path.relpath(file, root) for file in files]
    first = os.sep + names[0]
    folders = [path[: len(path) - len(names[0])] for path in id_of if path.endswith(first)]
    fitting = [folder for folder in folders if all(folder + name in id_of for name in names)]
    if len(fitting) != 1:
        return None
    return {f: id_of[fitting[0] + name] for f, name in zip(files, names, strict=True)}


def match_known_files(
    files: Sequence[str], images: Sequence[dict], length_of: Mapping[str, int] | None = None
) -> dict[str, ImageId] | None:
    """Find them as :func:`match_files` does, if they are surely the same pictures.

    Base names alone, such as 0.png, are those of many. So files that were moved must all be as long
    as they were, and of many lengths; or, as far as lengths tell nothing, the folder must have kept
    its name. Those that are still there must be the same, byte by byte.

    Args:
        files: see there.
        images: see there.
        length_of: lengths of the files then, if known: what has another one now tells nothing.
    """
    path_of = {image["image_id"]: os.path.abspath(image["file_name"]) for image in images}
    found = match_files(files, images) or {}
    now = {file: path_of[image_id] for file, image_id in found.items()}
    return found if now and _are_same(now, length_of) else None


def match_known_among(
    files: Sequence[str], images: Sequence[dict], length_of: Mapping[str, int]
) -> dict[str, ImageId] | None:
    """Find images among files of which there may be more, if they are surely the same pictures.

    Of files that were moved, all images must be among them. Arguments and result as of
    :func:`match_known_files`.
    """
    id_of = {os.path.abspath(image["file_name"]): image["image_id"] for image in images}
    if known := {file: id_of[file] for file in files if file in id_of}:
        return known
    found = match_files(list(id_of), [{"file_name": f, "image_id": f} for f in files]) or {}
    now = {file: path for path, file in found.items()}
    is_known = now and _are_same(now, length_of)
    return {file: id_of[path] for file, path in now.items()} if is_known else None


def _are_same(now: Mapping[str, str], length_of: Mapping[str, int] | None) -> bool:
    """Tell whether files are surely those that they were found to be by their names."""
    files = list(now)
    if all(file == now[file] for file in files):
        return True
    some = [files[number] for number in sorted({0, len(files) // 2, len(files) - 1})]
    try:
        there = [file for file in some if _is_there(file, length_of)]
        if there:
            return all(filecmp.cmp(file, now[file], shallow=False) for file in there)
    except OSError:  # what must not be read tells nothing
        pass
    if length_of is not None and (as_long := _are_as_long(now, length_of)) is not None:
        return as_long
    folders = common_folder(files), common_folder(list(now.values()))
    return os.path.basename(folders[0]) == os.path.basename(folders[1])


def _are_as_long(now: Mapping[str, str], length_of: Mapping[str, int]) -> bool | None:
    """Tell whether files are as long as others were: all, or by far not all; else None.

    Lengths that are not known, or few, as of pictures that are not compressed, tell nothing.
    """
    was = [length_of[file] for file in now]
    found = lengths_of([{"file_name": file} for file in now.values()])
    num_equal = sum(map(operator.eq, found, was))
    if -1 in was or -1 in found:
        return None
    if num_equal == len(was):
        return True if len(set(was)) > max(2, len(was) // 2) else None
    return False if 2 * num_equal < len(was) else None


def _is_there(file: str, length_of: Mapping[str, int] | None) -> bool:
    """Tell whether a file is still where it was, and not another one in its place."""
    if not os.path.isfile(file):
        return False
    return length_of is None or os.path.getsize(file) == length_of[file]

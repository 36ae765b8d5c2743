"""Files of an earlier note are found where they are now, if they are surely the same."""

import os
import shutil

import pytest

from d2_ssod.artifacts import forget_lengths
from d2_ssod.artifacts.moved_files import match_known_among, match_known_files


def put(folder, *contents):
    """Pictures 0.bmp, 1.bmp, ... of these contents; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"{number}.bmp").write_bytes(content)
    return [str(folder / f"{number}.bmp") for number in range(len(contents))]


def images(files):
    return [{"file_name": file, "image_id": number} for number, file in enumerate(files)]


def lengths(files):
    return {file: os.path.getsize(file) for file in files}


@pytest.mark.parametrize("match", [match_known_files, match_known_among])
def test_a_folder_that_was_renamed_is_not_known_unless_it_was_copied(tmp_path, match):
    was = put(tmp_path / "cam1", b"a", b"b", b"c")
    length_of, expected = lengths(was), dict(zip(was, range(3), strict=True))
    assert match(was, images(was), length_of) == expected
    copies = images(put(tmp_path / "cam2", b"a", b"b", b"c"))
    assert match(was, copies, length_of) == expected
    for contents in ((b"x", b"b", b"c"), (b"a", b"x", b"c"), (b"a", b"b", b"x")):
        assert match(was, images(put(tmp_path / "cam3", *contents)), length_of) is None
    same_name = images(put(tmp_path / "disk" / "cam1", b"x", b"y", b"z"))
    assert match(was, same_name, length_of) is None  # they are not what is still there
    shutil.rmtree(tmp_path / "cam1")
    assert match(was, same_name, length_of) == expected
    assert match(was, copies, length_of) is None  # any more


@pytest.mark.parametrize("match", [match_known_files, match_known_among])
def test_other_pictures_in_the_place_of_what_was_moved_tell_nothing(tmp_path, match):
    was = put(tmp_path / "one" / "cam1", b"a", b"b")
    length_of = lengths(was)
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "cam1").rename(tmp_path / "two" / "cam1")
    now = images([file.replace("/one/", "/two/") for file in was])
    put(tmp_path / "one" / "cam1", b"longer", b"ones")
    assert match(was, now, length_of) == dict(zip(was, range(2), strict=True))


@pytest.mark.parametrize("match", [match_known_files, match_known_among])
def test_lengths_of_their_own_tell_pictures_in_a_folder_of_another_name(tmp_path, match):
    was = put(tmp_path / "pics", b"a", b"bb", b"ccc", b"ccc")
    length_of = lengths(was)
    (tmp_path / "pics").rename(tmp_path / "unlabeled")
    now = images([file.replace("/pics/", "/unlabeled/") for file in was])
    assert match(was, now, length_of) == dict(zip(was, range(4), strict=True))
    assert match(was, now, dict.fromkeys(was, -1)) is None  # not known
    put(tmp_path / "unlabeled", b"a", b"bb", b"ccc", b"cccc")
    forget_lengths()
    assert match(was, now, length_of) is None


@pytest.mark.parametrize("match", [match_known_files, match_known_among])
def test_pictures_of_other_lengths_are_others_whatever_their_folder_is_called(tmp_path, match):
    was = put(tmp_path / "cam1", b"a", b"bb", b"ccc", b"ccc")
    length_of = lengths(was)
    shutil.rmtree(tmp_path / "cam1")
    few = put(tmp_path / "disk" / "cam1", b"x", b"y", b"z", b"ccc")
    assert match(was, images(few), length_of) == dict(zip(was, range(4), strict=True))  # replaced?
    most = put(tmp_path / "disk2" / "cam1", b"x", b"y", b"z", b"z")
    assert match(was, images(most), length_of) is None


@pytest.mark.parametrize("match", [match_known_files, match_known_among])
def test_lengths_that_many_pictures_share_tell_nothing(tmp_path, match):
    """Those of another camera, of the same sizes and not compressed, have the same ones."""
    was = put(tmp_path / "rgb", *(bytes(number % 40) for number in range(100)))
    length_of = lengths(was)
    (tmp_path / "rgb").rename(tmp_path / "thermal")
    now = images([file.replace("/rgb/", "/thermal/") for file in was])
    assert match(was, now, length_of) is None


def test_files_that_must_not_be_read_tell_nothing(tmp_path, monkeypatch):
    def refuse(*files, shallow):
        raise PermissionError(files[0])

    monkeypatch.setattr("filecmp.cmp", refuse)
    was, now = put(tmp_path / "cam1", b"a"), put(tmp_path / "new" / "cam1", b"b")
    assert match_known_files(was, images(now)) == {was[0]: 0}
    assert match_known_files(was, images(put(tmp_path / "cam2", b"b"))) is None


def test_there_may_be_more_files_than_images(tmp_path):
    was = put(tmp_path / "cam1", b"a", b"b", b"c")
    assert match_known_among(was, images(was[1:]), lengths(was)) == {was[1]: 0, was[2]: 1}
    more = images([was[0], str(tmp_path / "new.bmp")])
    assert match_known_files(was, more) is None
    assert match_known_among(was, more, lengths(was)) == {was[0]: 0}

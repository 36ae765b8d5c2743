import hashlib
import sqlite3
from pathlib import Path

import pytest
from pictures import cut, save_picture

from d2_ssod.data import images, picture_files
from d2_ssod.data.images import ImageError
from d2_ssod.data.picture_files import PictureFiles
from d2_ssod.data.seen_pictures import FileState, SeenPictures


def test_pictures_found_good_are_not_decoded_again(tmp_path, monkeypatch):
    paths = [str(save_picture(tmp_path / f"{n}.png")) for n in range(3)]
    cut(tmp_path / "1.png")
    first = PictureFiles().sizes(paths, "x")
    assert [first[0], first[2]] == [(16, 24), (16, 24)]
    assert isinstance(first[1], ImageError)
    decoded = []
    monkeypatch.setattr(images, "_decode", lambda image: decoded.append(image.filename))
    save_picture(tmp_path / "2.png", 30, 20)
    assert PictureFiles().sizes(paths, "x") == [(16, 24), (16, 24), (20, 30)]
    assert sorted(decoded) == paths[1:]


def test_without_a_cache_every_picture_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    paths = [str(save_picture(tmp_path / "a.png"))]
    assert PictureFiles().sizes(paths, "x") == [(16, 24)]
    assert PictureFiles().sizes(paths, "x") == [(16, 24)]


def test_a_damaged_cache_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "d2_ssod").mkdir()
    (tmp_path / "d2_ssod" / "pictures.sqlite").write_text("no database" * 100)
    paths = [str(save_picture(tmp_path / "a.png"))]
    assert PictureFiles().sizes(paths, "x") == [(16, 24)]


def test_two_processes_remember_what_they_find_at_the_same_time(tmp_path):
    paths = [str(save_picture(tmp_path / f"{n}.png")) for n in range(2)]
    first, second = map(FileState.of, paths)
    with SeenPictures(tmp_path / "seen") as one, SeenPictures(tmp_path / "seen") as other:
        one.add(first, (16, 24))
        other.add(second, (16, 24))
    with SeenPictures(tmp_path / "seen") as seen:
        assert [seen.get(first), seen.get(second)] == [(16, 24), (16, 24)]


def test_a_kill_loses_at_most_the_last_thousand(tmp_path):
    seen = SeenPictures(tmp_path / "seen").__enter__()
    for number in range(1500):
        seen.add(FileState(f"/{number}.png", 1, 1), (16, 24))
    with sqlite3.connect(tmp_path / "seen") as other:
        assert other.execute("SELECT COUNT(*) FROM good_2").fetchone() == (1000,)


def test_what_changes_while_it_is_looked_at_is_looked_at_again(tmp_path, monkeypatch):
    path = save_picture(tmp_path / "a.png")

    def written_meanwhile(image):
        cut(path)

    with monkeypatch.context() as patch:
        patch.setattr(images, "_decode", written_meanwhile)
        assert PictureFiles().sizes([str(path)], "x") == [(16, 24)]
    assert isinstance(PictureFiles().sizes([str(path)], "x")[0], ImageError)


@pytest.mark.parametrize("ask", [PictureFiles.states, PictureFiles.digests])
def test_each_file_is_looked_at_once(tmp_path, monkeypatch, ask):
    looks, steps = [], []
    paths = [str(save_picture(tmp_path / f"{n}.png")) for n in range(3)]
    for look in (picture_files.FileState, "of"), (picture_files, "_digest"):
        original = getattr(*look)
        monkeypatch.setattr(*look, lambda path, own=original: looks.append(path) or own(path))
    files = PictureFiles(lambda: steps.append(None))
    assert ask(files, [paths[0], *paths]) == ask(files, [paths[0], *paths])
    assert sorted(looks) == paths
    assert len(steps) == 3


def test_states_and_digests_tell_files_apart(tmp_path):
    path = save_picture(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(path)
    missing, odd = str(tmp_path / "missing.png"), "a\0b.png"
    files = PictureFiles()
    states = files.states([str(path), str(tmp_path / "link.png"), missing, odd])
    assert (
        states[0]
        == states[1]
        == FileState(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
    )
    assert [state.is_there for state in states] == [True, True, False, False]
    content = hashlib.sha1(Path(path).read_bytes()).hexdigest()
    assert files.digests([str(path), missing, odd]) == [content, missing, odd]

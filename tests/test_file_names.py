import os

import pytest

from d2_ssod.file_names import FileFinder, base_name, parts_of, spellings


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", ["a.png"]),
        (
            "up/a b_PNG.rf.4f2d0b7c9e1a4f2d0b7c9e1a4f2d0b7c.jpg",
            ["up/a b_PNG.rf.4f2d0b7c9e1a4f2d0b7c9e1a4f2d0b7c.jpg", "up/a b.PNG"],
        ),
        ("a.rf.1234567890.jpg", ["a.rf.1234567890.jpg"]),
        ("sub/a.png", ["sub/a.png"]),
        ("sub\\\\a.png".replace("\\\\", "\\"), ["sub/a.png"]),
        ("images\\1/90fbb0c7-a.png", ["images/1/90fbb0c7-a.png", "images/1/a.png"]),
        ("90fbb0c-a.png", ["90fbb0c-a.png"]),  # seven digits
        ("90fbb0c7-", ["90fbb0c7-"]),
        ("20240131-001.jpg", ["20240131-001.jpg"]),  # a date
        ("20241331-001.jpg", ["20241331-001.jpg", "001.jpg"]),
        ("a%20b.png", ["a%20b.png", "a b.png"]),
        (
            "http://host:8080/data/upload/1/90fbb0c7-a%20b.png",
            [
                "http://host:8080/data/upload/1/90fbb0c7-a%20b.png",
                "data/upload/1/90fbb0c7-a b.png",
                "http://host:8080/data/upload/1/a%20b.png",
                "data/upload/1/a b.png",
            ],
        ),
        (
            "/data/local-files/?d=images/a.png",
            ["/data/local-files/?d=images/a.png", "data/local-files/", "images/a.png"],
        ),
        ("", []),
    ],
)
def test_spellings_of_known_tools(name, expected):
    assert list(spellings(name)) == expected


def test_an_address_that_is_none_is_a_name():
    assert list(spellings("http://[img/a.jpg")) == ["http://[img/a.jpg"]


def test_parts_are_those_of_either_system():
    assert parts_of("a\\b/c.png") == ("a", "b", "c.png")


@pytest.mark.parametrize(
    ("name", "expected"), [("a\\b/c.png", "c.png"), ("c.png", "c.png"), (".", "."), ("", "")]
)
def test_every_name_has_a_last_part(name, expected):
    assert base_name(name) == expected


def test_accents_may_be_letters_of_their_own():
    composed, apart = "\u00e9.png", "e\u0301.png"
    assert list(spellings(composed)) == [composed, apart]
    assert list(spellings(apart)) == [apart, composed]


@pytest.mark.parametrize(
    "name",
    ["/upload/cam1/a.png", "C:\\upload\\cam1\\a.png", "//host/share/cam1/a.png", "/cam1/a.png"],
)
def test_an_absolute_path_of_another_machine_is_found_by_its_longest_end(tmp_path, name):
    for place in ("cam1/a.png", "a.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    assert FileFinder(str(tmp_path), [name]).find(name) == f"{tmp_path}/cam1/a.png"
    (tmp_path / "cam1" / "a.png").unlink()
    assert FileFinder(str(tmp_path), [name]).find(name) == f"{tmp_path}/a.png"
    (tmp_path / "a.png").unlink()
    assert FileFinder(str(tmp_path), [name]).find(name) == os.path.join(tmp_path, name)


def found_below(folder, names):
    finder = FileFinder(str(folder), names)
    return {name for name in names if finder.find(name) != name}


def pretend(monkeypatch, there):
    """Have these files and their folders; the list of all that is looked at."""
    looked, folders = [], {os.path.dirname(path) for path in there}

    def look(known):
        return lambda path: looked.append(path) or path in known

    monkeypatch.setattr(os.path, "exists", look(there))
    monkeypatch.setattr(os.path, "isdir", look(folders))
    return looked


def test_what_is_in_front_of_absolute_paths_is_the_same_for_all(tmp_path):
    """Only pictures of cam1 were copied: those of cam2 are not there, by whatever names."""
    names = [f"/home/a/{camera}/{n}.png" for camera in ("cam2", "cam1") for n in range(3)]
    for n in (0, 1):
        (tmp_path / f"{n}.png").touch()
    (tmp_path / "cam1").mkdir()
    (tmp_path / "cam1" / "2.png").touch()
    assert found_below(tmp_path, ["/home/a/cam1/0.png", "/home/a/cam1/3.png"]) == {
        "/home/a/cam1/0.png"
    }
    assert found_below(tmp_path, names[1:]) == {"/home/a/cam1/0.png", "/home/a/cam1/1.png"}


def test_pictures_of_one_folder_are_not_those_of_another_with_the_same_names(tmp_path):
    names = [f"/home/a/{camera}/{n}.png" for camera in ("cam2", "cam1") for n in range(3)]
    for folder in ("cam1", "images"):
        (tmp_path / folder).mkdir()
        for n in range(3):
            (tmp_path / folder / f"{n}.png").touch()
    assert found_below(tmp_path / "cam1", names) == set(names[3:])
    assert not found_below(tmp_path / "images", names)


@pytest.mark.parametrize(("folder", "expected"), [("cam2", "cam2"), ("images", None)])
@pytest.mark.parametrize("count", [3, 150, 4000])
def test_pictures_of_cameras_that_take_turns_stay_apart(
    tmp_path, monkeypatch, folder, expected, count
):
    """Whichever of the names are looked at."""
    pretend(monkeypatch, {f"{tmp_path}/{folder}/{n}.png" for n in range(count)})
    names = [f"/d/cam{camera}/{n}.png" for n in range(count) for camera in (1, 2)]
    found = found_below(tmp_path / folder, names)
    assert found == {name for name in names if expected and f"/{expected}/" in name}


@pytest.mark.parametrize("count", [9, 4000])
def test_pictures_of_one_base_name_are_found_however_many(tmp_path, monkeypatch, count):
    pretend(monkeypatch, {f"{tmp_path}/{n}/rgb.png" for n in range(count)})
    names = [f"/old/data/{n}/rgb.png" for n in range(count)]
    assert found_below(tmp_path, names) == set(names)


def test_pictures_that_were_not_moved_do_not_outvote_others(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for n in range(10):
        (folder / f"{n}.png").touch()
    moved = [f"/old/{n}.png" for n in (8, 9)]
    assert found_below(folder, [f"{folder}/{n}.png" for n in range(8)] + moved) == set(moved)


@pytest.mark.parametrize(
    "listed", ["{folder}/{n}.png", "{link}/{n}.png", "{n}.png", "..\\images\\{n}.png"]
)
def test_pictures_of_a_missing_disk_are_not_others_of_the_list(tmp_path, listed):
    folder, link = tmp_path / "a" / "images", tmp_path / "link"
    folder.mkdir(parents=True)
    link.symlink_to(folder)
    for n in range(20):
        (folder / f"{n}.png").touch()
    names = [listed.format(folder=folder, link=link, n=n) for n in range(19)]
    missing = [f"/mnt/b/images/{n}.png" for n in range(17, 20)]
    assert not set(missing) & found_below(folder, names + missing)


def test_each_of_many_moved_pictures_is_looked_for_once(tmp_path, monkeypatch):
    there = {f"{tmp_path}/cam{n % 4}/{n}.png" for n in range(4000)}
    looked = pretend(monkeypatch, there)
    names = [f"/mnt/old/data/cam{n % 4}/{n}.png" for n in range(4000)]
    assert found_below(tmp_path, names) == set(names)
    assert len(looked) < 1.01 * len(names)


def test_a_picture_that_is_named_again_does_not_lose_the_others(tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.png").touch()
    moved = [f"/old/images/{n}.png" for n in range(4)]
    assert found_below(tmp_path, ["0.png", *moved]) == {"0.png", *moved}


def test_pictures_of_a_missing_disk_are_not_those_that_nobody_has_named(tmp_path):
    for n in range(10):
        (tmp_path / f"{n}.png").touch()
    named, missing = ([f"{front}{n}.png" for n in range(m)] for front, m in (("", 4), ("/d/", 10)))
    assert found_below(tmp_path, named + missing) == set(named)
    named, moved = named[:1], missing  # of which one is named twice
    assert found_below(tmp_path, named + moved) == {*named, *moved}


def test_names_may_be_relative_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0.png").touch()
    assert FileFinder("", ["/old/0.png"]).find("/old/0.png") == "0.png"
    assert FileFinder("", ["90fbb0c0-0.png"]).find("90fbb0c0-0.png") == "0.png"


@pytest.mark.parametrize("name", ["\ud83d.png", "\ud83d/0.png", "a\0/0.png"])
def test_a_name_that_no_system_can_have_is_not_found(tmp_path, name):
    (tmp_path / "0.png").touch()
    names = [f"/old/{name}", "/old/0.png", name]
    assert found_below(tmp_path, names) == {"/old/0.png", name}


def test_the_folders_own_name_counts_though_another_one_has_more(tmp_path):
    folder = tmp_path / "cam2"
    folder.mkdir()
    for n in range(4):
        (folder / f"{n}.png").touch()
    names = [f"/d/cam1/{n}.png" for n in range(9)] + [f"/d/cam2/{n}.png" for n in range(3)]
    assert found_below(folder, names) == {f"/d/cam2/{n}.png" for n in range(3)}


@pytest.mark.parametrize("step", [1, -1])
def test_one_picture_that_lies_elsewhere_does_not_decide(tmp_path, step):
    (tmp_path / "cam1").mkdir()
    for name in ("0.png", *(f"cam1/{n}.png" for n in range(1, 5))):
        (tmp_path / name).touch()
    names = [f"/home/a/cam1/{n}.png" for n in range(5)][::step]
    assert found_below(tmp_path, names) == {f"/home/a/cam1/{n}.png" for n in range(1, 5)}


def test_a_name_of_roboflow_may_begin_as_one_of_label_studio(tmp_path):
    name = "90fbb0c7-12ab_jpg.rf.4f2d0b7c9e1a4f2d.jpg"
    assert list(spellings(name)) == [name, "90fbb0c7-12ab.jpg", "12ab.jpg"]

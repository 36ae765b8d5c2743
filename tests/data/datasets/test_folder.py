import logging

import pytest
from pictures import save_picture

from d2_ssod.data.datasets import ImageFolders
from d2_ssod.errors import ConfigError


def load(*places):
    data_set = ImageFolders(tuple(map(str, places)), "KEY").read()
    assert not list(data_set.findings)
    return data_set.images


def names_of(records, folder):
    return [record["file_name"].removeprefix(f"{folder}/") for record in records]


def test_folder_lists_all_images_in_order_of_their_paths(tmp_path):
    odd = ["b.JPG", "a b/ümläut #1%.png", "a b/.hidden.png", "c.d/e.jpeg", "10.png", "9.png"]
    for name in odd:
        save_picture(tmp_path / name, 20, 30)
    records = load(tmp_path)
    shown = ["10.png", "9.png", "a b/ümläut #1%.png", "b.JPG", "c.d/e.jpeg"]
    assert names_of(records, tmp_path) == shown
    assert [record["image_id"] for record in records] == [1, 2, 3, 4, 5]
    assert all((r["height"], r["width"]) == (30, 20) for r in records)
    assert all("annotations" not in record for record in records)


def test_folder_is_the_same_twice(tmp_path):
    for number in range(20):
        save_picture(tmp_path / f"{number % 3}" / f"{number}.png")
    assert load(tmp_path) == load(tmp_path)


def test_folder_gives_the_size_of_the_turned_image(tmp_path):
    save_picture(tmp_path / "a.jpg", 24, 16, orientation=6)
    (record,) = load(tmp_path)
    assert (record["height"], record["width"]) == (24, 16)


def test_folder_skips_and_counts_other_files(tmp_path, caplog):
    save_picture(tmp_path / "a.png")
    for name in ("notes.txt", "z.xml", ".DS_Store"):
        (tmp_path / name).write_text("")
    with caplog.at_level(logging.INFO, "d2_ssod.data.datasets.folder"):
        assert names_of(load(tmp_path), tmp_path) == ["a.png"]
    assert "1 images; skipped 3 other files, such as .DS_Store" in caplog.text


def test_folder_without_images_is_an_empty_list(tmp_path):
    assert load(tmp_path) == []


def test_folder_names_all_unreadable_images(tmp_path):
    save_picture(tmp_path / "a.png")
    for name in "bcd":
        (tmp_path / f"{name}.png").write_text("no image")
    data_set = ImageFolders((str(tmp_path),), "SSOD.REGISTER[0].IMAGES").read()
    (finding,) = data_set.findings
    assert finding.level == "error"
    assert str(finding).startswith(f"SSOD.REGISTER[0].IMAGES: {tmp_path}/b.png is not a readable")
    assert "(and 2 more: bad images)" in str(finding)
    assert len(data_set.images) == 1


def test_folder_reads_jpegs_by_any_of_their_extensions(tmp_path):
    for name in ("a.jfif", "b.jpe", "c.JPG"):
        save_picture(tmp_path / "x.jpg").rename(tmp_path / name)
    assert names_of(load(tmp_path), tmp_path) == ["a.jfif", "b.jpe", "c.JPG"]


def test_folder_warns_of_pictures_that_it_cannot_read(tmp_path):
    save_picture(tmp_path / "a.png")
    for name in ("b.heic", "c.svg", "notes.txt"):
        (tmp_path / name).write_text("")
    (finding,) = ImageFolders((str(tmp_path),), "KEY").read().findings
    assert finding.level == "warning"
    assert finding.count == 2
    assert "b.heic" in str(finding)


def test_folder_skips_what_systems_and_editors_put_there(tmp_path):
    for name in (".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/._a.png", "b/@eaDir/a.png/x.jpg"):
        save_picture(tmp_path / name)
    save_picture(tmp_path / "b" / "a.png")
    assert names_of(load(tmp_path), tmp_path) == ["b/a.png"]


def test_several_folders_and_lists_are_joined(tmp_path):
    for name in ("one/a.png", "two/a.png", "two/b.png", "three/c.png"):
        save_picture(tmp_path / name)
    (tmp_path / "list.txt").write_text("three/c.png\n\n./two/b.png\n", encoding="utf-8-sig")
    records = load(tmp_path / "one", tmp_path / "list.txt")
    assert names_of(records, tmp_path) == ["one/a.png", "three/c.png", "./two/b.png"]
    assert [record["image_id"] for record in records] == [1, 2, 3]
    assert len(load(tmp_path / "one", tmp_path / "two", tmp_path / "one")) == 3


def test_a_picture_is_itself(tmp_path):
    """As a shell writes out ``pictures/*.png``."""
    paths = [save_picture(tmp_path / name) for name in ("b.png", "a.png")]
    assert names_of(load(*paths, tmp_path), tmp_path) == ["b.png", "a.png"]


def test_what_is_no_list_of_pictures_is_not_read_as_one(tmp_path):
    """As a shell writes out ``pictures/*``."""
    picture, other, binary = (tmp_path / name for name in ("a.png", "b.heic", "Thumbs.db"))
    save_picture(picture)
    other.write_bytes(b"ftypheic")
    data_set = ImageFolders((str(picture), str(other)), "KEY").read()
    assert len(data_set.images) == 1
    (finding,) = data_set.findings
    assert f"skipped {other}" in str(finding)
    binary.write_bytes(b"\0\1abc")
    with pytest.raises(ConfigError, match=r"Thumbs\.db: is no text file that lists pictures"):
        load(picture, binary)


def test_a_list_may_be_written_on_windows(tmp_path):
    for name in ("two/a.png", "two/b c.png"):
        save_picture(tmp_path / name)
    (tmp_path / "list.txt").write_text("two\\a.png\r\ntwo\\b c.png\r\n")
    assert names_of(load(tmp_path / "list.txt"), tmp_path) == ["two/a.png", "two/b c.png"]


def test_a_list_of_pictures_that_are_elsewhere_is_named(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("images/a.png\nimages/b.png\n")
    data_set = ImageFolders((str(path),), "KEY").read()
    (finding,) = data_set.findings
    assert str(finding).startswith(
        f"KEY: none of 2 pictures is in {tmp_path}/images, such as a.png"
    )
    assert f"{path} are relative to its own folder" in str(finding)
    assert data_set.images == []


def test_folder_follows_links_once(tmp_path):
    save_picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "images").mkdir()
    save_picture(tmp_path / "images" / "b.png")
    for number in reversed(range(30)):
        (tmp_path / "images" / f"link{number:02d}").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "round").symlink_to(tmp_path / "images")
    folder = tmp_path / "images"
    assert names_of(load(folder), folder) == ["b.png", "link00/a.png"]


def test_folders_that_are_named_twice_are_said(tmp_path):
    pictures = tmp_path / "data" / "train"
    for name in ("a.png", "b.png"):
        save_picture(pictures / name, 24, 16)
    (pictures / "list.txt").write_text("data/train/a.png\ndata/train/b.png\n")
    found = ImageFolders((str(pictures / "list.txt"),), "KEY").read().findings
    (line,) = map(str, found)
    assert f"such as a.png, which is {pictures}/a.png; " in line
    assert line.endswith("or the one above it, if the names have folders already")

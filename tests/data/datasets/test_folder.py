import logging

import pytest
from pictures import save_picture

from d2_ssod.data.datasets.folder import load_image_folder
from d2_ssod.errors import ConfigError


def names_of(records, folder):
    return [record["file_name"].removeprefix(f"{folder}/") for record in records]


def test_folder_lists_all_images_in_order_of_their_paths(tmp_path):
    odd = ["b.JPG", "a b/ümläut #1%.png", "a b/.hidden.png", "c.d/e.jpeg", "10.png", "9.png"]
    for name in odd:
        save_picture(tmp_path / name, 20, 30)
    records = load_image_folder(str(tmp_path), "KEY")
    shown = ["10.png", "9.png", "a b/ümläut #1%.png", "b.JPG", "c.d/e.jpeg"]
    assert names_of(records, tmp_path) == shown
    assert [record["image_id"] for record in records] == [1, 2, 3, 4, 5]
    assert all((r["height"], r["width"]) == (30, 20) for r in records)
    assert all("annotations" not in record for record in records)


def test_folder_is_the_same_twice(tmp_path):
    for number in range(20):
        save_picture(tmp_path / f"{number % 3}" / f"{number}.png")
    assert load_image_folder(str(tmp_path), "KEY") == load_image_folder(str(tmp_path), "KEY")


def test_folder_gives_the_size_of_the_turned_image(tmp_path):
    save_picture(tmp_path / "a.jpg", 24, 16, orientation=6)
    (record,) = load_image_folder(str(tmp_path), "KEY")
    assert (record["height"], record["width"]) == (24, 16)


def test_folder_skips_and_counts_other_files(tmp_path, caplog):
    save_picture(tmp_path / "a.png")
    for name in ("notes.txt", "z.xml", ".DS_Store"):
        (tmp_path / name).write_text("")
    with caplog.at_level(logging.INFO, "d2_ssod.data.datasets.folder"):
        assert names_of(load_image_folder(str(tmp_path), "KEY"), tmp_path) == ["a.png"]
    assert "1 images; skipped 3 other files, such as .DS_Store" in caplog.text


def test_folder_without_images_is_an_empty_list(tmp_path):
    assert load_image_folder(str(tmp_path), "KEY") == []


def test_folder_names_the_unreadable_image(tmp_path):
    save_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(ConfigError, match=r"^SSOD.REGISTER\[0\].IMAGES: .*/b.png is not") as caught:
        load_image_folder(str(tmp_path), "SSOD.REGISTER[0].IMAGES")
    assert "\n" not in str(caught.value)


def test_folder_follows_links_once(tmp_path):
    save_picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "images").mkdir()
    save_picture(tmp_path / "images" / "b.png")
    for number in reversed(range(30)):
        (tmp_path / "images" / f"link{number:02d}").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "round").symlink_to(tmp_path / "images")
    folder = tmp_path / "images"
    assert names_of(load_image_folder(str(folder), "KEY"), folder) == ["b.png", "link00/a.png"]

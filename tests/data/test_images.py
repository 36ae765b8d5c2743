import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from pictures import cut, save_picture
from PIL import Image

from d2_ssod.data import images
from d2_ssod.data.images import ImageError, check_complete, map_threaded, read_size

FORMATS = ["a.png", "a.jpg", "a.bmp", "a.gif", "a.tif", "a.webp", "a.ppm"]


@pytest.mark.parametrize("name", FORMATS)
def test_read_size_is_the_size_of_the_decoded_image(tmp_path, name):
    path = save_picture(tmp_path / name, 24, 16)
    assert read_size(path) == check_complete(path) == read_image(str(path), "BGR").shape[:2]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_size_turns_the_image_as_detectron2_does(tmp_path, name, orientation):
    path = save_picture(tmp_path / name, 24, 16, orientation)
    assert read_size(path) == read_image(str(path), "BGR").shape[:2]
    if path.suffix != ".tif":  # Pillow turns TIFFs by itself, and Detectron2 once more
        assert read_size(path) == ((24, 16) if orientation >= 5 else (16, 24))


def test_read_size_does_not_decode(tmp_path):
    assert read_size(cut(save_picture(tmp_path / "a.png", 200, 100))) == (100, 200)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_read_size_ignores_damaged_exif_data(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (24, 16)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_size(path) == (16, 24)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_check_complete_finds_truncated_files(tmp_path, name, share):
    path = cut(save_picture(tmp_path / name, 120, 90), share)
    with pytest.raises(ImageError, match=r"truncated|not a readable image"):
        check_complete(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_check_complete_does_not_decode_whole_files(tmp_path, name, monkeypatch):
    path = save_picture(tmp_path / name)
    monkeypatch.setattr(images, "_decode", lambda image: pytest.fail("decoded"))
    assert check_complete(path) == (16, 24)


def test_check_complete_accepts_data_after_the_end(tmp_path):
    path = save_picture(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert check_complete(path) == (16, 24)
    path.write_bytes(path.read_bytes() + b"\0" * 10_000)  # more than is searched: decoded
    assert check_complete(path) == (16, 24)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_check_complete_rejects_what_is_no_image(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="not a readable image"):
        check_complete(path)


def test_missing_file_and_folder_are_named_so(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_size(tmp_path / "a.png")
    with pytest.raises(ImageError, match="not a readable image"):
        read_size(tmp_path)


def test_map_threaded_keeps_the_order():
    items = list(np.random.RandomState(0).permutation(2000))
    assert list(map_threaded(lambda i: 2 * i, items, description="x")) == [2 * i for i in items]


def test_map_threaded_shows_a_bar_for_many_items_only(capfd):
    list(map_threaded(abs, range(10), description="Counting"))
    assert "Counting" not in capfd.readouterr().err
    list(map_threaded(abs, range(1000), description="Counting"))
    assert "Counting" in capfd.readouterr().err
